package graveler

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ModType is a ref modifier's kind.
type ModType uint8

// Ref modifiers.
const (
	ModAncestor ModType = iota // ~N: N first parents back
	ModParent                  // ^N: the Nth parent, 0 the commit itself
	ModHead                    // @: a branch's head, without what is staged
	ModStaged                  // $: only what is staged
	ModTime                    // @{time}: where the branch stood then
)

// Modifier is one step from a ref's base.
type Modifier struct {
	Type ModType
	N    int
	Time time.Time
}

// RefExpr is a ref expression taken apart: a base (commit id or prefix, branch or tag) and modifiers, left to right.
type RefExpr struct {
	Base string
	Mods []Modifier
}

const maxSteps = 1 << 20

var timeForms = []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02"}

// ParseRef takes a ref expression apart. Invalid, with words, if it is none.
func ParseRef(ref Ref) (RefExpr, error) {
	s := string(ref)
	bad := func(why string) (RefExpr, error) {
		return RefExpr{}, fmt.Errorf("ref %q: %s: %w", s, why, Invalid)
	}
	i := strings.IndexAny(s, "~^@$")
	if i < 0 {
		i = len(s)
	}
	e := RefExpr{Base: s[:i]}
	if ValidateTagID(TagID(e.Base)) != nil {
		return bad("give a branch, a tag or a commit id")
	}
	number := func(t string, def int) (int, string, bool) {
		j := 0
		for j < len(t) && t[j] >= '0' && t[j] <= '9' {
			j++
		}
		if j == 0 {
			return def, t, true
		}
		n, err := strconv.Atoi(t[:j])
		return n, t[j:], err == nil && n <= maxSteps
	}
	for t := s[i:]; t != ""; {
		m := Modifier{}
		ok := true
		switch {
		case t[0] == '~':
			m.Type = ModAncestor
			m.N, t, ok = number(t[1:], 1)
		case t[0] == '^':
			m.Type = ModParent
			m.N, t, ok = number(t[1:], 1)
		case strings.HasPrefix(t, "@{"):
			text, rest, closed := strings.Cut(t[2:], "}")
			if !closed {
				return bad("@{ has no }")
			}
			at, err := parseTime(text)
			if err != nil {
				return bad(fmt.Sprintf("%q is no time; write it as 2026-01-31T15:04:05Z", text))
			}
			m.Type, m.Time, t = ModTime, at, rest
		case t[0] == '@':
			m.Type, t = ModHead, t[1:]
		case t[0] == '$':
			m.Type, t = ModStaged, t[1:]
		default:
			return bad(fmt.Sprintf("%q is no modifier; known are ~N ^N @ $ @{time}", t))
		}
		if !ok {
			return bad("the number of steps is too large")
		}
		if len(e.Mods) > 0 && (m.Type == ModHead || m.Type == ModStaged || m.Type == ModTime) {
			return bad("@, $ and @{time} follow a branch's name directly")
		}
		if len(e.Mods) > 0 && e.Mods[0].Type == ModStaged {
			return bad("nothing follows $")
		}
		if e.Mods = append(e.Mods, m); len(e.Mods) > 64 {
			return bad("too many modifiers")
		}
	}
	return e, nil
}

func parseTime(s string) (time.Time, error) {
	for _, f := range timeForms {
		if t, err := time.Parse(f, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, Invalid
}
