package nfsvm

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/internal/nfsvm/wire"
)

// What the other tests rely on: output, codes, input, killing, several programs at a time, and an end.
func TestGuest(t *testing.T) {
	dir := Need(t)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	began := time.Now()
	v, err := Boot(ctx, Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	t.Logf("booted in %s", time.Since(began).Round(100*time.Millisecond))
	sh := func(script string) Result {
		t.Helper()
		r, err := v.Run(ctx, wire.Request{Argv: []string{"sh", "-c", script}, Dir: "/tmp", Env: []string{"WORD=said"}, Stdin: []byte("input")})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := sh("pwd; echo $WORD >&2; cat; exit 7"); r.Stdout != "/tmp\ninput" || r.Stderr != "said\n" || r.Code != 7 {
		t.Errorf("%+v", r)
	}
	if r := sh("kill -9 $$"); r.Code != 128+9 {
		t.Errorf("killed: %+v", r)
	}
	if r, err := v.Run(ctx, wire.Request{Argv: []string{"nowhere"}}); err != nil || r.Code != 127 || !strings.Contains(r.Stderr, "nowhere") {
		t.Errorf("not found: %+v %v", r, err)
	}
	if r := sh("head -c 3000000 /dev/zero"); len(r.Stdout) != 3000000 {
		t.Errorf("%d bytes", len(r.Stdout))
	}
	// A program that is waited for no longer is killed; others have run beside it.
	short, stop := context.WithCancel(ctx)
	ended := make(chan error)
	go func() {
		_, err := v.Run(short, wire.Request{Argv: []string{"sleep", "4321"}})
		ended <- err
	}()
	if r := sh("until pgrep -f 'sleep 432[1]' >/dev/null; do :; done; echo both"); r.Stdout != "both\n" {
		t.Errorf("%+v", r)
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
	if r := sh("while pgrep -fr S,R 'sleep 432[1]'; do :; done"); r.Code != 0 {
		t.Errorf("%+v", r)
	}
	v.Kill()
	if _, err := v.Run(ctx, wire.Request{Argv: []string{"true"}}); err == nil {
		t.Error("a dead guest answers")
	}
}
