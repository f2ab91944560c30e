package replica

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/lakefsfs/lakefsfs/engine/internal/replica/replicapb"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/graveler/committed"
)

func repoPB(r *graveler.Repository) *pb.Repository {
	return &pb.Repository{Id: string(r.ID), StorageNamespace: r.StorageNamespace, DefaultBranch: string(r.DefaultBranch), Created: r.Created.UnixNano()}
}

func repoOf(m *pb.Repository) graveler.Repository {
	return graveler.Repository{
		ID: graveler.RepositoryID(m.GetId()), StorageNamespace: m.GetStorageNamespace(),
		DefaultBranch: graveler.BranchID(m.GetDefaultBranch()), Created: time.Unix(0, m.GetCreated()).UTC(),
	}
}

func branchPB(b *graveler.Branch) *pb.Branch {
	m := &pb.Branch{Id: string(b.ID), Commit: string(b.Commit), Token: string(b.Token), Hidden: b.Hidden}
	for _, t := range b.Sealed {
		m.Sealed = append(m.Sealed, string(t))
	}
	return m
}

func branchOf(m *pb.Branch) graveler.Branch {
	b := graveler.Branch{ID: graveler.BranchID(m.GetId()), Commit: graveler.CommitID(m.GetCommit()), Token: graveler.StagingToken(m.GetToken()), Hidden: m.GetHidden()}
	for _, t := range m.GetSealed() {
		b.Sealed = append(b.Sealed, graveler.StagingToken(t))
	}
	return b
}

func rulesPB(rules []graveler.Rule) (out []*pb.Rule) {
	for _, rule := range rules {
		m := &pb.Rule{Pattern: rule.Pattern}
		for _, b := range rule.Block {
			m.Block = append(m.Block, string(b))
		}
		out = append(out, m)
	}
	return out
}

func changePB(c *graveler.Change) (*pb.Change, error) {
	m := &pb.Change{Path: []byte(c.Path), Remove: c.Remove}
	if !c.Remove {
		e := c.Entry
		m.Pending, e.Pending = string(e.Pending), ""
		b, err := committed.EncodeEntry(&e)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", c.Path, err)
		}
		m.Entry = b
	}
	return m, nil
}

func changesPB(cs []graveler.Change) ([]*pb.Change, error) {
	out := make([]*pb.Change, len(cs))
	for i := range cs {
		var err error
		if out[i], err = changePB(&cs[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// appendRecord encodes a staged record's value.
func appendRecord(dst []byte, c *pb.Change) []byte {
	switch {
	case c.GetRemove():
		return append(dst, recTombstone)
	case c.GetPending() == "":
		return append(append(dst, recPut), c.GetEntry()...)
	}
	dst = append(dst, recPending, byte(len(c.GetPending())))
	dst = append(dst, c.GetPending()...)
	return append(dst, c.GetEntry()...)
}

// splitRecord takes a staged record's value apart.
func splitRecord(v []byte) (kind byte, content string, entry []byte, err error) {
	bad := fmt.Errorf("staged record: %w", graveler.Corrupt)
	if len(v) == 0 {
		return 0, "", nil, bad
	}
	switch kind = v[0]; kind {
	case recTombstone:
		return kind, "", nil, nil
	case recPut:
		return kind, "", v[1:], nil
	case recPending:
		if len(v) < 2 || len(v) < 2+int(v[1]) {
			return 0, "", nil, bad
		}
		n := 2 + int(v[1])
		return kind, string(v[2:n]), v[n:], nil
	}
	return 0, "", nil, bad
}

func decodeRecord(path string, v []byte) (graveler.Change, error) {
	kind, content, entry, err := splitRecord(v)
	c := graveler.Change{Path: path, Remove: kind == recTombstone}
	if err != nil || c.Remove {
		return c, err
	}
	c.Entry, err = committed.DecodeEntry(entry)
	c.Entry.Pending = graveler.ContentID(content)
	return c, err
}

func mustMarshal(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		// Every string comes from a message that was unmarshaled or validated, so it is UTF-8.
		panic(err)
	}
	return b
}
