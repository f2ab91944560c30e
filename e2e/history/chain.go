package history

import (
	"fmt"
	"time"

	"github.com/anishathalye/porcupine"
)

// The steps on a branch that only grows.
type (
	// Commit makes a commit. Its outcome is Committed or Unknown. Message is used for no other.
	Commit struct{ Branch, Message string }
	// Committed is a commit that was made, and the one that it was made on.
	Committed struct{ ID, Parent string }
	// Head asks for the head. Its outcome is Value.
	Head struct{ Branch string }
)

// Logged is one commit of a branch's log.
type Logged struct{ ID, Parent, Message string }

// CheckChain judges a history of Commit and Head on one branch, which began at the commit first and whose log at the end, newest first,
// is log down to first, exclusive. It tells the verdict on the order, and what else is wrong with the log: commits that are lost, made
// twice, or that nobody asked for.
func CheckChain(r *Recorder, branch, first string, log []Logged, most time.Duration) (Verdict, []string) {
	var wrong []string
	byMessage := map[string]Logged{}
	for i, l := range log {
		if was, ok := byMessage[l.Message]; ok {
			wrong = append(wrong, fmt.Sprintf("%s: %q was committed twice, as %s and %s", branch, l.Message, was.ID, l.ID))
		}
		byMessage[l.Message] = l
		parent := first
		if i+1 < len(log) {
			parent = log[i+1].ID
		}
		if l.Parent != parent {
			wrong = append(wrong, fmt.Sprintf("%s: the parent of %s is %s, and %s comes before it", branch, l.ID, l.Parent, parent))
		}
	}
	// Of what wasn't answered, the log tells what became of it.
	known := New(r.begin)
	asked := map[string]bool{}
	r.mu.Lock()
	for _, op := range r.ops {
		if c, ok := op.Input.(Commit); ok {
			if c.Branch != branch {
				continue
			}
			asked[c.Message] = true
			l, there := byMessage[c.Message]
			switch out := op.Output.(type) {
			case Committed:
				if !there {
					wrong = append(wrong, fmt.Sprintf("%s: the commit %s (%q) is lost", branch, out.ID, c.Message))
				} else if l.ID != out.ID {
					wrong = append(wrong, fmt.Sprintf("%s: %q was answered with %s, and is %s", branch, c.Message, out.ID, l.ID))
				}
			case Unknown:
				if !there {
					continue // it never was
				}
				op.Output = Committed{l.ID, l.Parent}
			}
		} else if h, ok := op.Input.(Head); !ok || h.Branch != branch {
			continue
		}
		known.ops = append(known.ops, op)
	}
	r.mu.Unlock()
	for _, l := range log {
		if !asked[l.Message] {
			wrong = append(wrong, fmt.Sprintf("%s: nobody asked for the commit %s (%q)", branch, l.ID, l.Message))
		}
	}
	vs := known.check(porcupine.Model{
		Init: func() any { return first },
		Step: func(state, in, out any) (bool, any) {
			switch in.(type) {
			case Commit:
				c, ok := out.(Committed)
				return ok && c.Parent == state, c.ID
			case Head:
				return out == any(Value(state.(string))), state
			}
			return false, state
		},
	}, nil, most)
	if len(vs) == 0 {
		return Verdict{Object: branch, Result: porcupine.Ok}, wrong
	}
	return vs[0], wrong
}
