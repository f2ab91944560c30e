package local

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/lakefsfs/lakefsfs/engine/internal/replica"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/graveler/committed"
)

// move renames all entries under a prefix.
func (e *Engine) move(ctx context.Context, repo graveler.RepositoryID, branch graveler.BranchID, from, to string) error {
	if !strings.HasSuffix(from, "/") || !strings.HasSuffix(to, "/") || from == "/" || to == "/" {
		return fmt.Errorf("move %q to %q: both end in a slash: %w", from, to, graveler.Invalid)
	}
	if strings.HasPrefix(to, from) {
		return fmt.Errorf("move %q into itself: %w", from, graveler.Invalid)
	}
	return e.rewrite(ctx, repo, branch, []place{{from, to}}, to)
}

// exchange makes two paths change places.
func (e *Engine) exchange(ctx context.Context, repo graveler.RepositoryID, branch graveler.BranchID, a, b string) error {
	an, bn := strings.TrimSuffix(a, "/"), strings.TrimSuffix(b, "/")
	if an == "" || bn == "" || an == bn || strings.HasPrefix(an, bn+"/") || strings.HasPrefix(bn, an+"/") {
		return fmt.Errorf("exchange %q and %q: one is in the other: %w", a, b, graveler.Invalid)
	}
	return e.rewrite(ctx, repo, branch, []place{{a, bn + a[len(an):]}, {b, an + b[len(bn):]}}, "")
}

// place is where entries come from and go to: under a prefix if both end in a slash, else one path.
type place struct{ from, to string }

// to is where a path goes, or the path itself.
func target(places []place, path string) string {
	for _, p := range places {
		if path == p.from || strings.HasSuffix(p.from, "/") && strings.HasPrefix(path, p.from) {
			return p.to + path[len(p.from):]
		}
	}
	return path
}

// rewrite moves entries from place to place in one step. What else lies under clear, if that is not "", is removed.
func (e *Engine) rewrite(ctx context.Context, repo graveler.RepositoryID, branch graveler.BranchID, places []place, clear string) error {
	mu := e.staging(repo, branch)
	mu.Lock()
	defer mu.Unlock()
	v, err := e.rep.View()
	if err != nil {
		return err
	}
	defer v.Close()
	w, r, err := e.version(ctx, v, repo, graveler.Ref(branch))
	if err != nil {
		return err
	}
	if r.View != graveler.Overlaid {
		return fmt.Errorf("%s/@%s is no branch: %w", repo, branch, graveler.ReadOnly)
	}
	c, err := w.cursor(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	var arena arena
	var changes []replica.Encoded
	var moved []string
	put := map[string]bool{}
	links := []byte(graveler.MetaLinks)
	outside := map[string]*graveler.Entry{} // the other names of moved files that have several
	for _, p := range places {
		n := len(changes)
		for ok := c.SeekGE(p.from); ok; ok = c.Next() {
			if path := c.Path(); path != p.from && !(strings.HasSuffix(p.from, "/") && strings.HasPrefix(path, p.from)) {
				break
			}
			path := c.Path()
			to := target(places, path)
			if err := graveler.ValidatePath(to); err != nil {
				return err
			}
			put[to] = true
			moved = append(moved, path)
			entry, pending, _, ok, err := encodedOf(c)
			if err != nil {
				return err
			}
			if ok && !bytes.Contains(entry, links) {
				// Nothing in it changes but that it has its number now, which the path gave it.
				fresh, err := committed.WithInode(entry, graveler.InodeOf(path))
				if err != nil {
					return err
				}
				changes = append(changes, replica.Encoded{Path: to, Entry: arena.copy(fresh), Pending: pending})
				continue
			}
			ch, err := c.Change()
			if err != nil {
				return err
			}
			en := ch.Entry
			if en.Inode == 0 {
				en.Inode = graveler.InodeOf(path)
			}
			if links := ch.Entry.Links(); links != nil {
				was := ch.Entry
				for _, l := range links {
					if target(places, l) == l {
						outside[l] = &was
					}
				}
				if err := relink(&en, places); err != nil {
					return err
				}
			}
			enc, err := encode(to, en)
			if err != nil {
				return err
			}
			changes = append(changes, enc)
		}
		if err := c.Err(); err != nil {
			return err
		}
		if len(changes) == n {
			return fmt.Errorf("%s: %w", graveler.Place{Repo: repo, Ref: graveler.Ref(branch), Path: p.from}, graveler.NotFound)
		}
	}
	for _, path := range moved {
		if !put[path] {
			changes = append(changes, replica.Encoded{Path: path, Remove: true})
		}
	}
	if clear != "" {
		for ok := c.SeekGE(clear); ok && strings.HasPrefix(c.Path(), clear); ok = c.Next() {
			if p := c.Path(); !put[p] && target(places, p) == p {
				changes = append(changes, replica.Encoded{Path: p, Remove: true})
			}
		}
		if err := c.Err(); err != nil {
			return err
		}
	}
	for _, l := range slices.Sorted(maps.Keys(outside)) {
		en, ok, err := w.get(ctx, l)
		if err != nil {
			return err
		}
		if !ok || !en.SameFile(outside[l]) || put[l] {
			continue
		}
		if err := relink(&en, places); err != nil {
			return err
		}
		enc, err := encode(l, en)
		if err != nil {
			return err
		}
		changes = append(changes, enc)
	}
	return e.stageEncoded(ctx, repo, branch, changes)
}

func encodedOf(c graveler.Cursor) (entry []byte, pending graveler.ContentID, remove, ok bool, err error) {
	if e, is := c.(graveler.Encoded); is {
		return e.Encoded()
	}
	return nil, "", false, false, nil
}

func encode(path string, en graveler.Entry) (replica.Encoded, error) {
	pending := en.Pending
	en.Pending = ""
	b, err := committed.EncodeEntry(&en)
	if err != nil {
		return replica.Encoded{}, fmt.Errorf("%q: %w", path, err)
	}
	return replica.Encoded{Path: path, Entry: b, Pending: pending}, nil
}

// arena copies bytes into large blocks, one allocation for many.
type arena struct{ block []byte }

func (a *arena) copy(b []byte) []byte {
	if len(a.block)+len(b) > cap(a.block) {
		a.block = make([]byte, 0, max(64<<10, len(b)))
	}
	n := len(a.block)
	a.block = append(a.block, b...)
	return a.block[n:len(a.block):len(a.block)]
}

// oneStep is how many bytes of changes go into one command; more are staged in a token of their own first, and adopted. Between nodes a
// large command would hold up all others.
const (
	oneStep        = 256 << 20
	oneStepCluster = 4 << 20
)

// stageEncoded stages any number of changes in one atomic step. Called with the branch's staging lock held for writing.
func (e *Engine) stageEncoded(ctx context.Context, repo graveler.RepositoryID, branch graveler.BranchID, changes []replica.Encoded) error {
	size := 0
	for i := range changes {
		size += len(changes[i].Path) + len(changes[i].Entry) + 32
	}
	if size <= oneStepCluster || e.rep.Alone() && size <= oneStep {
		res, err := e.rep.StageEncoded(ctx, repo, branch, changes)
		e.spill.Drop(res.Orphans...)
		return err
	}
	token := newToken()
	err := e.rep.StageBulkEncoded(ctx, token, changes)
	return e.adopt(ctx, repo, branch, token, err)
}

// relink gives an entry the names that its file has once places have moved.
func relink(en *graveler.Entry, places []place) error {
	links := en.Links()
	for i, l := range links {
		links[i] = target(places, l)
	}
	en.Metadata = maps.Clone(en.Metadata)
	return en.SetLinks(links)
}
