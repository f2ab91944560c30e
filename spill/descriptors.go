package spill

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// reserved is how many of the process's descriptors are for others than callers' contents: the metadata's files, objects that are
// read, connections, and the contents that are being settled.
const reserved = 512

// Room is how many contents can be open at a time by the process's limit of descriptors, of which a part stays for other things.
func Room() int {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0
	}
	n := int(min(l.Cur, 1<<30))
	return max(n-reserved, n/2)
}

// descriptor fails with the errno ENFILE if as many contents are open as may be. A content that is over an object has two
// descriptors, and counts as one: the reserve has room for that. Called with mu.
func (s *Store) descriptor() error {
	if s.files < s.opt.MaxOpen || s.opt.MaxOpen == 0 {
		return nil
	}
	return fmt.Errorf("%d files that aren't stored yet are open, as many as the limit of open files (ulimit -Hn) allows: %w", s.files, syscall.ENFILE)
}

// park closes the files of a content that nobody has a handle of. Called with mu.
func (s *Store) park(c *content) {
	if c.parked {
		return
	}
	c.parked = true
	s.files--
	c.f.Close()
	if c.base != nil {
		c.base.close()
	}
}

// unpark opens them again. Called with mu.
func (s *Store) unpark(c *content) error {
	if !c.parked {
		return nil
	}
	f, err := os.OpenFile(s.path(c.id), os.O_RDWR, 0)
	if err != nil {
		return wrap("open", c.id, err)
	}
	b, err := loadBase(s, c.id, f)
	if err != nil {
		f.Close()
		return wrap("open", c.id, err)
	}
	c.f, c.base, c.parked = f, b, false
	s.files++
	return nil
}
