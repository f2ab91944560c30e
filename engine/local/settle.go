package local

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/engine/internal/replica"
	"github.com/lakefsfs/lakefsfs/engine/internal/settle"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// names tells what entries name which contents. It is settle.Names.
type names struct {
	e  *Engine
	mu sync.Mutex

	repos   map[graveler.StagingToken]graveler.RepositoryID // a layer never changes its repository
	settled []settledAt
}

type settledAt struct {
	id graveler.ContentID
	at time.Time
}

const (
	// settledKept is how long a Stage may still name a settled content as pending.
	settledKept = 10 * time.Minute
	// settlePatience is how long a commit waits for files that are open for writing, before it takes them as they are: the
	// kernel tells of a close after close(2) has returned.
	settlePatience = 100 * time.Millisecond
)

// forget lists the contents that were settled long ago. Called with mu held.
func (n *names) forget() (ids []graveler.ContentID) {
	for len(n.settled) > 0 && time.Since(n.settled[0].at) > settledKept {
		ids = append(ids, n.settled[0].id)
		n.settled = n.settled[1:]
	}
	return ids
}

// Settle is settle.Names's.
func (n *names) Settle(ctx context.Context, settled []engine.Settled) error {
	n.mu.Lock()
	forget := n.forget()
	n.mu.Unlock()
	if err := n.e.rep.Settle(ctx, settled, forget); err != nil {
		return err
	}
	now := time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range settled {
		if s.Snapshot {
			continue
		}
		n.settled = append(n.settled, settledAt{s.Content, now})
	}
	return nil
}

// Stores is settle.Names's.
func (n *names) Stores(ctx context.Context, ids []graveler.ContentID) (map[graveler.ContentID]*settle.Store, error) {
	if !n.e.rep.Leads() {
		return nil, fmt.Errorf("this node doesn't lead the cluster: %w", graveler.Unavailable)
	}
	v, err := n.e.rep.View()
	if err != nil {
		return nil, err
	}
	defer v.Close()
	repos, err := n.of(v, ids)
	if err != nil {
		return nil, err
	}
	out := make(map[graveler.ContentID]*settle.Store, len(repos))
	for id, repo := range repos {
		if repo == "" {
			continue // in a bulk that no branch has adopted yet; it is named elsewhere too, or dropped
		}
		s, err := n.e.spaceOf(ctx, v, repo)
		if err != nil {
			return nil, err
		}
		out[id] = &s.settle
	}
	return out, nil
}

// of finds the repository of each content that some record names, "" of what only a bulk names.
func (n *names) of(v *replica.View, ids []graveler.ContentID) (map[graveler.ContentID]graveler.RepositoryID, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make(map[graveler.ContentID]graveler.RepositoryID, len(ids))
	fresh := false
	for _, id := range ids {
		token, ok, err := v.PendingToken(id)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		repo, known := n.repos[token]
		if !known && !fresh {
			if n.repos, err = tokenRepos(v); err != nil {
				return nil, err
			}
			fresh = true
			repo = n.repos[token]
		}
		out[id] = repo
	}
	return out, nil
}

// tokenRepos maps every layer of every branch to its repository.
func tokenRepos(v *replica.View) (map[graveler.StagingToken]graveler.RepositoryID, error) {
	repos, err := v.Repositories()
	if err != nil {
		return nil, err
	}
	out := map[graveler.StagingToken]graveler.RepositoryID{}
	for _, r := range repos {
		err := v.Branches(r.ID, "", func(b graveler.Branch) bool {
			out[b.Token] = r.ID
			for _, t := range b.Sealed {
				out[t] = r.ID
			}
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// settleLayers settles all that is pending in layers. The contents that are still being written are uploaded as they are now,
// and returned by id.
func (e *Engine) settleLayers(ctx context.Context, layers []graveler.StagingToken) (map[graveler.ContentID]engine.Settled, []replica.Keep, error) {
	snaps := map[graveler.ContentID]engine.Settled{}
	patience := time.Now().Add(settlePatience)
	for try := 0; ; {
		pending, err := e.pendingOf(layers)
		if err != nil {
			return nil, nil, err
		}
		var ids []graveler.ContentID
		for _, p := range pending {
			if _, ok := snaps[p.Content]; !ok {
				ids = append(ids, p.Content)
			}
		}
		if len(ids) == 0 {
			var keep []replica.Keep
			for _, p := range pending {
				keep = append(keep, replica.Keep{Path: p.Path, Content: p.Content})
			}
			return snaps, keep, nil
		}
		if try == 20 {
			return nil, nil, fmt.Errorf("%d files are opened and closed too fast to commit; try again: %w", len(ids), graveler.Conflict)
		}
		own, foreign := byHolder(ids)
		for len(own) > 0 {
			n := min(len(own), settle.Batch)
			if err := e.settler.Settle(ctx, own[:n]); err != nil {
				return nil, nil, err
			}
			own = own[n:]
		}
		if err := e.secureForeign(ctx, foreign, snaps); err != nil {
			return nil, nil, err
		}
		if pending, err = e.pendingOf(layers); err != nil {
			return nil, nil, err
		}
		waiting := false
		for _, p := range pending {
			if _, ok := snaps[p.Content]; ok || engine.HolderOf(p.Content) != "" {
				continue
			}
			info, err := e.spill.Stat(p.Content)
			switch {
			case errors.Is(err, graveler.NotFound):
				if named, nerr := e.stillPending(p.Content); nerr != nil || !named {
					continue
				}
				return nil, nil, fmt.Errorf("%q: its bytes are missing from the spill directory; remove or reset the path: %w", p.Path, graveler.Corrupt)
			case err != nil:
				return nil, nil, err
			case info.Writers == 0:
				continue // closed since; the next round settles it
			case time.Now().Before(patience):
				waiting = true
				continue
			}
			got, err := e.settler.Secure(ctx, []graveler.ContentID{p.Content})
			if err != nil {
				return nil, nil, err
			}
			for _, s := range got {
				if s.Snapshot {
					snaps[s.Content] = s
				}
			}
		}
		if !waiting {
			try++
			continue
		}
		select { // it is time that bounds this
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
}

func (e *Engine) stillPending(id graveler.ContentID) (bool, error) {
	v, err := e.rep.View()
	if err != nil {
		return false, err
	}
	defer v.Close()
	return v.IsPending(id)
}

func (e *Engine) pendingOf(layers []graveler.StagingToken) (out []replica.Pending, err error) {
	v, err := e.rep.View()
	if err != nil {
		return nil, err
	}
	defer v.Close()
	for _, t := range layers {
		ps, err := v.PendingOf(t)
		if err != nil {
			return nil, err
		}
		out = append(out, ps...)
	}
	return out, nil
}
