package spill

import (
	"errors"
	iofs "io/fs"
	"os"
	"syscall"
	"time"

	"github.com/rs/xid"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// What a file system takes its time for is done beside the requests: new files are made before they are asked for, and files that
// nobody names any more are removed after.

// made is a new, empty file.
type made struct {
	id  graveler.ContentID
	f   *os.File
	at  time.Time
	err error
}

// touch makes the file one of now.
func (m *made) touch() {
	if time.Since(m.at) > time.Millisecond {
		// utimensat(2) of a descriptor, to the present time: Go's packages have no call that takes no name.
		syscall.Syscall6(syscall.SYS_UTIMENSAT, m.f.Fd(), 0, 0, 0, 0, 0)
	}
}

// makeAhead makes files until the store is closed.
func (s *Store) makeAhead() {
	defer close(s.stopped)
	for {
		id := s.newID()
		s.mu.Lock()
		s.aheadIDs[id] = true
		s.mu.Unlock()
		m := s.make(id)
		select {
		case s.ahead <- m:
		case <-s.closed:
			s.discard(m)
			return
		}
	}
}

func (s *Store) newID() graveler.ContentID {
	return graveler.ContentID(s.opt.Prefix + xid.New().String())
}

func (s *Store) make(id graveler.ContentID) *made {
	f, err := os.OpenFile(s.path(id), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	return &made{id, f, time.Now(), err}
}

func (s *Store) discard(m *made) {
	if m.err == nil {
		m.f.Close()
		os.Remove(s.path(m.id))
	}
}

// Close removes the files that were made ahead. Contents stay as they are, and can be read and written as long as they are open.
func (s *Store) Close() {
	s.aheadOnce.Do(func() { close(s.stopped) }) // nothing was made, nor will be
	s.mu.Lock()
	select {
	case <-s.closed:
		s.mu.Unlock()
		return
	default:
	}
	close(s.closed)
	s.mu.Unlock()
	<-s.stopped
	<-s.removed
	for {
		select {
		case m := <-s.ahead:
			s.discard(m)
		default:
			return
		}
	}
}

// remove removes a content's files, now or soon: after a kill in between the next start does it. Nobody finds them any more: what they
// hold may be an object already. Called with mu.
func (s *Store) remove(id graveler.ContentID) {
	s.dying[id] = true
	select {
	case <-s.closed:
	case s.removals <- id:
		return
	default:
	}
	s.removeNow(id)
	delete(s.dying, id)
}

func (s *Store) removeOne(id graveler.ContentID) {
	s.removeNow(id)
	s.mu.Lock()
	delete(s.dying, id)
	s.mu.Unlock()
}

// removeLater removes what remove was told of, until the store is closed.
func (s *Store) removeLater() {
	for {
		select {
		case id := <-s.removals:
			s.removeOne(id)
		case <-s.closed:
			for {
				select {
				case id := <-s.removals:
					s.removeOne(id)
				default:
					close(s.removed)
					return
				}
			}
		}
	}
}

func (s *Store) removeNow(id graveler.ContentID) {
	for _, name := range []string{s.path(id), s.path(id) + baseSuffix} {
		if err := os.Remove(name); err != nil && !errors.Is(err, iofs.ErrNotExist) {
			s.opt.Logger.Warn("remove a spill file", "file", name, "err", err)
		}
	}
}
