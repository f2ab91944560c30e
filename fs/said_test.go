package fs

import (
	"fmt"
	"testing"
	"time"
)

func TestSaid(t *testing.T) {
	var s said
	now := time.Now()
	if s.already("a", now) || s.already("b", now) || !s.already("a", now.Add(quiet-1)) || s.already("a", now.Add(quiet)) {
		t.Error("a line is said once a while")
	}
	for i := range 10 * mostSaid {
		s.already(fmt.Sprint(i), now)
	}
	if len(s.m) > mostSaid {
		t.Errorf("%d lines are remembered", len(s.m))
	}
}
