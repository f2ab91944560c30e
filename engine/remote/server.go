package remote

import (
	"context"
	"encoding/gob"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

// The requests of methods with more than a context and a request struct.
type (
	none    struct{ X bool }
	repoReq struct{ Repo graveler.RepositoryID }
	refReq  struct {
		Repo graveler.RepositoryID
		Ref  graveler.Ref
		Path string
	}
	refsReq struct {
		Repo  graveler.RepositoryID
		Query engine.RefQuery
	}
	branchReq struct {
		Repo   graveler.RepositoryID
		Branch graveler.BranchID
		To     graveler.BranchID
		Ref    graveler.Ref
		Force  bool
	}
	tagReq struct {
		Repo graveler.RepositoryID
		Tag  graveler.TagID
		Ref  graveler.Ref
	}
	rulesReq struct {
		Repo  graveler.RepositoryID
		Rules []graveler.Rule
	}
	listReq struct {
		Repo  graveler.RepositoryID
		Ref   graveler.Ref
		Query engine.ListQuery
	}
	stageReq struct {
		Repo    graveler.RepositoryID
		Branch  graveler.BranchID
		Changes []graveler.Change
	}
	moveReq struct {
		Repo     graveler.RepositoryID
		Branch   graveler.BranchID
		From, To string
	}
	logReq struct {
		Repo  graveler.RepositoryID
		Ref   graveler.Ref
		Query engine.LogQuery
	}
	diffReq struct {
		Repo        graveler.RepositoryID
		Left, Right graveler.Ref
		Query       engine.DiffQuery
	}
	importItem struct {
		Done  bool
		Count int64
	}
	objectReq struct {
		Repo   graveler.RepositoryID
		Object object.Object
		Prefix string
		Off    int64
		Len    int
	}
	readResp struct {
		Data []byte
		EOF  bool
	}
)

func nothing(err error) (none, error) { return none{}, err }

// Register serves an engine's methods. An engine with watchers that must know of a change before its caller hears of it has a
// method CaughtUp.
func Register(m *http.ServeMux, e engine.Engine) {
	mux := &server{ServeMux: m, caughtUp: func(context.Context) {}}
	if c, ok := e.(interface{ CaughtUp(context.Context) }); ok {
		mux.caughtUp = c.CaughtUp
	}
	unary(mux, "CreateRepository", e.CreateRepository)
	unary(mux, "AttachRepository", e.AttachRepository)
	unary(mux, "Repository", func(ctx context.Context, r repoReq) (graveler.Repository, error) { return e.Repository(ctx, r.Repo) })
	unary(mux, "ListRepositories", func(ctx context.Context, _ none) ([]graveler.Repository, error) { return e.ListRepositories(ctx) })
	unary(mux, "DeleteRepository", func(ctx context.Context, r repoReq) (none, error) { return nothing(e.DeleteRepository(ctx, r.Repo)) })
	unary(mux, "DumpRefs", func(ctx context.Context, r repoReq) (graveler.RefsManifest, error) { return e.DumpRefs(ctx, r.Repo) })

	unary(mux, "Resolve", func(ctx context.Context, r refReq) (graveler.Resolved, error) { return e.Resolve(ctx, r.Repo, r.Ref) })
	unary(mux, "ListBranches", func(ctx context.Context, r refsReq) ([]graveler.Branch, error) {
		return e.ListBranches(ctx, r.Repo, r.Query)
	})
	unary(mux, "CreateBranch", e.CreateBranch)
	unary(mux, "DeleteBranch", func(ctx context.Context, r branchReq) (none, error) {
		return nothing(e.DeleteBranch(ctx, r.Repo, r.Branch, r.Force))
	})
	unary(mux, "RenameBranch", func(ctx context.Context, r branchReq) (none, error) {
		return nothing(e.RenameBranch(ctx, r.Repo, r.Branch, r.To))
	})
	unary(mux, "SetHead", func(ctx context.Context, r branchReq) (graveler.Branch, error) {
		return e.SetHead(ctx, r.Repo, r.Branch, r.Ref, r.Force)
	})
	unary(mux, "ListTags", func(ctx context.Context, r refsReq) ([]graveler.Tag, error) { return e.ListTags(ctx, r.Repo, r.Query) })
	unary(mux, "CreateTag", func(ctx context.Context, r tagReq) (graveler.Tag, error) {
		return e.CreateTag(ctx, r.Repo, r.Tag, r.Ref)
	})
	unary(mux, "DeleteTag", func(ctx context.Context, r tagReq) (none, error) { return nothing(e.DeleteTag(ctx, r.Repo, r.Tag)) })
	unary(mux, "Rules", func(ctx context.Context, r repoReq) ([]graveler.Rule, error) { return e.Rules(ctx, r.Repo) })
	unary(mux, "SetRules", func(ctx context.Context, r rulesReq) (none, error) { return nothing(e.SetRules(ctx, r.Repo, r.Rules)) })

	unary(mux, "Stat", func(ctx context.Context, r refReq) (graveler.Entry, error) { return e.Stat(ctx, r.Repo, r.Ref, r.Path) })
	unary(mux, "Cuts", func(ctx context.Context, r refReq) ([]string, error) {
		return e.Cuts(ctx, r.Repo, graveler.CommitID(r.Ref))
	})
	unary(mux, "Lookup", func(ctx context.Context, r refReq) (graveler.Found, error) {
		return e.Lookup(ctx, r.Repo, r.Ref, r.Path)
	})
	stream(mux, "List", func(ctx context.Context, r listReq) iter.Seq2[graveler.Listed, error] {
		return e.List(ctx, r.Repo, r.Ref, r.Query)
	})
	unary(mux, "Stage", func(ctx context.Context, r stageReq) (none, error) {
		return nothing(e.Stage(ctx, r.Repo, r.Branch, r.Changes))
	})
	unary(mux, "Exchange", func(ctx context.Context, r moveReq) (none, error) {
		return nothing(e.Exchange(ctx, r.Repo, r.Branch, r.From, r.To))
	})
	unary(mux, "Move", func(ctx context.Context, r moveReq) (none, error) {
		return nothing(e.Move(ctx, r.Repo, r.Branch, r.From, r.To))
	})
	unary(mux, "Reset", func(ctx context.Context, r refReq) (none, error) {
		return nothing(e.Reset(ctx, r.Repo, graveler.BranchID(r.Ref), r.Path))
	})

	unary(mux, "Commit", e.Commit)
	stream(mux, "Log", func(ctx context.Context, r logReq) iter.Seq2[graveler.Commit, error] {
		return e.Log(ctx, r.Repo, r.Ref, r.Query)
	})
	stream(mux, "Diff", func(ctx context.Context, r diffReq) iter.Seq2[graveler.Diff, error] {
		return e.Diff(ctx, r.Repo, r.Left, r.Right, r.Query)
	})
	stream(mux, "Status", func(ctx context.Context, r diffReq) iter.Seq2[graveler.Diff, error] {
		return e.Status(ctx, r.Repo, graveler.BranchID(r.Left), r.Query)
	})
	unary(mux, "MergeBase", func(ctx context.Context, r diffReq) (graveler.Commit, error) {
		return e.MergeBase(ctx, r.Repo, r.Left, r.Right)
	})
	unary(mux, "Merge", e.Merge)
	unary(mux, "Revert", e.Revert)
	unary(mux, "CherryPick", e.CherryPick)
	stream(mux, "Import", func(ctx context.Context, r engine.ImportRequest) iter.Seq2[importItem, error] {
		return func(yield func(importItem, error) bool) {
			going := true
			n, err := e.Import(ctx, r, func(n int64) { going = going && yield(importItem{Count: n}, nil) })
			if going {
				yield(importItem{Done: true, Count: n}, err)
			}
		}
	})
	unary(mux, "CollectGarbage", e.CollectGarbage)
	stream(mux, "Check", func(ctx context.Context, r engine.CheckRequest) iter.Seq2[engine.Problem, error] {
		return e.Check(ctx, r)
	})
	stream(mux, "Watch", func(ctx context.Context, _ none) iter.Seq2[engine.Event, error] { return e.Watch(ctx) })
	unary(mux, "Sync", func(ctx context.Context, _ none) (none, error) { return nothing(e.Sync(ctx)) })
	registerObjects(mux, e)
}

// maxRead bounds one read of an object.
const maxRead = 8 << 20

func registerObjects(mux *server, e engine.Engine) {
	unary(mux, "objects/ReadAt", func(ctx context.Context, r objectReq) (readResp, error) {
		st, err := e.Objects(ctx, r.Repo)
		if err != nil {
			return readResp{}, err
		}
		if r.Len < 0 || r.Len > maxRead {
			return readResp{}, graveler.Invalid
		}
		b := make([]byte, r.Len)
		n, err := st.ReadAt(ctx, r.Object, b, r.Off)
		if err == io.EOF {
			return readResp{b[:n], true}, nil
		}
		return readResp{b[:n], false}, err
	})
	unary(mux, "objects/Stat", func(ctx context.Context, r objectReq) (object.Info, error) {
		st, err := e.Objects(ctx, r.Repo)
		if err != nil {
			return object.Info{}, err
		}
		return st.Stat(ctx, r.Object.Address)
	})
	unary(mux, "objects/Delete", func(ctx context.Context, r objectReq) (none, error) {
		st, err := e.Objects(ctx, r.Repo)
		if err != nil {
			return none{}, err
		}
		return nothing(st.Delete(ctx, r.Object.Address))
	})
	stream(mux, "objects/List", func(ctx context.Context, r objectReq) iter.Seq2[object.Info, error] {
		st, err := e.Objects(ctx, r.Repo)
		if err != nil {
			return func(yield func(object.Info, error) bool) { yield(object.Info{}, err) }
		}
		return st.List(ctx, r.Prefix)
	})
	mux.HandleFunc("POST /"+version+"/objects/Put", func(w http.ResponseWriter, hr *http.Request) {
		out := gob.NewEncoder(w)
		q := hr.URL.Query()
		size, err := strconv.ParseInt(q.Get("size"), 10, 64)
		var st object.Store
		if err == nil {
			st, err = e.Objects(hr.Context(), graveler.RepositoryID(q.Get("repo")))
		}
		var info object.Info
		if err == nil {
			info, err = st.Put(hr.Context(), q.Get("address"), hr.Body, object.PutOptions{ContentType: q.Get("type"), Size: size})
		}
		if err == nil {
			if l, ok := st.(object.Local); ok {
				err = l.Sync(hr.Context())
			}
		}
		if err != nil {
			out.Encode(head{Err: failureOf(err)})
			return
		}
		out.Encode(head{More: true})
		out.Encode(&info)
	})
}

// store is a repository's object store behind the daemon.
type store struct {
	c    *Client
	repo graveler.RepositoryID
}

func (s *store) ReadAt(ctx context.Context, o object.Object, p []byte, off int64) (n int, err error) {
	for n < len(p) {
		r, err := call[readResp](ctx, s.c, "objects/ReadAt", objectReq{Repo: s.repo, Object: o, Off: off + int64(n), Len: min(len(p)-n, maxRead)})
		if err != nil {
			return n, err
		}
		n += copy(p[n:], r.Data)
		if r.EOF {
			return n, io.EOF
		}
	}
	return n, nil
}

func (s *store) Put(ctx context.Context, address string, r io.Reader, opt object.PutOptions) (object.Info, error) {
	q := url.Values{"repo": {string(s.repo)}, "address": {address}, "type": {opt.ContentType}, "size": {strconv.FormatInt(opt.Size, 10)}}
	body, err := s.c.post(ctx, "objects/Put?"+q.Encode(), io.NopCloser(r))
	if err != nil {
		return object.Info{}, err
	}
	defer body.Close()
	return answer[object.Info](gob.NewDecoder(body))
}

func (s *store) Stat(ctx context.Context, address string) (object.Info, error) {
	return call[object.Info](ctx, s.c, "objects/Stat", objectReq{Repo: s.repo, Object: object.Object{Address: address}})
}

func (s *store) Delete(ctx context.Context, address string) error {
	_, err := call[none](ctx, s.c, "objects/Delete", objectReq{Repo: s.repo, Object: object.Object{Address: address}})
	return err
}

func (s *store) List(ctx context.Context, prefix string) iter.Seq2[object.Info, error] {
	return items[object.Info](ctx, s.c, "objects/List", objectReq{Repo: s.repo, Prefix: prefix})
}

func (s *store) Close() error { return nil }

var errUnix = errors.New("a server's address is unix:// and the socket's path")
