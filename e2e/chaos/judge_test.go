package chaos

import (
	"context"
	"fmt"
	"maps"
	"math"
	"time"

	"github.com/lakefsfs/lakefsfs/e2e/history"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// most bounds how long one object's history is judged.
const most = 30 * time.Second

// judge judges all that was recorded in an epoch, after look. It reads the logs and what commits hold.
func (e *epoch) judge(ctx context.Context, c engine.Engine) error {
	for _, b := range append(e.branches(), e.src(), e.dst()) {
		log, err := e.log(ctx, c, b)
		if err != nil {
			return err
		}
		v, wrong := history.CheckChain(e.heads, string(b), string(e.first), log, most)
		e.l.judge(v)
		for _, s := range wrong {
			e.l.violation("%s: %s", e.name, s)
		}
		if err := e.held(ctx, c, b, log); err != nil {
			return err
		}
	}
	e.l.judge(history.CheckRegisters(e.keys, most)...)
	e.l.judge(history.CheckRefs(e.refs, most)...)
	for _, r := range []*history.Recorder{e.keys, e.refs, e.heads} {
		all, open := r.Len()
		e.l.steps.Add(int64(all))
		e.l.open.Add(int64(open))
	}
	return nil
}

// log is the commits of a branch down to where it began.
func (e *epoch) log(ctx context.Context, c engine.Engine, b graveler.BranchID) (log []history.Logged, err error) {
	err = insist(ctx, func(ctx context.Context) error {
		log = nil
		for cm, err := range c.Log(ctx, e.repo, graveler.Ref(b), engine.LogQuery{FirstParent: true}) {
			if err != nil {
				return err
			}
			if cm.ID == e.first {
				return nil
			}
			l := history.Logged{ID: string(cm.ID), Message: cm.Message}
			if len(cm.Parents) > 0 {
				l.Parent = string(cm.Parents[0])
			}
			log = append(log, l)
		}
		return fmt.Errorf("the log of %s doesn't reach its beginning: %w", b, graveler.Corrupt)
	})
	return log, err
}

// held reads what the commits of a branch hold. A commit is a look at all keys at some time while it was made; a merge holds what its
// source held.
func (e *epoch) held(ctx context.Context, c engine.Engine, b graveler.BranchID, log []history.Logged) error {
	byMessage := map[string]history.Logged{}
	for _, l := range log {
		byMessage[l.Message] = l
	}
	e.mu.Lock()
	all := e.commits
	e.mu.Unlock()
	for _, m := range all {
		l, there := byMessage[m.message]
		if m.branch != b || !there {
			continue
		}
		got, err := e.commit(ctx, c, graveler.CommitID(l.ID))
		if err != nil {
			return err
		}
		switch b {
		case e.dst():
			var cm graveler.Resolved
			err := insist(ctx, func(ctx context.Context) (err error) {
				cm, err = c.Resolve(ctx, e.repo, graveler.Ref(l.ID))
				return err
			})
			if err != nil {
				return err
			}
			if len(cm.Commit.Parents) != 2 {
				e.l.violation("%s: the merge %s has the parents %v", e.name, l.ID, cm.Commit.Parents)
				continue
			}
			want, err := e.commit(ctx, c, cm.Commit.Parents[1])
			if err != nil {
				return err
			}
			if !maps.Equal(got, want) {
				e.l.violation("%s: the merge %s holds %v, and what it merged holds %v", e.name, l.ID, got, want)
			}
		case e.src():
			// One at a time stages there: all or nothing of its last step.
			if _, ok := got["m/"+got["m/last"]]; !ok && len(got) > 0 {
				e.l.violation("%s: the commit %s has a part of what was staged: %v", e.name, l.ID, got)
			}
		default:
			until := int64(math.MaxInt64)
			if m.id != "" {
				until = m.return_
			}
			e.saw(b, "the commit "+l.ID, got, m.called, until)
		}
	}
	return nil
}

// commit is what a commit holds, from whoever answers.
func (e *epoch) commit(ctx context.Context, c engine.Engine, id graveler.CommitID) (got map[string]string, err error) {
	err = insist(ctx, func(ctx context.Context) (err error) {
		got, err = contents(ctx, c, e.repo, graveler.Ref(id))
		return err
	})
	if err != nil {
		err = fmt.Errorf("%s: what commit %s holds: %w", e.name, id, err)
	}
	return got, err
}

// again looks once more, at the end of everything: nothing that was there is lost, and nothing that was gone came back, but for what
// was left open.
func (n *end) again(ctx context.Context, c engine.Engine) error {
	e := n.e
	now, err := e.look(ctx, c)
	if err != nil {
		return err
	}
	keys, refs, heads := e.keys.OpenObjects(), e.refs.OpenObjects(), e.heads.OpenObjects()
	for b, was := range n.keys {
		for k := range was {
			if o := objectOf(b, k); now.keys[b][k] != was[k] && !keys[o] && b != e.src() && b != e.dst() {
				e.l.violation("%s: %s of %s was %q at the end of its epoch, and is %q", e.name, k, b, was[k], now.keys[b][k])
			}
		}
		for k, v := range now.keys[b] {
			if _, ok := was[k]; !ok && !keys[objectOf(b, k)] && b != e.src() && b != e.dst() {
				e.l.violation("%s: %s of %s was gone at the end of its epoch, and is %q", e.name, k, b, v)
			}
		}
		if now.heads[b] != n.heads[b] && !heads[string(b)] {
			e.l.violation("%s: the head of %s was %s at the end of its epoch, and is %s", e.name, b, n.heads[b], now.heads[b])
		}
	}
	for g, was := range n.refs {
		if now.refs[g] != was && !refs[fmt.Sprint(e.name, "-refs", g)] {
			e.l.violation("%s: the refs of group %d were %v at the end of their epoch, and are %v", e.name, g, was, now.refs[g])
		}
	}
	return nil
}

// objectOf is the object that a key belongs to.
func objectOf(b graveler.BranchID, key string) string {
	if len(key) > 2 && key[:2] == "g/" {
		key = "g"
	}
	return keyOf(b, key)
}
