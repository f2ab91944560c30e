package nfs

import (
	"sync"
	"time"
)

// said keeps a failure that comes again and again from filling the log.
type said struct {
	mu    sync.Mutex
	lines map[string]time.Time
}

const (
	sayAgain = 30 * time.Second
	saidMax  = 1000
)

// already reports whether a line was said a short time ago, and notes that it is said now.
func (s *said) already(line string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at, ok := s.lines[line]; ok && now.Sub(at) < sayAgain {
		return true
	}
	if s.lines == nil || len(s.lines) >= saidMax {
		s.lines = map[string]time.Time{}
	}
	s.lines[line] = now
	return false
}
