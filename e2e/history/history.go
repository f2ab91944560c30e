// Package history records what concurrent clients asked for and were told, and judges whether one sequence of the same steps could have
// given it, in which each step lies between its question and its answer (linearizability).
//
// A step whose answer never came may have been made at any time since, or never. It stays open for ever.
package history

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// Recorder records the steps of one kind of object. Its methods may be called from many goroutines.
type Recorder struct {
	begin time.Time
	mu    sync.Mutex
	ops   []porcupine.Operation
	open  map[string]int // object -> steps that stay open for its judge
}

// New makes an empty recorder. Times are since begin.
func New(begin time.Time) *Recorder { return &Recorder{begin: begin, open: map[string]int{}} }

// Now is the present, as recorders count it.
func (r *Recorder) Now() int64 { return int64(time.Since(r.begin)) }

// Add records a step that was answered.
func (r *Recorder) Add(client int, called, returned int64, in, out any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, porcupine.Operation{ClientId: client, Call: called, Return: returned, Input: in, Output: out})
}

// Open records a step whose answer never came.
func (r *Recorder) Open(client int, called int64, in any) {
	r.Add(client, called, math.MaxInt64, in, Unknown{})
	switch in := in.(type) {
	case Commit:
		return // the log tells what became of it
	case Put:
		if in.Value != "" {
			return // see bound
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open[objectOf(in)]++
}

// Crowded tells that an object should be left alone: each open step doubles what its judge has to try.
func (r *Recorder) Crowded(object string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.open[object] >= 3
}

// Unknown is the outcome of a step whose answer never came.
type Unknown struct{}

// Len counts the steps recorded, and how many of them are open.
func (r *Recorder) Len() (all, open int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.ops {
		if r.ops[i].Return == math.MaxInt64 {
			open++
		}
	}
	return len(r.ops), open
}

// Verdict is what became of one object's history.
type Verdict struct {
	Object string
	Steps  int
	Result porcupine.CheckResult
	Story  string // of a history that isn't linearizable: its steps in the order of the questions
}

// Right tells whether the history is linearizable, and Undecided that this could not be found out in time.
func (v Verdict) Right() bool { return v.Result == porcupine.Ok }

// Undecided tells that the judge ran out of time.
func (v Verdict) Undecided() bool { return v.Result == porcupine.Unknown }

// check judges each object's history by itself, after simpler, if not nil, made it easier.
func (r *Recorder) check(m porcupine.Model, simpler func([]porcupine.Operation) []porcupine.Operation, most time.Duration) []Verdict {
	r.mu.Lock()
	ops := slices.Clone(r.ops)
	r.mu.Unlock()
	by := map[string][]porcupine.Operation{}
	for _, op := range ops {
		k := objectOf(op.Input)
		by[k] = append(by[k], op)
	}
	var out []Verdict
	for _, k := range sorted(by) {
		h := by[k]
		if simpler != nil {
			h = simpler(h)
		}
		v := Verdict{Object: k, Steps: len(by[k]), Result: porcupine.CheckOperationsTimeout(m, h, most)}
		if v.Result != porcupine.Ok {
			v.Story = story(by[k])
		}
		out = append(out, v)
	}
	return out
}

func sorted[V any](m map[string]V) []string {
	var ks []string
	for k := range m {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return ks
}

func story(ops []porcupine.Operation) string {
	slices.SortFunc(ops, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	var b strings.Builder
	for _, op := range ops {
		until := "never"
		if op.Return != math.MaxInt64 {
			until = fmt.Sprintf("%.4f", float64(op.Return)/1e9)
		}
		fmt.Fprintf(&b, "%9.4f to %9s  client %d: %s -> %s\n", float64(op.Call)/1e9, until, op.ClientId, words(op.Input), words(op.Output))
	}
	return b.String()
}

// OpenObjects are the objects of which steps are open.
func (r *Recorder) OpenObjects() map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	open := map[string]bool{}
	for _, op := range r.ops {
		if op.Return == math.MaxInt64 {
			open[objectOf(op.Input)] = true
		}
	}
	return open
}

// objectOf names the object that a step is on.
func objectOf(in any) string {
	switch in := in.(type) {
	case Put:
		return in.Object
	case Get:
		return in.Object
	case Create:
		return in.Group
	case Delete:
		return in.Group
	case Set:
		return in.Group
	case Rename:
		return in.Group
	case Resolve:
		return in.Group
	case ListRefs:
		return in.Group
	case Commit:
		return in.Branch
	case Head:
		return in.Branch
	}
	panic(fmt.Sprintf("no step: %T", in))
}

var long = regexp.MustCompile("[0-9a-f]{64}")

// words writes a step or an outcome down, with ids cut short.
func words(v any) string {
	s := strings.TrimPrefix(fmt.Sprintf("%T %+v", v, v), "history.")
	return long.ReplaceAllStringFunc(s, func(id string) string { return id[:8] })
}
