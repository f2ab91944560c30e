// Package nfsvm boots a small virtual machine, whose kernel is the NFS client that the tests need: Debian's, so that what is tested is
// what compute nodes run. It is emulated where the processor offers no virtualization, and then slow: some 20 times. The machine that
// the tests run on is its only network, at Host.
//
// scripts/nfsvm-guest makes what is booted; make deps runs it.
package nfsvm

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lakefsfs/lakefsfs/internal/nfsvm/wire"
)

// Host is the address at which the guest reaches this machine's loopback.
const Host = "10.0.2.2"

// Options of a guest.
type Options struct {
	// Dir holds what scripts/nfsvm-guest made.
	Dir string
	// Programs are copied into the guest's /usr/bin: their names there, and files here. They must be static.
	Programs map[string]string
	// MemoryMB and CPUs are what it has; 0 are 768 and 2.
	MemoryMB, CPUs int
}

// VM is a guest that runs. Its methods are safe for concurrent use.
type VM struct {
	dir     string // of this guest's own files
	cmd     *exec.Cmd
	ended   chan struct{} // closed when qemu has gone
	listen  net.Listener
	waiting chan net.Conn // connections of the agent that wait for a request
	once    sync.Once
}

// Boot starts a guest and returns when it takes requests.
func Boot(ctx context.Context, o Options) (_ *VM, err error) {
	if _, err := os.Stat(filepath.Join(o.Dir, "stamp")); err != nil {
		return nil, fmt.Errorf("there is no guest to boot: run make deps: %w", err)
	}
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return nil, fmt.Errorf("there is no emulator for the guest: run make deps: %w", err)
	}
	dir, err := os.MkdirTemp("", "nfsvm")
	if err != nil {
		return nil, err
	}
	v := &VM{dir: dir, ended: make(chan struct{}), waiting: make(chan net.Conn)}
	defer func() {
		if err != nil {
			err = fmt.Errorf("boot the guest: %w", err)
			v.Close()
		}
	}()
	if v.listen, err = net.Listen("tcp4", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	token := rand.Text()
	go v.accept(token)
	initrd := filepath.Join(dir, "initrd")
	if err := writeInitrd(ctx, initrd, o); err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(v.listen.Addr().String())
	if o.MemoryMB == 0 {
		o.MemoryMB = 768
	}
	if o.CPUs == 0 {
		o.CPUs = 2
	}
	// Where the machine is busy an emulated timer comes late, and a kernel that checks it gives up at the start.
	kernel := "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check nowatchdog net.ifnames=0 ipv6.disable=1"
	v.cmd = exec.Command(qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", "q35", "-accel", accel(), "-cpu", "max", "-smp", fmt.Sprint(o.CPUs), "-m", fmt.Sprint(o.MemoryMB),
		"-kernel", filepath.Join(o.Dir, "vmlinuz"), "-initrd", initrd,
		"-append", kernel+" nfsvm.host="+Host+":"+port+" nfsvm.token="+token,
		"-drive", "file="+filepath.Join(o.Dir, "disk")+",format=raw,if=virtio,snapshot=on,cache=unsafe",
		"-netdev", "user,id=n,ipv6=off", "-device", "virtio-net-pci,netdev=n,romfile=",
		"-device", "virtio-rng-pci", "-serial", "file:"+v.file("console"))
	v.cmd.Env = append(os.Environ(), "TMPDIR="+dir) // of the snapshot
	// The guest must not outlive the tests, however they end.
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	log, err := os.Create(v.file("qemu"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	v.cmd.Stderr = log
	if err := v.start(); err != nil {
		v.cmd = nil
		return nil, err
	}
	r, err := v.Run(ctx, wire.Request{Argv: []string{"true"}})
	if err != nil {
		return nil, err
	}
	if r.Code != 0 {
		return nil, errors.New(r.Output())
	}
	return v, nil
}

// start starts the emulator, on a thread that stays: what the kernel takes for the parent's death is that of the thread which forked.
func (v *VM) start() error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := v.cmd.Start()
		started <- err
		if err == nil {
			v.cmd.Wait()
			close(v.ended)
		}
	}()
	return <-started
}

// accel is how the guest's processor is made. A machine may have /dev/kvm and no virtualization behind it; guests there never start.
func accel() string {
	cpu, _ := os.ReadFile("/proc/cpuinfo")
	if unix.Access("/dev/kvm", unix.W_OK) == nil && (strings.Contains(string(cpu), " vmx ") || strings.Contains(string(cpu), " svm ")) {
		return "kvm"
	}
	return "tcg,thread=multi"
}

func (v *VM) file(name string) string { return filepath.Join(v.dir, name) }

// said is the end of what the console and the emulator said.
func (v *VM) said() string {
	var all string
	for _, name := range []string{"qemu", "console"} {
		b, _ := os.ReadFile(v.file(name))
		if b = b[max(0, len(b)-3000):]; len(b) > 0 {
			all += "\n" + name + ": " + strings.TrimSpace(string(b))
		}
	}
	return all
}

// accept takes the agent's connections, and offers them to Run.
func (v *VM) accept(token string) {
	for {
		conn, err := v.listen.Accept()
		if err != nil {
			return
		}
		go func() {
			var hello wire.Hello
			conn.SetReadDeadline(time.Now().Add(time.Minute))
			if err := gob.NewDecoder(byteReader{conn}).Decode(&hello); err != nil || hello.Token != token {
				conn.Close()
				return
			}
			conn.SetReadDeadline(time.Time{})
			select {
			case v.waiting <- conn:
			case <-v.ended:
				conn.Close()
			}
		}()
	}
}

// byteReader keeps a decoder from reading beyond what it decodes.
type byteReader struct{ net.Conn }

func (b byteReader) ReadByte() (byte, error) {
	var p [1]byte
	_, err := io.ReadFull(b.Conn, p[:])
	return p[0], err
}

// Result is what a program in the guest did.
type Result struct {
	Stdout, Stderr string
	// Code is its exit code; 128 and the signal's number where it was killed; 127 if it wasn't found.
	Code int
}

// Output is all that it printed.
func (r Result) Output() string { return r.Stdout + r.Stderr }

// Run runs a program in the guest. The end of ctx kills it, with its process group. An error is one of the guest, not of the program.
func (v *VM) Run(ctx context.Context, req wire.Request) (r Result, err error) {
	var out, errs strings.Builder
	r.Code, err = v.Stream(ctx, req, &out, &errs)
	r.Stdout, r.Stderr = out.String(), errs.String()
	return r, err
}

// Stream is Run that passes on what the program prints while it does.
func (v *VM) Stream(ctx context.Context, req wire.Request, stdout, stderr io.Writer) (int, error) {
	var conn net.Conn
	select {
	case conn = <-v.waiting:
	case <-v.ended:
		return 0, fmt.Errorf("the guest has ended%s", v.said())
	case <-ctx.Done():
		return 0, fmt.Errorf("the guest doesn't answer: %w%s", ctx.Err(), v.said())
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if err := gob.NewEncoder(conn).Encode(req); err != nil {
		return 0, fmt.Errorf("ask the guest for %s: %w", req.Argv[0], err)
	}
	dec := gob.NewDecoder(bufio.NewReader(conn))
	for {
		var f wire.Frame
		if err := dec.Decode(&f); err != nil {
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return 0, fmt.Errorf("%s in the guest: %w%s", strings.Join(req.Argv, " "), err, v.said())
		}
		if _, err := stdout.Write(f.Stdout); err != nil {
			return 0, err
		}
		if _, err := stderr.Write(f.Stderr); err != nil {
			return 0, err
		}
		if f.Done {
			return f.Code, nil
		}
	}
}

// Kill is the guest's sudden end, as by a power cut.
func (v *VM) Kill() {
	if v.cmd != nil {
		v.cmd.Process.Kill()
		<-v.ended
	}
}

// Close ends the guest and removes its files. It may be called more than once.
func (v *VM) Close() {
	v.once.Do(func() {
		v.Kill()
		if v.listen != nil {
			v.listen.Close()
		}
		os.RemoveAll(v.dir)
	})
}
