package object

import (
	"container/list"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// maxFDs is how many files a store keeps open for reading: a quarter of the usual limit of 1024 descriptors.
const maxFDs = 256

// fdCache keeps the files that were read last open, so that a read is one pread.
type fdCache struct {
	mu      sync.Mutex // guards the fields below and those of openFD
	open    map[string]*list.Element
	recent  list.List // of *openFD, the last read first
	dropped uint64    // counts drop, to see that a file opened meanwhile may be an old one
	closed  bool
}

type openFD struct {
	name string
	f    *os.File
	refs int
	gone bool // not in the cache any more: the last reader closes it
}

// readAt reads from the file at name. Fewer bytes than o has, counted from the file's end, are Corrupt.
func (c *fdCache) readAt(name string, o Object, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("negative offset %d: %w", off, graveler.Invalid)
	}
	if o.Fresh {
		c.drop(name) // another process may have removed or replaced it
	}
	fd, err := c.acquire(name)
	if err != nil {
		return 0, err
	}
	n, err := fd.f.ReadAt(p, off)
	c.release(fd)
	if err == io.EOF && o.Size >= 0 && off+int64(n) < o.Size {
		return n, short(o, off+int64(n))
	}
	return n, err
}

func (c *fdCache) acquire(name string) (*openFD, error) {
	c.mu.Lock()
	if e := c.open[name]; e != nil {
		defer c.mu.Unlock()
		c.recent.MoveToFront(e)
		fd := e.Value.(*openFD)
		fd.refs++
		return fd, nil
	}
	before := c.dropped
	c.mu.Unlock()

	f, err := os.Open(name)
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		// Others need what is kept for later.
		c.tidy()
		f, err = os.Open(name)
	}
	if err != nil {
		return nil, err
	}
	fd := &openFD{name: name, f: f, refs: 1}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.dropped != before || c.open[name] != nil {
		fd.gone = true
		return fd, nil
	}
	if c.recent.Len() >= maxFDs {
		c.remove(c.recent.Back())
	}
	if c.open == nil {
		c.open = map[string]*list.Element{}
	}
	c.open[name] = c.recent.PushFront(fd)
	return fd, nil
}

func (c *fdCache) release(fd *openFD) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if fd.refs--; fd.gone && fd.refs == 0 {
		fd.f.Close()
	}
}

// remove takes a file out; c.mu is held.
func (c *fdCache) remove(e *list.Element) {
	fd := c.recent.Remove(e).(*openFD)
	delete(c.open, fd.name)
	fd.gone = true
	if fd.refs == 0 {
		fd.f.Close()
	}
}

// tidy closes all files.
func (c *fdCache) tidy() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for e := c.recent.Front(); e != nil; e = c.recent.Front() {
		c.remove(e)
	}
}

// drop forgets the file at a name that now means another one or none.
func (c *fdCache) drop(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropped++
	if e := c.open[name]; e != nil {
		c.remove(e)
	}
}

func (c *fdCache) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.tidy()
}
