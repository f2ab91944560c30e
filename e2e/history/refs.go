package history

import (
	"time"

	"github.com/anishathalye/porcupine"
)

// GroupSize is how many refs belong together, so that renames and listings of them are judged too.
const GroupSize = 3

// The steps on refs, which are numbered within their group.
type (
	// Create makes a ref. Its outcome is Done, Exists or Unknown.
	Create struct {
		Group  string
		Ref    int
		Commit string
		Tag    bool // to make a tag again as it is isn't refused
	}
	// Delete removes a ref. Its outcome is Done, NotFound or Unknown.
	Delete struct {
		Group string
		Ref   int
	}
	// Set moves a ref. Its outcome is Done, NotFound or Unknown.
	Set struct {
		Group  string
		Ref    int
		Commit string
	}
	// Rename renames a ref. Its outcome is Done, NotFound, Exists or Unknown.
	Rename struct {
		Group    string
		From, To int
	}
	// Resolve asks what a ref means. Its outcome is Value, "" if there is none.
	Resolve struct {
		Group string
		Ref   int
	}
	// ListRefs asks for all of a group at once. Its outcome is Refs.
	ListRefs struct{ Group string }
	// Refs are the commits of a group's refs, "" where there is none.
	Refs [GroupSize]string
)

// Outcomes of steps that may fail.
type (
	NotFound struct{} // NotFound is that there is no such ref
	Exists   struct{} // Exists is that there is one already
)

// CheckRefs judges a history of steps on refs. In the beginning there is none.
func CheckRefs(r *Recorder, most time.Duration) []Verdict {
	return r.check(porcupine.Model{
		Init: func() any { return Refs{} },
		Step: func(state, in, out any) (bool, any) {
			s := state.(Refs)
			switch in := in.(type) {
			case Create:
				if s[in.Ref] != "" && !(in.Tag && s[in.Ref] == in.Commit) {
					return one(out, Exists{}), s
				}
				s[in.Ref] = in.Commit
				return one(out, Done{}), s
			case Delete:
				if s[in.Ref] == "" {
					return one(out, NotFound{}), s
				}
				s[in.Ref] = ""
				return one(out, Done{}), s
			case Set:
				if s[in.Ref] == "" {
					return one(out, NotFound{}), s
				}
				s[in.Ref] = in.Commit
				return one(out, Done{}), s
			case Rename:
				switch {
				case s[in.From] == "" && s[in.To] != "":
					return one(out, NotFound{}) || one(out, Exists{}), s // which is seen first isn't said
				case s[in.From] == "":
					return one(out, NotFound{}), s
				case s[in.To] != "":
					return one(out, Exists{}), s
				}
				s[in.From], s[in.To] = "", s[in.From]
				return one(out, Done{}), s
			case Resolve:
				return out == any(Value(s[in.Ref])), s
			case ListRefs:
				return out == any(s), s
			}
			return false, s
		},
	}, nil, most)
}

// one tells whether an outcome may be this one: an unknown one may.
func one(out, want any) bool { return out == want || out == any(Unknown{}) }
