package replica

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// raftLogEvery is how often raft may say the same.
const raftLogEvery = 10 * time.Second

// raftLog passes what raft says on. A peer that can't be reached is told of at each heartbeat: that is said now and then.
type raftLog struct {
	log *slog.Logger

	mu   sync.Mutex
	said map[string]*saying
}

type saying struct {
	at   time.Time
	held int // times that it was not passed on since
}

func raftLogger(log *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Info, Output: io.Discard})
	l.RegisterSink(&raftLog{log: log, said: map[string]*saying{}})
	return l
}

// Accept is hclog.SinkAdapter's.
func (r *raftLog) Accept(_ string, level hclog.Level, msg string, args ...any) {
	if level < hclog.Info {
		return
	}
	to := slog.LevelDebug // what is usual: elections, replication
	if level >= hclog.Warn {
		to = slog.LevelWarn
	}
	if !r.log.Enabled(context.Background(), to) {
		return
	}
	r.mu.Lock()
	s := r.said[msg]
	if s == nil {
		s = &saying{}
		r.said[msg] = s
	}
	if time.Since(s.at) < raftLogEvery {
		s.held++
		r.mu.Unlock()
		return
	}
	held := s.held
	s.at, s.held = time.Now(), 0
	r.mu.Unlock()
	attrs := make([]any, 0, len(args)+2)
	for i := 0; i+1 < len(args); i += 2 {
		attrs = append(attrs, fmt.Sprint(args[i]), fmt.Sprint(args[i+1]))
	}
	if held > 0 {
		attrs = append(attrs, "repeated", held)
	}
	r.log.Log(context.Background(), to, "raft: "+msg, attrs...)
}
