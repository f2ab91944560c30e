package remote

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/engine/local"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/spill"
)

// In a process of its own this test binary is a server: its directory and port are in the environment.
func TestMain(m *testing.M) {
	if dir := os.Getenv("LAKEFSFS_TEST_SERVE"); dir != "" {
		if err := serveProcess(dir, os.Getenv("LAKEFSFS_TEST_ADDR")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func serveProcess(d, addr string) error {
	objects := func(ctx context.Context, ns string) (object.Store, error) {
		return object.Open(ctx, ns, object.Options{})
	}
	sp, err := spill.Open(d+"/spill", spill.Options{OpenBase: objects})
	if err != nil {
		return err
	}
	e, err := local.Open(context.Background(), local.Config{Dir: d + "/meta", Spill: sp, Objects: objects, DefaultNamespace: "file://" + d + "/data"})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	s := NewServer(ServerOptions{})
	Register(s, e)
	fmt.Println(l.Addr())
	return s.Serve(l)
}

// A server that is killed again and again, and started again, makes each change once.
func TestKilledServer(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, addr := t.TempDir(), "127.0.0.1:0"
	start := func() *exec.Cmd {
		t.Helper()
		for late := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			p := exec.Command(exe)
			p.Env = append(os.Environ(), "LAKEFSFS_TEST_SERVE="+dir, "LAKEFSFS_TEST_ADDR="+addr)
			p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			p.Stderr = os.Stderr
			out, err := p.StdoutPipe()
			if err == nil {
				err = p.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(out).ReadString('\n')
			if err == nil {
				addr = strings.TrimSpace(line)
				return p
			}
			p.Wait()
			if time.Now().After(late) {
				t.Fatal("the server doesn't start")
			}
		}
	}
	p := start()
	defer func() { p.Process.Kill(); p.Wait() }()
	c := dial(t, addr, DialOptions{Insecure: true, RetryFor: 2 * time.Minute})
	create(t, c)
	const workers, kills = 4, 8
	stop := make(chan struct{})
	var mu sync.Mutex
	var made, staged []string
	var wg sync.WaitGroup
	for w := range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				name := fmt.Sprintf("%d-%04d", w, i)
				// Each makes a branch, which can't be made twice, moves it, and stages what it then removes.
				b := graveler.BranchID(name)
				_, err := c.CreateBranch(t.Context(), engine.CreateBranch{Repo: repo, ID: b})
				if err == nil {
					err = c.RenameBranch(t.Context(), repo, b, "r"+b)
				}
				if err == nil {
					err = c.Stage(t.Context(), repo, "main", []graveler.Change{{Path: "d/" + name}})
				}
				if err == nil {
					err = commit(t.Context(), c, name)
				}
				if err != nil {
					t.Error(name, err)
					return
				}
				mu.Lock()
				made, staged = append(made, name), append(staged, "d/"+name)
				mu.Unlock()
			}
		}()
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(made)
	}
	for range kills {
		before := count()
		eventually(t, func() bool { return count() > before || t.Failed() })
		p.Process.Kill()
		p.Wait()
		p = start()
	}
	before := count()
	eventually(t, func() bool { return count() > before || t.Failed() })
	close(stop)
	wg.Wait()
	got := commits(t, c)
	slices.Sort(got)
	slices.Sort(made)
	if !slices.Equal(got, made) {
		t.Errorf("commits %q, want %q", got, made)
	}
	var paths []string
	for l, err := range c.List(t.Context(), repo, "main", engine.ListQuery{}) {
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, l.Path)
	}
	slices.Sort(staged)
	if !slices.Equal(paths, staged) {
		t.Errorf("paths %q, want %q", paths, staged)
	}
	bs, err := c.ListBranches(t.Context(), repo, engine.RefQuery{Prefix: "r"})
	if err != nil || len(bs) != len(made) {
		t.Errorf("%d branches of %d: %v", len(bs), len(made), err)
	}
	t.Logf("%d changes of each kind through %d kills", len(made), kills)
}
