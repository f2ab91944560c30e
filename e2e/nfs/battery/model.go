package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// model is a directory and what must be in it: everything that was acknowledged. The server may be killed and started again meanwhile.
type model struct {
	r     *rand.Rand
	dir   string
	files map[string]string // name → content
	dirs  map[string]bool
	again int // calls that were carried out before an answer that was lost, and sent again
	log   []string
}

// modelCommand does random things in a directory for a number of operations, or of seconds if it has an s behind it, and compares.
//
// A call whose answer is lost when the server dies is sent again to one that can't know: it may find that what it asks for is done
// already. That is told as an error, and is none if it is so.
func modelCommand(args []string) error {
	if len(args) != 3 {
		return errors.New("model takes a seed, a number of operations or a time, and a directory")
	}
	seed, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil {
		return err
	}
	var more func(int) bool
	if d, err := time.ParseDuration(args[1]); err == nil {
		end := time.Now().Add(d)
		more = func(int) bool { return time.Now().Before(end) }
	} else if n, err := strconv.Atoi(args[1]); err == nil {
		more = func(i int) bool { return i < n }
	} else {
		return err
	}
	m := &model{r: rand.New(rand.NewPCG(seed, 2)), dir: args[2], files: map[string]string{}, dirs: map[string]bool{"": true}}
	if err := os.Mkdir(m.dir, 0o755); err != nil {
		return err
	}
	i := 0
	for ; more(i); i++ {
		err := m.step(i)
		if err == nil && i%100 == 99 {
			err = m.compare()
		}
		if err != nil {
			return fmt.Errorf("seed %d, operation %d: %w\n%s", seed, i, err, m.log)
		}
	}
	if err := m.compare(); err != nil {
		return fmt.Errorf("seed %d, in the end: %w\n%s", seed, err, m.log)
	}
	fmt.Printf("%d operations, %d files, %d of them found done when they were sent again\n", i, len(m.files), m.again)
	return nil
}

func (m *model) path(name string) string { return filepath.Join(m.dir, name) }

func (m *model) did(format string, a ...any) {
	m.log = append(m.log, fmt.Sprintf(format, a...))
	m.log = m.log[max(0, len(m.log)-20):]
}

// pick is a random key of a map, in an order that the seed decides.
func pick[V any](r *rand.Rand, all map[string]V) (string, bool) {
	if len(all) == 0 {
		return "", false
	}
	keys := make([]string, 0, len(all))
	for k := range all {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys[r.IntN(len(keys))], true
}

// done is what has become of a call. One that finds its own work done has failed with an error that it can explain.
func (m *model) done(err error, explained unix.Errno, is func() bool) error {
	if errors.Is(err, explained) && is() {
		m.again++
		return nil
	}
	return err
}

func (m *model) there(name string) bool {
	_, err := os.Lstat(m.path(name))
	return err == nil
}

func (m *model) step(i int) error {
	dir, _ := pick(m.r, m.dirs)
	fresh := filepath.Join(dir, fmt.Sprintf("n%d", i))
	name, have := pick(m.r, m.files)
	content := fmt.Sprintf("%0*d", 1+m.r.IntN(20000), i)
	switch op := m.r.IntN(10); {
	case op < 3 || !have:
		m.did("create %s of %d", fresh, len(content))
		return m.put(fresh, os.O_CREATE|os.O_EXCL|os.O_WRONLY, "", content)
	case op == 3:
		m.did("append to %s", name)
		return m.put(name, os.O_WRONLY|os.O_APPEND, m.files[name], content)
	case op == 4:
		m.did("write %s anew", name)
		return m.put(name, os.O_WRONLY|os.O_TRUNC, "", content)
	case op == 5:
		n := m.r.IntN(len(m.files[name]) + 1)
		m.did("truncate %s to %d", name, n)
		m.files[name] = m.files[name][:n]
		return os.Truncate(m.path(name), int64(n))
	case op == 6:
		m.did("rename %s to %s", name, fresh)
		err := unix.Rename(m.path(name), m.path(fresh))
		m.files[fresh] = m.files[name]
		delete(m.files, name)
		return m.done(err, unix.ENOENT, func() bool { return m.there(fresh) && !m.there(name) })
	case op == 7:
		other, _ := pick(m.r, m.files)
		if other == name {
			return nil
		}
		m.did("rename %s over %s", name, other)
		err := unix.Rename(m.path(name), m.path(other))
		m.files[other] = m.files[name]
		delete(m.files, name)
		return m.done(err, unix.ENOENT, func() bool { return !m.there(name) })
	case op == 8:
		m.did("remove %s", name)
		err := unix.Unlink(m.path(name))
		delete(m.files, name)
		return m.done(err, unix.ENOENT, func() bool { return !m.there(name) })
	}
	if len(m.dirs) < 8 {
		m.did("mkdir %s", fresh)
		err := unix.Mkdir(m.path(fresh), 0o755)
		m.dirs[fresh] = true
		return m.done(err, unix.EEXIST, func() bool { return m.there(fresh) })
	}
	return nil
}

// put writes to a file, and to the model once that is acknowledged.
func (m *model) put(name string, flags int, before, content string) error {
	f, err := os.OpenFile(m.path(name), flags, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	if m.r.IntN(2) == 0 {
		err = errors.Join(err, f.Sync())
	}
	m.files[name] = before + content
	return errors.Join(err, f.Close())
}

// compare reads everything, as the server has it.
func (m *model) compare() error {
	unix.Sync()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		return err
	}
	seen := 0
	err := filepath.WalkDir(m.dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(m.dir, path)
		if name == "." {
			name = ""
		}
		if e.IsDir() {
			if !m.dirs[name] {
				return fmt.Errorf("there is a directory %s", name)
			}
			seen++
			return nil
		}
		want, ok := m.files[name]
		if !ok {
			return fmt.Errorf("there is a file %s", name)
		}
		seen++
		got, err := os.ReadFile(path)
		if err == nil && string(got) != want {
			err = fmt.Errorf("%s has %d bytes, %.20q…, want %d, %.20q…", name, len(got), got, len(want), want)
		}
		return err
	})
	if err == nil && seen != len(m.files)+len(m.dirs) {
		err = fmt.Errorf("there are %d names, want %d", seen, len(m.files)+len(m.dirs))
	}
	return err
}
