package history

import (
	"math"
	"time"

	"github.com/anishathalye/porcupine"
)

// Put gives an object a value that no other put of it gives, or "", none. Its outcome is Done or Unknown.
type Put struct{ Object, Value string }

// Get asks for the value of an object. Its outcome is Value.
type Get struct{ Object string }

// Done is the outcome of what always succeeds.
type Done struct{}

// Value is what was read: "" is none.
type Value string

// CheckRegisters judges a history of Put and Get: each object is a register that begins with no value.
func CheckRegisters(r *Recorder, most time.Duration) []Verdict {
	return r.check(porcupine.Model{
		Init: func() any { return "" },
		Step: func(state, in, out any) (bool, any) {
			switch in := in.(type) {
			case Put:
				return true, in.Value
			case Get:
				return out == any(Value(state.(string))), state
			}
			return false, state
		},
	}, bound, most)
}

// bound closes open puts, as each leaves its judge twice as much to try. No two puts of an object give it the same value, but for "".
// So who read a value knows that its put was made by then; and a put that nobody saw may as well be made after all else, or never.
func bound(ops []porcupine.Operation) []porcupine.Operation {
	seen := map[string]int64{} // value -> when the first who read it was told
	for _, op := range ops {
		if v, ok := op.Output.(Value); ok {
			if at, ok := seen[string(v)]; !ok || op.Return < at {
				seen[string(v)] = op.Return
			}
		}
	}
	var out []porcupine.Operation
	for _, op := range ops {
		if p, ok := op.Input.(Put); ok && op.Return == math.MaxInt64 && p.Value != "" {
			at, ok := seen[p.Value]
			if !ok {
				continue
			}
			op.Return = max(at, op.Call) // a value that was read before its put was asked for stays wrong
		}
		out = append(out, op)
	}
	return out
}
