package cache

import (
	"sync"

	"github.com/lakefsfs/lakefsfs/object"
)

const (
	// maxStreamed is how many objects are watched for sequential readers.
	maxStreamed = 256
	// objectStreams is how many readers of one object are told apart.
	objectStreams = 4
	// slack is how far from where a reader left off it may go on: the kernel's own read-ahead asks out of order.
	slack = chunkBytes
)

// streams finds readers that go through an object.
type streams struct {
	mu sync.Mutex // guards m
	m  map[key][]stream
}

// stream is one reader of an object.
type stream struct {
	next   int64 // where it goes on, if it does
	ahead  int32 // the first chunk that it wasn't run ahead of to
	window int64 // bytes to run ahead by
}

// move notes a read of n bytes at off and returns the chunks to fetch, up to but not including the second. Once a reader went
// on, the window is one chunk, and doubles with each further chunk.
func (s *streams) move(k key, off, n, limit int64) (from, to int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, known := s.m[k]
	for i := range list {
		st := list[i]
		if off < st.next-slack || off > st.next+slack {
			continue
		}
		before := st.next / chunkBytes
		st.next = max(st.next, off+n)
		chunk := st.next / chunkBytes
		if st.window == 0 || chunk > before {
			st.window = min(max(chunkBytes, 2*st.window), limit)
		}
		from = max(st.ahead, int32((st.next+chunkBytes-1)/chunkBytes))
		to = int32((st.next+st.window)/chunkBytes) + 1
		st.ahead = max(st.ahead, to)
		// The readers are kept in order of use.
		copy(list[1:i+1], list[:i])
		list[0] = st
		return from, to
	}
	if !known && len(s.m) >= maxStreamed {
		for old := range s.m { // any: the map's order is random
			delete(s.m, old)
			break
		}
	}
	if s.m == nil {
		s.m = map[key][]stream{}
	}
	if len(list) < objectStreams {
		list = append(list, stream{})
	}
	copy(list[1:], list)
	list[0] = stream{next: off + n}
	s.m[k] = list
	return 0, 0
}

// readAhead starts the fetches that a reader is about to want. Only so many at a time: more would hold up the readers.
func (s *store) readAhead(o object.Object, k key, off, n int64) {
	if s.c.opt.ReadAhead <= 0 {
		return
	}
	from, to := s.ahead.move(k, off, n, s.c.opt.ReadAhead)
	for i := from; i < to && int64(i)*chunkBytes < o.Size; i++ {
		k.index = i
		if s.c.mem.get(k) != nil || s.chunks.busy(k) {
			continue
		}
		select {
		case s.c.ahead <- struct{}{}:
		default:
			return
		}
		s.c.prefetches.Add(1)
		f := s.join(o, k)
		s.wg.Go(func() {
			<-f.done
			<-s.c.ahead
		})
	}
}
