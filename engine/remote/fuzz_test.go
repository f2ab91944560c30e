package remote

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/lakefsfs/lakefsfs/api/lakefsfs/v1"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// What a client can send either is refused with a kind, or is within the bounds of the contract's types.
func FuzzRequests(f *testing.F) {
	seed := func(which byte, m proto.Message) {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(which, b)
	}
	seed(0, &pb.StageRequest{Info: &pb.RequestInfo{Session: 1, Seq: 2, Done: 1, Origin: 7}, Repo: "repo", Branch: "main", Changes: []*pb.Change{{Path: []byte("a\xff"), Entry: &pb.Entry{Size: -1}}, {Remove: true}}})
	seed(1, &pb.ListRequest{Repo: "repo", Ref: "main~1", Delimiter: "x", Limit: -1})
	seed(2, &pb.MergeRequest{Strategy: 9})
	seed(3, &pb.SettleRequest{Settled: []*pb.Settled{{Content: "", Size: -5, AddressType: 7}}})
	seed(4, &pb.DiffRequest{Query: &pb.DiffQuery{Limit: 1 << 40}})
	seed(5, &pb.RevertRequest{Pick: &pb.Pick{Parent: -1}})
	seed(6, &pb.CollectGarbageRequest{})
	seed(7, &pb.AddMemberRequest{Member: &pb.Member{Id: "x"}})
	seed(8, &pb.ListBranchesRequest{Query: &pb.RefQuery{Limit: -3}})
	seed(9, &pb.LogRequest{Limit: 3, Skip: -1})
	seed(10, &pb.CreateRepositoryRequest{Id: "repo"})
	seed(11, &pb.SecureRequest{Contents: []string{""}})
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		var c checker
		text := func(what, s string) {
			if len(s) > maxName {
				t.Errorf("%s of %d bytes", what, len(s))
			}
		}
		path := func(what, s string) {
			if len(s) > graveler.MaxPath+1 {
				t.Errorf("%s of %d bytes", what, len(s))
			}
		}
		entry := func(e *graveler.Entry) {
			if e.Size < 0 || e.AddressType < 0 || e.AddressType > graveler.AddressFull {
				t.Errorf("%+v", e)
			}
			if !e.Modified.IsZero() && !time.Unix(0, e.Modified.UnixNano()).Equal(e.Modified) {
				t.Errorf("%v can't be kept", e.Modified)
			}
		}
		bounds := func() {}
		read := func(m proto.Message) bool { return proto.Unmarshal(b, m) == nil }
		switch which % 12 {
		case 0:
			var r pb.StageRequest
			if !read(&r) {
				return
			}
			made(t.Context(), &c, r.GetInfo())
			text("repository", string(repoID(&c, r.GetRepo())))
			changes := c.changes(r.GetChanges())
			bounds = func() {
				if q := engine.RequestOf(made(t.Context(), &c, r.GetInfo())); q.Session != 0 && (q.Seq == 0 || q.Done >= q.Seq) {
					t.Errorf("%+v", q)
				}
				for i := range changes {
					entry(&changes[i].Entry)
				}
			}
		case 1:
			var r pb.ListRequest
			if !read(&r) {
				return
			}
			q := listQueryOf(&c, &r)
			bounds = func() {
				path("prefix", q.Prefix)
				path("after", q.After)
				if q.Limit < 0 || q.Delimiter != "" && q.Delimiter != "/" {
					t.Errorf("%+v", q)
				}
			}
		case 2:
			var r pb.MergeRequest
			if !read(&r) {
				return
			}
			q := mergeRequestOf(&c, &r)
			bounds = func() {
				if q.Strategy > graveler.SourceWins {
					t.Errorf("%+v", q)
				}
				text("source", string(q.Source))
			}
		case 3:
			var r pb.SettleRequest
			if !read(&r) {
				return
			}
			list := c.settled(r.GetSettled())
			bounds = func() {
				for _, s := range list {
					if s.Content == "" || s.Size < 0 {
						t.Errorf("%+v", s)
					}
					text("content", string(s.Content))
				}
			}
		case 4:
			var r pb.DiffRequest
			if !read(&r) {
				return
			}
			q := c.diffQuery(r.GetQuery())
			bounds = func() {
				path("after", q.After)
				if q.Limit < 0 {
					t.Errorf("%+v", q)
				}
			}
		case 5:
			var r pb.RevertRequest
			if !read(&r) {
				return
			}
			q := pickOf(&c, r.GetPick())
			bounds = func() {
				if q.Parent < 0 {
					t.Errorf("%+v", q)
				}
			}
		case 6:
			var r pb.CollectGarbageRequest
			if !read(&r) {
				return
			}
			q := gcRequestOf(&c, &r)
			bounds = func() {
				if q.Grace < 0 {
					t.Errorf("%+v", q)
				}
			}
		case 7:
			var r pb.AddMemberRequest
			if !read(&r) {
				return
			}
			memberOf(r.GetMember())
		case 8:
			var r pb.ListBranchesRequest
			if !read(&r) {
				return
			}
			q := c.refQuery(r.GetQuery())
			bounds = func() {
				text("prefix", q.Prefix)
				if q.Limit < 0 {
					t.Errorf("%+v", q)
				}
			}
		case 9:
			var r pb.LogRequest
			if !read(&r) {
				return
			}
			q := logQueryOf(&c, &r)
			bounds = func() {
				path("path", q.Path)
				if q.Limit < 0 {
					t.Errorf("%+v", q)
				}
			}
		case 10:
			var r pb.CreateRepositoryRequest
			if !read(&r) {
				return
			}
			q := createRepositoryOf(&c, &r)
			bounds = func() { text("namespace", q.StorageNamespace) }
		case 11:
			var r pb.SecureRequest
			if !read(&r) {
				return
			}
			ids := c.contents(r.GetContents())
			bounds = func() {
				for _, id := range ids {
					if id == "" {
						t.Error("a content without an id")
					}
				}
			}
		}
		if c.err == nil {
			bounds()
		} else if k := graveler.KindOf(c.err); k != graveler.Invalid && k != graveler.TooLarge {
			t.Errorf("%v", c.err)
		}
	})
}

// What a server can answer is an error with a kind.
func FuzzFailure(f *testing.F) {
	b, err := proto.Marshal(&pb.Failure{Kind: 99, Text: []byte("\xff"), Conflict: &pb.Conflict{}, NotLeader: &pb.NotLeader{Leader: "x"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, uint32(5))
	f.Fuzz(func(t *testing.T, b []byte, code uint32) {
		var m pb.Failure
		if proto.Unmarshal(b, &m) != nil {
			return
		}
		err := error(errorOf(&m))
		if k := graveler.KindOf(err); int(k) >= len(graveler.Kinds()) {
			t.Errorf("kind %d", k)
		}
		_ = err.Error()
		st, serr := status.New(codes.Code(code%17), "x").WithDetails(&m)
		if serr != nil {
			return
		}
		if again := errorFrom(st.Err()); graveler.KindOf(again) != graveler.KindOf(err) && code%17 != 0 {
			t.Errorf("%v, then %v", err, again)
		}
	})
}

// What a server can tell a watcher doesn't make the watch tell an event twice, nor take it for complete when it isn't.
func FuzzWatch(f *testing.F) {
	b, err := proto.Marshal(&pb.WatchResponse{Events: []*pb.Event{{Type: 1, Index: 3, Paths: [][]byte{[]byte("a")}}, {Type: 2, Index: 3}, {Index: 9, Lost: true}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, uint64(2))
	f.Fuzz(func(t *testing.T, b []byte, after uint64) {
		var p pb.WatchResponse
		if proto.Unmarshal(b, &p) != nil {
			return
		}
		w := &watch{index: after, whole: true}
		n := len(w.take(&p))
		if n > len(p.GetEvents())+1 {
			t.Errorf("%d events of %d", n, len(p.GetEvents()))
		}
		if len(p.GetEvents()) > 0 {
			last := p.GetEvents()[len(p.GetEvents())-1].GetIndex()
			if last != after && last > 0 && w.after() >= last {
				t.Errorf("goes on after %d, and change %d may have more events", w.after(), last)
			}
		}
	})
}

// The holder's side of Hold meets whatever a server asks, and the server's whatever a holder answers.
func FuzzHold(f *testing.F) {
	b, err := proto.Marshal(&pb.HoldRequest{Ask: 1, Settled: []*pb.Settled{{Content: "h-1"}}, More: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var r pb.HoldRequest
		if proto.Unmarshal(b, &r) != nil {
			return
		}
		a := &asks{open: map[uint64]*ask{1: {done: make(chan error, 1)}}}
		for range 2 { // a holder may answer twice
			if err := a.answer(&r); err != nil && graveler.KindOf(err) != graveler.Invalid {
				t.Error(err)
			}
		}
	})
}
