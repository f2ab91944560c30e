package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// system is a file system of the contest: programs that serve one or more contenders.
type system interface {
	// start mounts it, the first time and after stop.
	start(ctx context.Context) error
	// stop unmounts it in order, what was written being kept.
	stop()
	// forget removes, while it is stopped, what it keeps of the object store's content on this machine.
	forget() error
}

// plain is no more than a directory.
type plain struct{}

func (plain) start(context.Context) error { return nil }
func (plain) stop()                       {}
func (plain) forget() error               { return nil }

// loopback is a directory through FUSE, and nothing else.
type loopback struct {
	bin, flag, below, mnt, log string
	proc                       *process
}

func (l *loopback) start(context.Context) (err error) {
	if err := errors.Join(os.MkdirAll(l.below, 0o755), os.MkdirAll(l.mnt, 0o755)); err != nil {
		return err
	}
	l.proc, err = spawn(l.log, nil, true, l.bin, l.flag, l.below, l.mnt)
	return err
}

func (l *loopback) stop() {
	l.proc.end()
	l.proc = nil
	unmount(l.mnt)
}

func (l *loopback) forget() error { return nil }

// bucket is a place on an S3 server.
type bucket struct {
	*proxy        // before the server
	name   string // of the bucket
	server *process
}

const s3Key, s3Secret = "lakefsfs", "lakefsfs-secret"

// url is where lakefsfs finds a repository in the bucket.
func (b *bucket) url() string {
	return fmt.Sprintf("s3://%s/repo?endpoint=http://%s&region=us-east-1&use_path_style=true", b.name, b.addr)
}

func (b *bucket) env() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + s3Key, "AWS_SECRET_ACCESS_KEY=" + s3Secret, "AWS_EC2_METADATA_DISABLED=true"}
}

func (b *bucket) close() {
	b.proxy.close()
	b.server.end()
}

// lakefsfs is a daemon of its own with one repository.
type lakefsfs struct {
	bin, data, mnt, log string
	s3                  *bucket // nil for a file:// store below data
	frozen              string  // the commit that is mounted on its own too, once there is one
	proc                *process
}

func (l *lakefsfs) branch() string { return filepath.Join(l.mnt, "repo", "@main") }
func (l *lakefsfs) commit() string { return filepath.Join(l.mnt, "repo", "@"+l.frozen) }
func (l *lakefsfs) single() string { return l.mnt + "-commit" }

func (l *lakefsfs) run(ctx context.Context, args ...string) (string, error) {
	return command(ctx, l.bin, append([]string{"--server", "unix://" + l.data + "/lakefsfs.sock"}, args...)...)
}

func (l *lakefsfs) start(ctx context.Context) (err error) {
	first := errors.Is(unix.Access(l.data, unix.F_OK), unix.ENOENT)
	var env []string
	create := []string{"repo", "create", "repo", "-q"}
	if l.s3 != nil {
		env = l.s3.env()
		create = append(create, "--storage-namespace", l.s3.url())
	}
	if l.proc, err = spawn(l.log, env, true, l.bin, "up", "--data", l.data, "--mount", l.mnt, "--log-level", "warn"); err != nil {
		return err
	}
	if first {
		if _, err := l.run(ctx, create...); err != nil {
			return err
		}
	}
	if l.frozen != "" {
		return l.mountFrozen(ctx)
	}
	return nil
}

func (l *lakefsfs) mountFrozen(ctx context.Context) error {
	if err := os.MkdirAll(l.single(), 0o755); err != nil {
		return err
	}
	_, err := l.run(ctx, "mount", "-q", "repo/@"+l.frozen, l.single())
	return err
}

// freeze commits what is staged, and mounts the commit.
func (l *lakefsfs) freeze(ctx context.Context) error {
	out, err := l.run(ctx, "commit", "repo/@main", "-m", "bench", "--json")
	if err != nil {
		return err
	}
	var c struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal([]byte(out), &c); err != nil || c.ID == "" {
		return fmt.Errorf("commit printed %q: %w", out, err)
	}
	l.frozen = c.ID
	return l.mountFrozen(ctx)
}

func (l *lakefsfs) stop() {
	l.proc.end()
	l.proc = nil
	unmount(l.single())
	unmount(l.mnt)
}

func (l *lakefsfs) forget() error { return os.RemoveAll(filepath.Join(l.data, "cache")) }

// rclone is rclone mount: each file is an object of the same name. The flags are those that its manual recommends for S3.
type rclone struct {
	bin, cache, mnt, log string
	s3                   *bucket
	proc                 *process
}

func (r *rclone) start(context.Context) (err error) {
	if err := os.MkdirAll(r.mnt, 0o755); err != nil {
		return err
	}
	env := []string{
		"RCLONE_CONFIG=/dev/null", "RCLONE_S3_PROVIDER=Other", "RCLONE_S3_ENDPOINT=http://" + r.s3.addr, "RCLONE_S3_ACCESS_KEY_ID=" + s3Key,
		"RCLONE_S3_SECRET_ACCESS_KEY=" + s3Secret, "RCLONE_S3_REGION=us-east-1", "RCLONE_S3_FORCE_PATH_STYLE=true",
	}
	r.proc, err = spawn(r.log, env, false, r.bin, "mount", ":s3:"+r.s3.name, r.mnt, "--cache-dir", r.cache, "--vfs-cache-mode", "full",
		"--vfs-write-back", "1s", "--vfs-fast-fingerprint", "--use-server-modtime", "--transfers", "16", "--log-level", "ERROR")
	if err != nil {
		return err
	}
	return r.proc.until(func() bool { return mounted(r.mnt) })
}

func (r *rclone) stop() {
	r.proc.end()
	r.proc = nil
	unmount(r.mnt)
}

func (r *rclone) forget() error { return os.RemoveAll(r.cache) }

// juicefs is JuiceFS with its metadata in an embedded store on the local disk, and files cut into objects.
type juicefs struct {
	bin, data, mnt, log string
	s3                  *bucket
	proc                *process
}

func (j *juicefs) meta() string { return "badger://" + filepath.Join(j.data, "meta") }

func (j *juicefs) start(ctx context.Context) (err error) {
	if errors.Is(unix.Access(j.data, unix.F_OK), unix.ENOENT) {
		if err := errors.Join(os.MkdirAll(j.data, 0o755), os.MkdirAll(j.mnt, 0o755)); err != nil {
			return err
		}
		if _, err := command(ctx, j.bin, "format", "--storage", "s3", "--bucket", "http://"+j.s3.addr+"/"+j.s3.name,
			"--access-key", s3Key, "--secret-key", s3Secret, "--trash-days", "0", j.meta(), "bench"); err != nil {
			return err
		}
	}
	j.proc, err = spawn(j.log, nil, false, j.bin, "mount", "--no-usage-report", "--cache-dir", filepath.Join(j.data, "cache"), j.meta(), j.mnt)
	if err != nil {
		return err
	}
	return j.proc.until(func() bool { return mounted(j.mnt) })
}

func (j *juicefs) stop() {
	unmount(j.mnt)
	j.proc.end()
	j.proc = nil
}

func (j *juicefs) forget() error { return os.RemoveAll(filepath.Join(j.data, "cache")) }
