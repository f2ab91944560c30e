package remote

import (
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/lakefsfs/lakefsfs/api/lakefsfs/v1"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

// This file has what is said in both directions: the words of types.proto.

// name makes a name fit for a field that is UTF-8. No repository, ref or token that exists is changed by it; one that can't exist
// stays one that can't, so that the server says what is wrong with it.
func name[T ~string](s T) string {
	if utf8.ValidString(string(s)) {
		return string(s)
	}
	return strings.ToValidUTF8(string(s), "\uFFFD")
}

// texts gathers the first string that should be text and isn't.
type texts struct{ err error }

func (t *texts) text(what, s string) string {
	if !utf8.ValidString(s) && t.err == nil {
		t.err = fmt.Errorf("%s %q is no UTF-8: %w", what, s, graveler.Invalid)
	}
	return s
}

func (t *texts) pairs(what string, m map[string]string) map[string]string {
	for k, v := range m {
		t.text(what, k)
		t.text(what, v)
	}
	return m
}

func timePB(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return &timestamppb.Timestamp{Seconds: t.Unix(), Nanos: int32(t.Nanosecond())}
}

func timeOf(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return time.Unix(t.GetSeconds(), int64(t.GetNanos())).UTC()
}

// checker gathers the first thing that a peer can't mean.
type checker struct{ err error }

func (c *checker) bad(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format+": %w", append(args, graveler.Invalid)...)
	}
}

func (c *checker) time(what string, t *timestamppb.Timestamp) time.Time {
	// What lies beyond the years that nanoseconds in 64 bits reach can't be kept.
	if t != nil && (t.GetNanos() < 0 || t.GetNanos() > 999_999_999 || t.GetSeconds() < math.MinInt64/1_000_000_000+1 || t.GetSeconds() > math.MaxInt64/1_000_000_000-1) {
		c.bad("%s: no such time: %d seconds, %d nanoseconds", what, t.GetSeconds(), t.GetNanos())
		return time.Time{}
	}
	return timeOf(t)
}

// maxName bounds names and ref expressions, before they are taken apart.
const maxName = 4 << 10

func (c *checker) name(what, s string) string {
	if len(s) > maxName {
		c.bad("%s of %d bytes", what, len(s))
	}
	return s
}

// path takes a path or the beginning of one; what a path must be besides, the engine says.
func (c *checker) path(what string, b []byte) string {
	if len(b) > graveler.MaxPath+1 && c.err == nil {
		c.err = fmt.Errorf("%s of %d bytes is longer than %d: %w", what, len(b), graveler.MaxPath, graveler.TooLarge)
	}
	return string(b)
}

func (c *checker) count(what string, n int64) int {
	if n < 0 || n > math.MaxInt32 {
		c.bad("%s is %d", what, n)
		return 0
	}
	return int(n)
}

// limit is a count of which 0 and more than can be is all.
func (c *checker) limit(n int64) int {
	if n > math.MaxInt32 {
		return 0
	}
	return c.count("limit", n)
}

func repositoryPB(r graveler.Repository) *pb.Repository {
	return &pb.Repository{Id: name(r.ID), StorageNamespace: name(r.StorageNamespace), DefaultBranch: name(r.DefaultBranch), Created: timePB(r.Created)}
}

func repositoryOf(r *pb.Repository) graveler.Repository {
	return graveler.Repository{
		ID: graveler.RepositoryID(r.GetId()), StorageNamespace: r.GetStorageNamespace(),
		DefaultBranch: graveler.BranchID(r.GetDefaultBranch()), Created: timeOf(r.GetCreated()),
	}
}

func manifestPB(m graveler.RefsManifest) *pb.RefsManifest {
	return &pb.RefsManifest{Commits: name(m.Commits), Branches: name(m.Branches), Tags: name(m.Tags)}
}

func manifestOf(m *pb.RefsManifest) graveler.RefsManifest {
	return graveler.RefsManifest{
		Commits: graveler.MetaRangeID(m.GetCommits()), Branches: graveler.MetaRangeID(m.GetBranches()), Tags: graveler.MetaRangeID(m.GetTags()),
	}
}

func branchPB(b graveler.Branch) *pb.Branch {
	p := &pb.Branch{Id: name(b.ID), Commit: name(b.Commit), Token: name(b.Token), Hidden: b.Hidden}
	for _, t := range b.Sealed {
		p.Sealed = append(p.Sealed, name(t))
	}
	return p
}

func branchOf(p *pb.Branch) graveler.Branch {
	b := graveler.Branch{ID: graveler.BranchID(p.GetId()), Commit: graveler.CommitID(p.GetCommit()), Token: graveler.StagingToken(p.GetToken()), Hidden: p.GetHidden()}
	for _, t := range p.GetSealed() {
		b.Sealed = append(b.Sealed, graveler.StagingToken(t))
	}
	return b
}

func tagPB(t graveler.Tag) *pb.Tag { return &pb.Tag{Id: name(t.ID), Commit: name(t.Commit)} }

func tagOf(t *pb.Tag) graveler.Tag {
	return graveler.Tag{ID: graveler.TagID(t.GetId()), Commit: graveler.CommitID(t.GetCommit())}
}

func commitPB(c graveler.Commit) *pb.Commit {
	p := &pb.Commit{
		Id: name(c.ID), Committer: name(c.Committer), Message: name(c.Message), Created: timePB(c.Created), MetaRange: name(c.MetaRange),
		Metadata: validPairs(c.Metadata), Version: int32(c.Version), Generation: int32(c.Generation),
	}
	for _, id := range c.Parents {
		p.Parents = append(p.Parents, name(id))
	}
	return p
}

// validPairs are metadata as they can travel. What lakefsfs and lakeFS write is UTF-8; should other bytes be there all the same, the
// rest is told.
func validPairs(m map[string]string) map[string]string {
	for k, v := range m {
		if utf8.ValidString(k) && utf8.ValidString(v) {
			continue
		}
		out := make(map[string]string, len(m))
		for k, v := range m {
			out[name(k)] = name(v)
		}
		return out
	}
	return m
}

func commitOf(p *pb.Commit) graveler.Commit {
	c := graveler.Commit{
		ID: graveler.CommitID(p.GetId()), Committer: p.GetCommitter(), Message: p.GetMessage(), Created: timeOf(p.GetCreated()),
		MetaRange: graveler.MetaRangeID(p.GetMetaRange()), Metadata: p.GetMetadata(), Version: int(p.GetVersion()), Generation: int(p.GetGeneration()),
	}
	for _, id := range p.GetParents() {
		c.Parents = append(c.Parents, graveler.CommitID(id))
	}
	return c
}

func entryPB(e *graveler.Entry) *pb.Entry {
	return &pb.Entry{
		Address: e.Address, AddressType: pb.AddressType(e.AddressType), Modified: timePB(e.Modified), Size: e.Size, Etag: e.ETag, Metadata: e.Metadata,
		ContentType: e.ContentType, Inode: e.Inode, Changed: timePB(e.Changed), Accessed: timePB(e.Accessed), Home: e.Home, Pending: string(e.Pending),
	}
}

// sentEntryPB is entryPB for an entry that the engine told: all must travel.
func sentEntryPB(e *graveler.Entry) *pb.Entry {
	p := entryPB(e)
	p.Address, p.Etag, p.ContentType, p.Pending = name(p.Address), name(p.Etag), name(p.ContentType), name(p.Pending)
	p.Metadata = validPairs(p.Metadata)
	return p
}

func (t *texts) entry(e *graveler.Entry) *pb.Entry {
	t.text("address", e.Address)
	t.text("etag", e.ETag)
	t.text("content type", e.ContentType)
	t.text("content id", string(e.Pending))
	t.pairs("metadata", e.Metadata)
	return entryPB(e)
}

func entryOf(p *pb.Entry) graveler.Entry {
	if p == nil {
		return graveler.Entry{}
	}
	return graveler.Entry{
		Address: p.Address, AddressType: graveler.AddressType(p.AddressType), Modified: timeOf(p.Modified), Size: p.Size, ETag: p.Etag, Metadata: p.Metadata,
		ContentType: p.ContentType, Inode: p.Inode, Changed: timeOf(p.Changed), Accessed: timeOf(p.Accessed), Home: p.Home, Pending: graveler.ContentID(p.Pending),
	}
}

func (c *checker) addressType(t pb.AddressType) graveler.AddressType {
	if t < pb.AddressType_ADDRESS_TYPE_BY_PREFIX || t > pb.AddressType_ADDRESS_TYPE_FULL {
		c.bad("address type %d", t)
	}
	return graveler.AddressType(t)
}

func (c *checker) entry(p *pb.Entry) graveler.Entry {
	if p == nil {
		return graveler.Entry{}
	}
	c.addressType(p.AddressType)
	c.time("modified", p.Modified)
	c.time("changed", p.Changed)
	c.time("accessed", p.Accessed)
	if p.Size < 0 {
		c.bad("an entry of %d bytes", p.Size)
	}
	c.name("content id", p.Pending)
	return entryOf(p)
}

func (c *checker) changes(ps []*pb.Change) []graveler.Change {
	out := make([]graveler.Change, len(ps))
	for i, p := range ps {
		out[i] = graveler.Change{Path: string(p.GetPath()), Remove: p.GetRemove(), Entry: c.entry(p.GetEntry())}
	}
	return out
}

func (t *texts) changes(cs []graveler.Change) []*pb.Change {
	out := make([]*pb.Change, len(cs))
	for i := range cs {
		out[i] = &pb.Change{Path: []byte(cs[i].Path), Remove: cs[i].Remove}
		if !cs[i].Remove {
			out[i].Entry = t.entry(&cs[i].Entry)
		}
	}
	return out
}

// weight is about how many bytes an entry takes in a message.
func weight(e *graveler.Entry) int {
	n := 64 + len(e.Address) + len(e.ETag) + len(e.ContentType) + len(e.Pending)
	for k, v := range e.Metadata {
		n += len(k) + len(v) + 8
	}
	return n
}

func listedPB(l graveler.Listed) (*pb.Listed, int) {
	p := &pb.Listed{Path: []byte(l.Path), Prefix: l.Prefix, HasMarker: l.HasMarker}
	if !l.Prefix || l.HasMarker {
		p.Entry = sentEntryPB(&l.Entry)
	}
	return p, len(l.Path) + weight(&l.Entry)
}

func listedOf(p *pb.Listed) graveler.Listed {
	return graveler.Listed{Path: string(p.GetPath()), Prefix: p.GetPrefix(), Entry: entryOf(p.GetEntry()), HasMarker: p.GetHasMarker()}
}

func diffPB(d graveler.Diff) (*pb.Diff, int) {
	p := &pb.Diff{Type: pb.DiffType(d.Type), Path: []byte(d.Path)}
	if d.Type != graveler.Added {
		p.Left = sentEntryPB(&d.Left)
	}
	if d.Type != graveler.Removed {
		p.Right = sentEntryPB(&d.Right)
	}
	return p, len(d.Path) + weight(&d.Left) + weight(&d.Right)
}

func diffOf(p *pb.Diff) graveler.Diff {
	return graveler.Diff{Type: graveler.DiffType(p.GetType()), Path: string(p.GetPath()), Left: entryOf(p.GetLeft()), Right: entryOf(p.GetRight())}
}

func rulesPB(rs []graveler.Rule) []*pb.Rule {
	var out []*pb.Rule
	for _, r := range rs {
		p := &pb.Rule{Pattern: name(r.Pattern)}
		for _, a := range r.Block {
			p.Block = append(p.Block, name(a))
		}
		out = append(out, p)
	}
	return out
}

func rulesOf(ps []*pb.Rule) []graveler.Rule {
	var out []graveler.Rule
	for _, p := range ps {
		r := graveler.Rule{Pattern: p.GetPattern()}
		for _, a := range p.GetBlock() {
			r.Block = append(r.Block, graveler.Action(a))
		}
		out = append(out, r)
	}
	return out
}

func settledPB(s engine.Settled) *pb.Settled {
	return &pb.Settled{
		Content: name(s.Content), Address: name(s.Address), AddressType: pb.AddressType(s.AddressType), Size: s.Size, Etag: name(s.ETag),
		Modified: timePB(s.Modified), Snapshot: s.Snapshot,
	}
}

func (c *checker) settled(ps []*pb.Settled) []engine.Settled {
	out := make([]engine.Settled, len(ps))
	for i, p := range ps {
		if p.GetSize() < 0 {
			c.bad("a content of %d bytes", p.GetSize())
		}
		if p.GetContent() == "" {
			c.bad("a content without an id")
		}
		out[i] = engine.Settled{
			Content: graveler.ContentID(c.name("content id", p.GetContent())), Address: p.GetAddress(), AddressType: c.addressType(p.GetAddressType()),
			Size: p.GetSize(), ETag: p.GetEtag(), Modified: c.time("modified", p.GetModified()), Snapshot: p.GetSnapshot(),
		}
	}
	return out
}

func contentsPB(ids []graveler.ContentID) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = name(id)
	}
	return out
}

func (c *checker) contents(ps []string) []graveler.ContentID {
	out := make([]graveler.ContentID, len(ps))
	for i, p := range ps {
		if p == "" {
			c.bad("a content without an id")
		}
		out[i] = graveler.ContentID(c.name("content id", p))
	}
	return out
}

func eventPB(e engine.Event) *pb.Event {
	p := &pb.Event{
		Type: pb.EventType(e.Type), Repo: name(e.Repo), Branch: name(e.Branch), AllPaths: e.Type == engine.StagingChanged && e.Paths == nil,
		Unchanged: e.Unchanged, Lost: e.Lost, Index: e.Index, Origin: e.Origin,
	}
	for _, s := range e.Paths {
		p.Paths = append(p.Paths, []byte(s))
	}
	return p
}

func eventOf(p *pb.Event) engine.Event {
	e := engine.Event{
		Type: engine.EventType(p.GetType()), Repo: graveler.RepositoryID(p.GetRepo()), Branch: graveler.BranchID(p.GetBranch()), Unchanged: p.GetUnchanged(),
		Lost: p.GetLost(), Index: p.GetIndex(), Origin: p.GetOrigin(),
	}
	if !p.GetAllPaths() && e.Type == engine.StagingChanged {
		e.Paths = []string{}
	}
	for _, s := range p.GetPaths() {
		e.Paths = append(e.Paths, string(s))
	}
	return e
}

func infoPB(i object.Info) *pb.ObjectInfo {
	return &pb.ObjectInfo{Address: []byte(i.Address), Size: i.Size, Modified: timePB(i.Modified), Md5: name(i.MD5), Etag: name(i.ETag)}
}

func infoOf(p *pb.ObjectInfo) object.Info {
	return object.Info{Address: string(p.GetAddress()), Size: p.GetSize(), Modified: timeOf(p.GetModified()), MD5: p.GetMd5(), ETag: p.GetEtag()}
}
