package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lakefsfs/lakefsfs/bench/nfsclient"
)

// nfsPlan is how large a contest of NFS servers is.
type nfsPlan struct {
	*plan
	inside bool // the network of its own
}

// nfsServer is a server of the contest.
type nfsServer struct {
	name, about string
	nfs, mount  string // addresses
	export      string
	start       func(ctx context.Context) (*process, error)

	proc   *process
	client *nfsclient.Client
	dir    nfsclient.Handle // where the present round works
	files  []nfsclient.Handle
	big    nfsclient.Handle
}

// enclosed runs this program again in a network and a mount namespace of its own, where it is as root: nfs-ganesha registers with a port
// mapper, which nobody else should meet.
func enclosed(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, append([]string{"-nfs-inside"}, os.Args[1:]...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	return cmd.Run()
}

// settleIn brings up what an enclosed program needs: the loopback, and a /run without other people's sockets.
func settleIn() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("/run: %w", err)
	}
	return os.Mkdir("/run/rpcbind", 0o755)
}

// run runs the contest and prints its tables.
func (p *nfsPlan) run(ctx context.Context, work, bin string, out io.Writer) (err error) {
	a := &arena{plan: p.plan, work: work, bin: bin}
	defer func() { err = errors.Join(err, a.close()) }()
	servers, err := p.servers(ctx, a)
	if err != nil {
		return err
	}
	began := time.Now()
	var in []*nfsServer
	for _, s := range servers {
		if err := s.enter(ctx); err != nil {
			s.proc.end()
			if strings.HasPrefix(s.name, "lakefsfs") || a.only != "" {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			fmt.Fprintf(os.Stderr, "bench: %s is left out: %v\n", s.name, err)
			a.missing = append(a.missing, s.name)
			continue
		}
		a.undo = append(a.undo, func() error { s.proc.end(); return nil }, s.client.Close)
		in = append(in, s)
	}
	w := &nfsWork{plan: p.plan, servers: in, took: map[string][]float64{}}
	if err := w.run(ctx); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n## NFS servers\n\n%s; %s.\n", a.machine(ctx), time.Since(began).Round(time.Second))
	w.print(out)
	return nil
}

// servers are those that are to be measured, each with a disk of its own. The first is what the others are compared with.
func (p *nfsPlan) servers(ctx context.Context, a *arena) ([]*nfsServer, error) {
	const mount = "127.0.0.1"
	var all []*nfsServer
	log := func(name string) string { return filepath.Join(a.work, name+".log") }
	mib := 4*p.big + p.files/4 + 1024
	if bin := tool("ganesha.nfsd"); a.wants("ganesha") && bin != "" && p.inside {
		dir, err := a.disk(ctx, "ganesha", mib)
		if err != nil {
			return nil, err
		}
		if err := os.Chmod(dir, 0o777); err != nil {
			return nil, err
		}
		conf := filepath.Join(a.work, "ganesha.conf")
		text := fmt.Sprintf(`NFS_CORE_PARAM { Protocols = 3; NFS_Port = 22049; MNT_Port = 22050; Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false; }
EXPORT { Export_Id = 1; Path = %s; Pseudo = /x; Protocols = 3; Access_Type = RW; Squash = No_Root_Squash; SecType = sys; FSAL { Name = VFS; } }
LOG { Default_Log_Level = WARN; }
`, dir)
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			return nil, err
		}
		mapper, err := spawn(log("rpcbind"), nil, false, "rpcbind", "-f")
		if err != nil {
			return nil, err
		}
		a.undo = append(a.undo, func() error { mapper.end(); return nil })
		all = append(all, &nfsServer{name: "ganesha", about: "nfs-ganesha over an ext4 (VFS), which doesn't wait for the disk when names change",
			nfs: mount + ":22049", mount: mount + ":22050", export: dir, start: func(context.Context) (*process, error) {
				return spawn(log("ganesha"), nil, false, bin, "-F", "-f", conf, "-L", log("ganesha"), "-p", filepath.Join(a.work, "ganesha.pid"))
			}})
	} else if a.wants("ganesha") {
		a.missing = append(a.missing, "nfs-ganesha (the package nfs-ganesha-vfs and root)")
	}
	if bin := tool("rclone"); a.wants("rclone") && bin != "" {
		dir, err := a.disk(ctx, "rclone", 2*mib)
		if err != nil {
			return nil, err
		}
		data, cache := filepath.Join(dir, "data"), filepath.Join(dir, "cache")
		if err := os.Mkdir(data, 0o755); err != nil {
			return nil, err
		}
		all = append(all, &nfsServer{name: "rclone", about: "`rclone serve nfs` of a directory on an ext4, --vfs-cache-mode full; it answers writes as durable that aren't yet",
			nfs: mount + ":22051", mount: mount + ":22051", export: "/", start: func(context.Context) (*process, error) {
				return spawn(log("rclone"), []string{"RCLONE_CONFIG=/dev/null"}, false, bin, "serve", "nfs", data, "--addr", mount+":22051",
					"--vfs-cache-mode", "full", "--cache-dir", cache, "--log-level", "ERROR")
			}})
	} else if a.wants("rclone") {
		a.missing = append(a.missing, "rclone (make bench-peers)")
	}
	for i, async := range []bool{false, true} {
		name, about := "lakefsfs", "lakefsfs over a file:// store, on a branch: a change of names is answered when it is on disk"
		if async {
			name, about = "lakefsfs async", "the same, exported async: it doesn't wait when names change"
		}
		if !a.wants(name) {
			continue
		}
		s, err := p.lakefsfs(ctx, a, strings.ReplaceAll(name, " ", "-"), 22052+i, mib, async)
		if err != nil {
			return nil, err
		}
		s.name, s.about = name, about
		all = append(all, s)
	}
	return all, nil
}

func (p *nfsPlan) lakefsfs(ctx context.Context, a *arena, name string, port, mib int, async bool) (*nfsServer, error) {
	dir, err := a.disk(ctx, name, 2*mib)
	if err != nil {
		return nil, err
	}
	conf := filepath.Join(a.work, name+".yaml")
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	text := fmt.Sprintf("data: %s/data\nlog: {level: warn}\nnfs: {listen: %q}\nexports:\n- {path: /, squash: none, async: %v}\n", dir, addr, async)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return &nfsServer{nfs: addr, mount: addr, export: "/repo/@main", start: func(ctx context.Context) (*process, error) {
		proc, err := spawn(filepath.Join(a.work, name+".log"), nil, true, a.bin, "daemon", "--config", conf)
		if err != nil {
			return nil, err
		}
		_, err = command(ctx, a.bin, "--server", "unix://"+dir+"/data/lakefsfs.sock", "repo", "create", "repo", "-q")
		return proc, err
	}}, nil
}

// enter starts a server and mounts it.
func (s *nfsServer) enter(ctx context.Context) (err error) {
	if s.proc, err = s.start(ctx); err != nil {
		return err
	}
	var last error
	err = s.proc.until(func() bool {
		s.client, last = nfsclient.Dial(ctx, s.nfs, s.mount, s.export)
		return last == nil
	})
	if err != nil {
		return errors.Join(err, last)
	}
	return nil
}

// middle is the median of what was measured; there is at least one.
func middle(all []float64) float64 {
	s := slices.Sorted(slices.Values(all))
	return s[len(s)/2]
}
