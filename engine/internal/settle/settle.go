// Package settle turns contents whose last writer closed them into objects: in the background in batches, and at once for who asks.
// Order is what keeps it safe: the bytes are on the object store, durably, before the entries name them; the entries name them
// before the spill file goes. A kill in between leaves an object that nothing names, which garbage collection takes.
package settle

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/spill"
)

// Names is who keeps the entries that name contents.
type Names interface {
	// Stores finds where the objects of contents belong, of those that some entry names.
	Stores(ctx context.Context, ids []graveler.ContentID) (map[graveler.ContentID]*Store, error)
	// Settle is engine.Holders'. The outcome must be known when it returns without an error; after one, it is asked again.
	Settle(ctx context.Context, settled []engine.Settled) error
}

// Store is the object store of a namespace. Contents of one namespace have the same Store.
type Store struct {
	URL     string
	Objects object.Store
}

// Settler settles the contents of a spill store.
type Settler struct {
	names   Names
	spill   *spill.Store
	log     *slog.Logger
	mu      sync.Mutex
	queue   []graveler.ContentID
	queued  map[graveler.ContentID]bool
	wake    chan struct{}
	stop    context.CancelFunc
	ctx     context.Context
	done    chan struct{}
	run     sync.Mutex // one batch at a time
	rested  int        // length of the queue when rest last looked
	started bool
}

const (
	// Batch is how many contents are settled together.
	Batch   = 4096
	uploads = 16
	// named is how many contents are named as objects by one call: the changes of others wait behind it.
	named = 256
	// after is how long a content rests before it is settled in the background: files that are rewritten or removed
	// at once then never become objects.
	after = time.Second
	// late is how long a content rests at most while others come, and full how many do.
	late       = 5 * time.Second
	full       = 50_000
	maxBackoff = 30 * time.Second
)

// New makes a settler. It does nothing on its own before Start.
func New(names Names, sp *spill.Store, log *slog.Logger) *Settler {
	s := &Settler{names: names, spill: sp, log: log, queued: map[graveler.ContentID]bool{}, wake: make(chan struct{}, 1), done: make(chan struct{})}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// Start begins to settle in the background what Add queues.
func (s *Settler) Start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.started {
		s.started = true
		go s.loop()
	}
}

// Add queues a content. It doesn't block.
func (s *Settler) Add(id graveler.ContentID) {
	s.mu.Lock()
	if !s.queued[id] {
		s.queued[id] = true
		s.queue = append(s.queue, id)
	}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Settler) take() []graveler.ContentID {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(len(s.queue), Batch)
	ids := s.queue[:n:n]
	s.queue = s.queue[n:]
	for _, id := range ids {
		delete(s.queued, id)
	}
	return ids
}

func (s *Settler) loop() {
	defer close(s.done)
	backoff := time.Duration(0)
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.wake:
		}
		if !s.rest(backoff) {
			return
		}
		for ids := s.take(); len(ids) > 0; ids = s.take() {
			if err := s.Settle(s.ctx, ids); err != nil && s.ctx.Err() == nil {
				s.log.Warn("upload of written files failed; it is tried again", "files", len(ids), "err", err)
				backoff = min(max(2*backoff, time.Second), maxBackoff)
				for _, id := range ids {
					s.Add(id)
				}
				break
			}
			backoff = 0
		}
	}
}

// rest waits until no file has been closed for a while, or the first one has waited long enough: who writes many files has the machine
// to himself. False if the settler is to stop.
func (s *Settler) rest(backoff time.Duration) bool {
	wait := after + backoff
	for end := time.Now().Add(late + backoff); ; wait = min(after, time.Until(end)) {
		select {
		case <-s.ctx.Done():
			return false
		case <-time.After(wait):
		}
		s.mu.Lock()
		n := len(s.queue)
		fresh := n > s.rested
		s.rested = n
		s.mu.Unlock()
		if !fresh || n >= full || time.Until(end) <= 0 {
			s.rested = 0
			return true
		}
	}
}

// Close settles what is queued until ctx ends, then stops. The rest stays in spill files for the next start.
func (s *Settler) Close(ctx context.Context) {
	s.stop()
	s.mu.Lock()
	started := s.started
	s.started = true
	s.mu.Unlock()
	if started {
		<-s.done
	}
	for ids := s.take(); len(ids) > 0 && ctx.Err() == nil; ids = s.take() {
		if err := s.Settle(ctx, ids); err != nil {
			s.log.Warn("some written files are not uploaded yet; they are kept and uploaded after the next start", "err", err)
			return
		}
	}
}

type one struct {
	st    *spill.Settling
	store *Store
	res   engine.Settled
	named bool // its entries name the object
}

// Settle makes contents objects. Those that are being written, or that nothing names any more, are passed over.
func (s *Settler) Settle(ctx context.Context, ids []graveler.ContentID) error {
	_, err := s.settle(ctx, ids)
	return err
}

func (s *Settler) settle(ctx context.Context, ids []graveler.ContentID) (results []engine.Settled, err error) {
	s.run.Lock()
	defer s.run.Unlock()
	var all []*one
	defer func() {
		for _, o := range all {
			if o.named {
				o.st.Done()
			} else {
				o.st.Abort()
			}
		}
	}()
	stores, err := s.names.Stores(ctx, ids)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		store := stores[id]
		if store == nil {
			continue // nothing names it any more
		}
		st, err := s.spill.BeginSettle(ctx, id)
		if errors.Is(err, graveler.Conflict) || errors.Is(err, graveler.NotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, &one{st: st, store: store})
	}
	if len(all) == 0 {
		return nil, nil
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(uploads)
	for _, o := range all {
		g.Go(func() (err error) {
			o.res, err = upload(gctx, o.store, o.st)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	synced := map[*Store]bool{}
	results = make([]engine.Settled, len(all))
	for i, o := range all {
		if !synced[o.store] {
			synced[o.store] = true
			if err := SyncObjects(ctx, o.store.Objects); err != nil {
				return nil, err
			}
		}
		results[i] = o.res
	}
	// From here on the outcome must be known: a content that may be an object must not be written to again.
	for i := 0; i < len(all); i += named {
		end := min(i+named, len(all))
		if err := s.names.Settle(context.WithoutCancel(ctx), results[i:end]); err != nil {
			return nil, err
		}
		for _, o := range all[i:end] {
			o.named = true
		}
	}
	return results, nil
}

// Secure makes contents objects as Settle does, and takes snapshots of those that are being written. It returns what each became; those
// that nothing names, or that are not here, are left out.
func (s *Settler) Secure(ctx context.Context, ids []graveler.ContentID) ([]engine.Settled, error) {
	results, err := s.settle(ctx, ids)
	if err != nil {
		return nil, err
	}
	have := make(map[graveler.ContentID]bool, len(results))
	for _, r := range results {
		have[r.Content] = true
	}
	var rest []graveler.ContentID
	for _, id := range ids {
		if !have[id] {
			rest = append(rest, id)
		}
	}
	if len(rest) == 0 {
		return results, nil
	}
	stores, err := s.names.Stores(ctx, rest)
	if err != nil {
		return nil, err
	}
	synced := map[*Store]bool{}
	for _, id := range rest {
		store := stores[id]
		if store == nil {
			continue
		}
		res, ok, err := s.snapshot(ctx, store, id)
		if err != nil {
			return nil, err
		}
		if ok {
			synced[store] = true
			results = append(results, res)
		}
	}
	for store := range synced {
		if err := SyncObjects(ctx, store.Objects); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// Snapshot uploads a content as it is now, whoever writes to it. ok is false if it isn't here any more.
func (s *Settler) snapshot(ctx context.Context, store *Store, id graveler.ContentID) (res engine.Settled, ok bool, err error) {
	st, err := s.spill.Snapshot(ctx, id)
	if errors.Is(err, graveler.NotFound) {
		return res, false, nil
	}
	if err != nil {
		return res, false, err
	}
	if res, err = upload(ctx, store, st); err != nil {
		st.Abort()
		return res, false, err
	}
	st.Done()
	res.Snapshot = true
	return res, true, nil
}

// SyncObjects makes what was put on a store of local files durable; other stores have it durable when Put returns.
func SyncObjects(ctx context.Context, st object.Store) error {
	if l, ok := st.(object.Local); ok {
		return l.Sync(ctx)
	}
	return nil
}

// upload makes a still content an object.
func upload(ctx context.Context, store *Store, st *spill.Settling) (engine.Settled, error) {
	if ns, o, etag, ok := st.Object(); ok {
		if ns == store.URL {
			// A copy of a file that nobody wrote to: the object serves both.
			return engine.Settled{Content: st.ID(), Address: o.Address, AddressType: o.Type, Size: st.Size(), ETag: etag, Modified: st.Mtime()}, nil
		}
		if err := st.Complete(ctx); err != nil {
			return engine.Settled{}, err
		}
	}
	res := engine.Settled{Content: st.ID(), Address: object.NewAddress(), AddressType: graveler.AddressRelative, Size: st.Size(), Modified: st.Mtime()}
	if l, ok := store.Objects.(object.Local); ok {
		sum, err := st.MD5()
		if err != nil {
			return res, err
		}
		res.ETag = sum
		return res, l.Adopt(ctx, res.Address, st.Path())
	}
	info, err := store.Objects.Put(ctx, res.Address, st.Reader(), object.PutOptions{Size: st.Size()})
	res.ETag = info.MD5
	return res, err
}
