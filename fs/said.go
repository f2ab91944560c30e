package fs

import (
	"sync"
	"time"
)

const (
	// quiet is how long the same line isn't logged again: the kernel asks twice for what it could not read, and programs go on
	// asking.
	quiet    = time.Minute
	mostSaid = 256
)

// said remembers what was logged a short while ago.
type said struct {
	mu sync.Mutex
	m  map[string]time.Time
}

// already reports whether a line was said a short while ago, and counts it as said now if it was not.
func (s *said) already(line string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, ok := s.m[line]; ok && now.Sub(at) < quiet {
		return true
	}
	if s.m == nil || len(s.m) >= mostSaid {
		s.m = map[string]time.Time{}
	}
	s.m[line] = now
	return false
}
