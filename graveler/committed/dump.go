package committed

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/graveler/gravelerpb"
	"github.com/lakefsfs/lakefsfs/object"
)

// ManifestAddress is where a refs dump leaves its manifest, under the storage namespace.
const ManifestAddress = "_lakefs/refs_manifest.json"

// RefsDump is all refs of a repository.
type RefsDump struct {
	Commits  []graveler.Commit
	Branches []graveler.Branch
	Tags     []graveler.Tag
}

// Caller metadata of a dump's tables.
const (
	propEntity = "entity"
	propSchema = "schema_name"
	propDef    = "schema_definition"
)

// dumpRecord is one ref: its identity is the commit's id.
type dumpRecord struct {
	key, identity string
	data          []byte
}

// DumpRefs writes refs as three metaranges and the manifest, as lakeFS's refs dump does; its refs restore takes them.
func (s *Store) DumpRefs(ctx context.Context, d RefsDump) (graveler.RefsManifest, error) {
	var commits, branches, tags []dumpRecord
	for i := range d.Commits {
		c := &d.Commits[i]
		b, err := EncodeCommit(c)
		if err != nil {
			return graveler.RefsManifest{}, err
		}
		commits = append(commits, dumpRecord{string(c.ID), string(c.ID), b})
	}
	for _, br := range d.Branches {
		b, err := marshal.Marshal(&gravelerpb.BranchData{Id: string(br.ID), CommitId: string(br.Commit), Hidden: br.Hidden})
		if err != nil {
			return graveler.RefsManifest{}, fmt.Errorf("encode branch %q: %w", br.ID, err)
		}
		branches = append(branches, dumpRecord{string(br.ID), string(br.Commit), b})
	}
	for _, tg := range d.Tags {
		b, err := marshal.Marshal(&gravelerpb.TagData{Id: string(tg.ID), CommitId: string(tg.Commit)})
		if err != nil {
			return graveler.RefsManifest{}, fmt.Errorf("encode tag %q: %w", tg.ID, err)
		}
		tags = append(tags, dumpRecord{string(tg.ID), string(tg.Commit), b})
	}
	var m graveler.RefsManifest
	var err error
	for _, part := range []struct {
		entity string
		msg    proto.Message
		recs   []dumpRecord
		id     *graveler.MetaRangeID
	}{
		{"commit", &gravelerpb.CommitData{}, commits, &m.Commits},
		{"branch", &gravelerpb.BranchData{}, branches, &m.Branches},
		{"tag", &gravelerpb.TagData{}, tags, &m.Tags},
	} {
		if *part.id, err = s.dump(ctx, part.entity, part.msg, part.recs); err != nil {
			return m, fmt.Errorf("dump refs: %w", err)
		}
	}
	b, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return m, err
	}
	_, err = s.objects.Put(ctx, ManifestAddress, bytes.NewReader(b), object.PutOptions{Size: int64(len(b)), ContentType: "application/json"})
	return m, err
}

func (s *Store) dump(ctx context.Context, entity string, msg proto.Message, recs []dumpRecord) (graveler.MetaRangeID, error) {
	desc := msg.ProtoReflect().Descriptor()
	def, err := protojson.Marshal(protodesc.ToDescriptorProto(desc))
	if err != nil {
		return "", err
	}
	// protojson varies its spacing on purpose; an id must not.
	var compact bytes.Buffer
	if err := json.Compact(&compact, def); err != nil {
		return "", err
	}
	slices.SortFunc(recs, func(a, b dumpRecord) int { return strings.Compare(a.key, b.key) })
	w := s.newWriter(ctx, map[string]string{propEntity: entity, propSchema: string(desc.FullName()), propDef: compact.String()})
	w.keepEmpty = true
	for _, r := range recs {
		if err := w.add(r.key, appendValue(nil, []byte(r.identity), r.data)); err != nil {
			w.abort()
			return "", err
		}
	}
	return w.finish()
}

// ReadManifest reads the manifest that a refs dump left in the namespace.
func (s *Store) ReadManifest(ctx context.Context) (graveler.RefsManifest, error) {
	buf := make([]byte, 4096)
	b, err := readAll(ctx, s.objects, object.Object{Address: ManifestAddress, Fresh: true}, &buf)
	if err != nil {
		return graveler.RefsManifest{}, fmt.Errorf("read the refs manifest: %w", err)
	}
	return ParseManifest(b)
}

// ParseManifest decodes a refs manifest.
func ParseManifest(b []byte) (graveler.RefsManifest, error) {
	var m graveler.RefsManifest
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("refs manifest: %v; give the JSON that lakeFS's refs dump answered: %w", err, graveler.Invalid)
	}
	for _, p := range []struct {
		name string
		id   graveler.MetaRangeID
	}{{"commits", m.Commits}, {"branches", m.Branches}, {"tags", m.Tags}} {
		if !validID(string(p.id)) && (p.id != "" || p.name != "tags") {
			return m, fmt.Errorf("refs manifest: %s_meta_range_id %q is no id of 64 hex digits: %w", p.name, p.id, graveler.Invalid)
		}
	}
	return m, nil
}

// LoadRefs reads a refs dump. Every commit's id is recomputed and must agree, and every parent, branch and tag must lead to a
// commit of the dump.
func (s *Store) LoadRefs(ctx context.Context, m graveler.RefsManifest) (*RefsDump, error) {
	d := &RefsDump{}
	known := map[graveler.CommitID]bool{}
	err := s.loadRefs(ctx, "commit", m.Commits, func(key string, data []byte) error {
		c, err := DecodeCommit(data)
		if err != nil {
			return err
		}
		if string(c.ID) != key || c.ComputeID() != c.ID {
			return fmt.Errorf("its fields give the id %.12s: %w", c.ComputeID(), graveler.Corrupt)
		}
		if c.Generation <= 0 {
			return fmt.Errorf("generation %d: %w", c.Generation, graveler.Corrupt)
		}
		known[c.ID] = true
		d.Commits = append(d.Commits, c)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := range d.Commits {
		for _, p := range d.Commits[i].Parents {
			if !known[p] {
				return nil, fmt.Errorf("refs dump: commit %.12s has the parent %.12s, which is not in the dump: %w", d.Commits[i].ID, p, graveler.Corrupt)
			}
		}
	}
	err = s.loadRefs(ctx, "branch", m.Branches, func(key string, data []byte) error {
		var pb gravelerpb.BranchData
		if err := proto.Unmarshal(data, &pb); err != nil {
			return fmt.Errorf("%v: %w", err, graveler.Corrupt)
		}
		b := graveler.Branch{ID: graveler.BranchID(pb.Id), Commit: graveler.CommitID(pb.CommitId), Hidden: pb.Hidden}
		d.Branches = append(d.Branches, b)
		return checkRef(key, pb.Id, b.Commit, known)
	})
	if err != nil {
		return nil, err
	}
	err = s.loadRefs(ctx, "tag", m.Tags, func(key string, data []byte) error {
		var pb gravelerpb.TagData
		if err := proto.Unmarshal(data, &pb); err != nil {
			return fmt.Errorf("%v: %w", err, graveler.Corrupt)
		}
		t := graveler.Tag{ID: graveler.TagID(pb.Id), Commit: graveler.CommitID(pb.CommitId)}
		d.Tags = append(d.Tags, t)
		return checkRef(key, pb.Id, t.Commit, known)
	})
	return d, err
}

func checkRef(key, id string, c graveler.CommitID, known map[graveler.CommitID]bool) error {
	if key != id {
		return fmt.Errorf("its name is %q: %w", id, graveler.Corrupt)
	}
	if !known[c] {
		return fmt.Errorf("its commit %.12s is not in the dump: %w", c, graveler.Corrupt)
	}
	return nil
}

func (s *Store) loadRefs(ctx context.Context, entity string, id graveler.MetaRangeID, each func(key string, data []byte) error) error {
	if id == "" {
		return nil
	}
	w, err := s.walk(ctx, id)
	if err != nil {
		return fmt.Errorf("refs dump: %w", err)
	}
	w.whole = true
	for ; w.valid(); w.next() {
		v, ok := w.value()
		if !ok {
			break
		}
		if got := w.at.props[propEntity]; got != "" && got != entity {
			return fmt.Errorf("refs dump: metarange %.12s holds a %s where a %s is needed; is the manifest mixed up?: %w", id, got, entity, graveler.Invalid)
		}
		_, data, err := splitValue(v)
		if err == nil {
			err = each(w.key(), bytesOf(data))
		}
		if err != nil {
			return fmt.Errorf("refs dump: %s %q: %w", entity, w.key(), err)
		}
	}
	if w.err != nil {
		return fmt.Errorf("refs dump: %w", w.err)
	}
	return nil
}
