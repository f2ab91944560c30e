package replica

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	pb "github.com/lakefsfs/lakefsfs/engine/internal/replica/replicapb"
	"github.com/lakefsfs/lakefsfs/graveler"
)

func (r *Replica) tickNow(t testing.TB) {
	t.Helper()
	if _, err := r.propose(t.Context(), &pb.Command{Op: &pb.Command_Tick{Tick: true}}); err != nil {
		t.Fatal(err)
	}
}

// Sessions against a model: every request is made once, whatever is asked again, and how; answers that are done with are forgotten, and
// asked for late they are refused; an unused session ends.
func TestSessions(t *testing.T) {
	type made struct {
		tag   string
		err   string
		value string
	}
	type session struct {
		id   engine.SessionID
		next uint64
		done uint64
		made map[uint64]made
		idle int // ticks
		over bool
	}
	for seed := range uint64(6) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		dir := t.TempDir()
		r := open(t, dir)
		makeRepo(t, r)
		tags := map[string]bool{}
		var all []*session
		for step := range 1500 {
			if len(all) == 0 || rnd.IntN(200) == 0 {
				id, err := r.OpenSession(t.Context())
				if err != nil || id == 0 {
					t.Fatal(id, err)
				}
				all = append(all, &session{id: id, next: 1, made: map[uint64]made{}})
			}
			s := all[rnd.IntN(len(all))]
			switch rnd.IntN(40) {
			case 0:
				r.Close()
				r = open(t, dir)
			case 1:
				for range 1 + rnd.IntN(40) {
					r.tickNow(t)
					for _, s := range all {
						if s.idle++; s.idle >= sessionTicks {
							s.over = true
						}
					}
				}
			}
			q := engine.Request{Session: s.id, Seq: s.next, Done: s.done}
			again := len(s.made) > 0 && rnd.IntN(3) > 0
			if again {
				q.Seq = 1 + rnd.Uint64N(s.next-1)
				if q.Done = min(s.done, q.Seq-1); rnd.IntN(2) == 0 {
					q.Done = rnd.Uint64N(q.Seq)
				}
			}
			// Of a request that is known another command is asked for: it is not made.
			tag := fmt.Sprintf("t%d", rnd.IntN(300))
			value := fmt.Sprintf("%d", step)
			var res Result
			ctx := WithAnswer(WithValue(engine.WithRequest(t.Context(), q), []byte(value)), &res)
			err := r.CreateTag(ctx, "repo", graveler.Tag{ID: graveler.TagID(tag), Commit: first.ID})
			old, known := s.made[q.Seq]
			switch {
			case s.over:
				if !errors.Is(err, graveler.Stale) {
					t.Fatalf("seed %d step %d: a session that has ended: %v", seed, step, err)
				}
				continue
			case again && res.Known:
				if !known || fmt.Sprint(err) != old.err || err == nil && string(res.Value) != old.value {
					t.Fatalf("seed %d step %d: request %d again: %v %q, it was %+v", seed, step, q.Seq, err, res.Value, old)
				}
				continue // what is known is told, and moves nothing
			case again:
				// Only what was done with may be forgotten.
				if !errors.Is(err, graveler.Stale) || q.Seq > s.done {
					t.Fatalf("seed %d step %d: request %d again, %d are done: %v", seed, step, q.Seq, s.done, err)
				}
				continue
			}
			if res.Known {
				t.Fatalf("seed %d step %d: a new request is known", seed, step)
			}
			s.idle = 0
			if err == nil {
				tags[tag] = true
			} else if !errors.Is(err, graveler.Exists) {
				t.Fatal(err)
			}
			s.made[q.Seq] = made{tag, fmt.Sprint(err), value}
			s.next++
			if rnd.IntN(3) == 0 {
				s.done = s.done + rnd.Uint64N(s.next-s.done)
			}
		}
		v, err := r.View()
		if err != nil {
			t.Fatal(err)
		}
		got := 0
		if err := v.Tags("repo", "", func(tag graveler.Tag) bool {
			if got++; !tags[string(tag.ID)] {
				t.Errorf("seed %d: a tag %s that nobody made", seed, tag.ID)
			}
			return true
		}); err != nil {
			t.Fatal(err)
		}
		if got != len(tags) {
			t.Errorf("seed %d: %d tags, not %d", seed, got, len(tags))
		}
		// What is kept is bounded by what is not done with, and a little.
		for _, s := range all {
			kept := 0
			if err := v.scan(outcomeKey(uint64(s.id), 0)[:9], nil, func(_, _ []byte) bool { kept++; return true }); err != nil {
				t.Fatal(err)
			}
			if limit := int(s.next-s.done) + 2*pruneFrom; kept > limit || s.over && kept > 0 {
				t.Errorf("seed %d: %d answers of session %d are kept (%d of %d done, over: %v)", seed, kept, s.id, s.done, s.next-1, s.over)
			}
		}
		v.Close()
		r.Close()
	}
}

// Errors are recorded with what belongs to them, and a refusal before a command keeps later copies of the request from being made.
func TestRefuse(t *testing.T) {
	r := open(t, t.TempDir())
	defer r.Close()
	makeRepo(t, r)
	id, err := r.OpenSession(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx := engine.WithRequest(t.Context(), engine.Request{Session: id, Seq: 1})
	conflict := fmt.Errorf("merge: %w", &graveler.MergeConflict{Paths: []string{"a", "\xff"}, More: true})
	if res := r.Refuse(ctx, conflict); res.Known || graveler.KindOf(res.Err) != graveler.Conflict {
		t.Fatalf("%+v", res)
	}
	for range 2 {
		err := r.CreateTag(ctx, "repo", graveler.Tag{ID: "late", Commit: first.ID})
		var mc *graveler.MergeConflict
		if !errors.As(err, &mc) || len(mc.Paths) != 2 || mc.Paths[1] != "\xff" || !mc.More || graveler.KindOf(err) != graveler.Conflict {
			t.Fatalf("%v", err)
		}
	}
	v, err := r.View()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if _, err := v.Tag("repo", "late"); !errors.Is(err, graveler.NotFound) {
		t.Error("it was made", err)
	}
	for _, q := range []engine.Request{{Session: id}, {Session: id, Seq: 3, Done: 3}} {
		if err := r.CreateTag(engine.WithRequest(t.Context(), q), "repo", graveler.Tag{ID: "bad", Commit: first.ID}); !errors.Is(err, graveler.Invalid) {
			t.Errorf("%+v: %v", q, err)
		}
	}
	if err := r.CreateTag(engine.WithRequest(t.Context(), engine.Request{Session: id + 1000, Seq: 1}), "repo", graveler.Tag{ID: "bad", Commit: first.ID}); !errors.Is(err, graveler.Stale) {
		t.Errorf("a session that never was: %v", err)
	}
}

// A request whose answer was lost with the leader is asked again of the next one, and was made once.
func TestRequestsThroughFailover(t *testing.T) {
	c := newCluster(t, 3)
	c.makeRepo()
	var id engine.SessionID
	c.onLeader(func(l *member) (err error) {
		id, err = l.OpenSession(t.Context())
		return err
	})
	n := uint64(0)
	want := 0
	for round := range 4 {
		for range 5 {
			n++
			q := engine.Request{Session: id, Seq: n, Done: n - 1}
			cut := round > 0 && n%5 == 3
			value := fmt.Sprint(n)
			var known bool
			c.onLeader(func(l *member) error {
				var res Result
				ctx := WithAnswer(WithValue(engine.WithRequest(t.Context(), q), []byte(value)), &res)
				if cut {
					// The leader loses its connections while it works on it.
					cut = false
					go c.f.isolate(l.name)
				}
				err := l.CreateTag(ctx, "repo", graveler.Tag{ID: graveler.TagID(value), Commit: first.ID})
				known = known || res.Known
				if res.Known && string(res.Value) != value {
					t.Errorf("it returned %q", res.Value)
				}
				return err
			})
			want++
			c.f.heal()
		}
		// Asked again of whoever leads now.
		c.onLeader(func(l *member) error {
			var res Result
			ctx := WithAnswer(engine.WithRequest(t.Context(), engine.Request{Session: id, Seq: n, Done: n - 1}), &res)
			err := l.CreateTag(ctx, "repo", graveler.Tag{ID: "other", Commit: first.ID})
			if err == nil && !res.Known {
				t.Error("it was made again")
			}
			return err
		})
	}
	c.same()
	v, err := c.leader().View()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	got := 0
	if err := v.Tags("repo", "", func(graveler.Tag) bool { got++; return true }); err != nil || got != want {
		t.Errorf("%d tags, not %d: %v", got, want, err)
	}
}

// An answer to what was asked before doesn't count for a later question.
func TestVerifyCountsLaterAnswers(t *testing.T) {
	n := &node{cfg: &ClusterConfig{Heartbeat: time.Second}}
	l := &lead{term: 5}
	l.ctx, l.end = context.WithCancelCause(t.Context())
	v := newVerifier(n, l)
	o, p := &voter{wake: make(chan struct{}, 1)}, &voter{wake: make(chan struct{}, 1)}
	v.voters["o"], v.voters["p"] = o, p
	v.asked = 3
	early := &question{number: 3, voters: ids("o", "p"), need: 1, ok: make(chan struct{})}
	v.waiting = append(v.waiting, early)
	sent := v.asked // a question goes out now
	v.asked = 4
	late := &question{number: 4, voters: ids("o", "p"), need: 1, ok: make(chan struct{})}
	v.waiting = append(v.waiting, late)
	v.note(o, sent)
	if !closed(early.ok) || closed(late.ok) {
		t.Errorf("an answer to question %d: served %v and, for one after it, %v", sent, closed(early.ok), closed(late.ok))
	}
	v.note(p, v.asked)
	if !closed(late.ok) || len(v.waiting) != 0 {
		t.Errorf("the later one is not served")
	}
	two := &question{number: 5, voters: ids("o", "p"), need: 2, ok: make(chan struct{})}
	v.asked, v.waiting = 5, append(v.waiting, two)
	v.note(o, 5)
	if closed(two.ok) {
		t.Error("one answer of two")
	}
	v.note(o, 5)
	if closed(two.ok) {
		t.Error("one voter twice")
	}
	v.note(p, 5)
	if !closed(two.ok) {
		t.Error("two answers of two")
	}
}
