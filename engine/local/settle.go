package local

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/lakefsfs/lakefsfs/engine/internal/replica"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
	"github.com/lakefsfs/lakefsfs/spill"
)

// settler turns contents whose last writer closed them into objects: in the background in batches, and at once for a commit.
// Order is what keeps it safe: the bytes are on the object store, durably, before the entries name them; the entries name them
// before the spill file goes. A kill in between leaves an object that nothing names, which garbage collection takes.
type settler struct {
	e       *Engine
	mu      sync.Mutex
	queue   []graveler.ContentID
	queued  map[graveler.ContentID]bool
	wake    chan struct{}
	stop    context.CancelFunc
	ctx     context.Context
	done    chan struct{}
	run     sync.Mutex // one batch at a time
	repos   map[graveler.StagingToken]graveler.RepositoryID
	settled []settledAt
	rested  int // length of the queue when rest last looked
}

type settledAt struct {
	id graveler.ContentID
	at time.Time
}

const (
	settleBatch   = 4096
	settleUploads = 16
	// settleNamed is how many contents are named as objects by one command: the commands of others wait behind it.
	settleNamed = 256
	// settleAfter is how long a content rests before it is settled in the background: files that are rewritten or removed
	// at once then never become objects.
	settleAfter = time.Second
	// settleLate is how long a content rests at most while others come, and settleQueue how many do.
	settleLate  = 5 * time.Second
	settleQueue = 50_000
	// settledKept is how long a Stage may still name a settled content as pending.
	settledKept = 10 * time.Minute
	maxBackoff  = 30 * time.Second
	// settlePatience is how long a commit waits for files that are open for writing, before it takes them as they are: the
	// kernel tells of a close after close(2) has returned.
	settlePatience = 100 * time.Millisecond
)

func newSettler(e *Engine) *settler {
	s := &settler{e: e, queued: map[graveler.ContentID]bool{}, wake: make(chan struct{}, 1), done: make(chan struct{})}
	s.ctx, s.stop = context.WithCancel(context.Background())
	go s.loop()
	return s
}

// add queues a content.
func (s *settler) add(id graveler.ContentID) {
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

func (s *settler) take() []graveler.ContentID {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(len(s.queue), settleBatch)
	ids := s.queue[:n:n]
	s.queue = s.queue[n:]
	for _, id := range ids {
		delete(s.queued, id)
	}
	return ids
}

func (s *settler) loop() {
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
			if err := s.settle(s.ctx, ids); err != nil && s.ctx.Err() == nil {
				s.e.log.Warn("upload of written files failed; it is tried again", "files", len(ids), "err", err)
				backoff = min(max(2*backoff, time.Second), maxBackoff)
				for _, id := range ids {
					s.add(id)
				}
				break
			}
			backoff = 0
		}
	}
}

// rest waits until no file has been closed for a while, or the first one has waited long enough: who writes many files has the machine
// to himself. False if the settler is to stop.
func (s *settler) rest(backoff time.Duration) bool {
	wait := settleAfter + backoff
	for end := time.Now().Add(settleLate + backoff); ; wait = min(settleAfter, time.Until(end)) {
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
		if !fresh || n >= settleQueue || time.Until(end) <= 0 {
			s.rested = 0
			return true
		}
	}
}

// close settles what is queued until ctx ends, then stops. The rest stays in spill files for the next start.
func (s *settler) close(ctx context.Context) {
	s.stop()
	<-s.done
	for ids := s.take(); len(ids) > 0 && ctx.Err() == nil; ids = s.take() {
		if err := s.settle(ctx, ids); err != nil {
			s.e.log.Warn("some written files are not uploaded yet; they are kept and uploaded after the next start", "err", err)
			return
		}
	}
}

// settle makes contents objects. Those that are being written, or are gone, are passed over.
func (s *settler) settle(ctx context.Context, ids []graveler.ContentID) error {
	s.run.Lock()
	defer s.run.Unlock()
	type one struct {
		st  *spill.Settling
		sp  *space
		res replica.Settled

		named bool // its entries name the object
	}
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
	spaces, err := s.spacesOf(ctx, ids)
	if err != nil {
		return err
	}
	for _, id := range ids {
		sp := spaces[id]
		if sp == nil {
			continue // no record names it any more
		}
		st, err := s.e.spill.BeginSettle(ctx, id)
		if errors.Is(err, graveler.Conflict) || errors.Is(err, graveler.NotFound) {
			continue
		}
		if err != nil {
			return err
		}
		all = append(all, &one{st: st, sp: sp})
	}
	if len(all) == 0 {
		return nil
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(settleUploads)
	for _, o := range all {
		g.Go(func() (err error) {
			o.res, err = upload(gctx, o.sp, o.st)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	synced := map[*space]bool{}
	results := make([]replica.Settled, len(all))
	for i, o := range all {
		if !synced[o.sp] {
			synced[o.sp] = true
			if err := syncObjects(ctx, o.sp.objects); err != nil {
				return err
			}
		}
		results[i] = o.res
	}
	// From here on the outcome must be known: a content that may be an object must not be written to again.
	forget := s.forget()
	for i := 0; i < len(all); i += settleNamed {
		end := min(i+settleNamed, len(all))
		if err := s.e.rep.Settle(context.WithoutCancel(ctx), results[i:end], forget); err != nil {
			return err
		}
		forget = nil
		now := time.Now()
		for _, o := range all[i:end] {
			o.named = true
			s.settled = append(s.settled, settledAt{o.res.Content, now})
		}
	}
	return nil
}

// forget lists the contents that were settled long ago. Called with run held.
func (s *settler) forget() (ids []graveler.ContentID) {
	for len(s.settled) > 0 && time.Since(s.settled[0].at) > settledKept {
		ids = append(ids, s.settled[0].id)
		s.settled = s.settled[1:]
	}
	return ids
}

// upload makes a still content an object.
func upload(ctx context.Context, sp *space, st *spill.Settling) (replica.Settled, error) {
	objects := sp.objects
	if ns, o, etag, ok := st.Object(); ok {
		if ns == sp.url {
			// A copy of a file that nobody wrote to: the object serves both.
			return replica.Settled{Content: st.ID(), Address: o.Address, AddressType: o.Type, Size: st.Size(), ETag: etag, Modified: st.Mtime()}, nil
		}
		if err := st.Complete(ctx); err != nil {
			return replica.Settled{}, err
		}
	}
	res := replica.Settled{Content: st.ID(), Address: object.NewAddress(), AddressType: graveler.AddressRelative, Size: st.Size(), Modified: st.Mtime()}
	if l, ok := objects.(object.Local); ok {
		sum, err := st.MD5()
		if err != nil {
			return res, err
		}
		res.ETag = sum
		return res, l.Adopt(ctx, res.Address, st.Path())
	}
	info, err := objects.Put(ctx, res.Address, st.Reader(), object.PutOptions{Size: st.Size()})
	res.ETag = info.MD5
	return res, err
}

// spacesOf finds the namespace of each content that some record names.
func (s *settler) spacesOf(ctx context.Context, ids []graveler.ContentID) (map[graveler.ContentID]*space, error) {
	v, err := s.e.rep.View()
	if err != nil {
		return nil, err
	}
	defer v.Close()
	out := make(map[graveler.ContentID]*space, len(ids))
	fresh := false
	for _, id := range ids {
		token, ok, err := v.PendingToken(id)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		repo, known := s.repos[token]
		if !known && !fresh {
			if s.repos, err = tokenRepos(v); err != nil {
				return nil, err
			}
			fresh = true
			repo, known = s.repos[token]
		}
		if !known {
			continue // in a bulk that no branch has adopted yet; it is named elsewhere too, or dropped
		}
		if out[id], err = s.e.spaceOf(ctx, v, repo); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// tokenRepos maps every layer of every branch to its repository.
func tokenRepos(v *replica.View) (map[graveler.StagingToken]graveler.RepositoryID, error) {
	repos, err := v.Repositories()
	if err != nil {
		return nil, err
	}
	out := map[graveler.StagingToken]graveler.RepositoryID{}
	for _, r := range repos {
		err := v.Branches(r.ID, "", func(b graveler.Branch) bool {
			out[b.Token] = r.ID
			for _, t := range b.Sealed {
				out[t] = r.ID
			}
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// settleLayers settles all that is pending in layers. The contents that are still being written are uploaded as they are now,
// and returned by id.
func (e *Engine) settleLayers(ctx context.Context, sp *space, layers []graveler.StagingToken) (map[graveler.ContentID]replica.Settled, []replica.Keep, error) {
	snaps := map[graveler.ContentID]replica.Settled{}
	var keep []replica.Keep
	patience := time.Now().Add(settlePatience)
	for try := 0; ; try++ {
		pending, err := e.pendingOf(layers)
		if err != nil {
			return nil, nil, err
		}
		var ids []graveler.ContentID
		for _, p := range pending {
			if _, ok := snaps[p.Content]; !ok {
				ids = append(ids, p.Content)
			}
		}
		if len(ids) == 0 {
			for _, p := range pending {
				keep = append(keep, replica.Keep{Path: p.Path, Content: p.Content})
			}
			return snaps, keep, nil
		}
		if try == 20 {
			return nil, nil, fmt.Errorf("%d files are opened and closed too fast to commit; try again: %w", len(ids), graveler.Conflict)
		}
		for len(ids) > 0 {
			n := min(len(ids), settleBatch)
			if err := e.settler.settle(ctx, ids[:n]); err != nil {
				return nil, nil, err
			}
			ids = ids[n:]
		}
		if pending, err = e.pendingOf(layers); err != nil {
			return nil, nil, err
		}
		waiting := false
		for _, p := range pending {
			if _, ok := snaps[p.Content]; ok {
				continue
			}
			info, err := e.spill.Stat(p.Content)
			switch {
			case errors.Is(err, graveler.NotFound):
				if named, nerr := e.stillPending(p.Content); nerr != nil || !named {
					continue
				}
				return nil, nil, fmt.Errorf("%q: its bytes are missing from the spill directory; remove or reset the path: %w", p.Path, graveler.Corrupt)
			case err != nil:
				return nil, nil, err
			case info.Writers == 0:
				continue // closed since; the next round settles it
			case time.Now().Before(patience):
				waiting = true
				continue
			}
			st, err := e.spill.Snapshot(ctx, p.Content)
			if errors.Is(err, graveler.NotFound) {
				continue
			}
			if err != nil {
				return nil, nil, err
			}
			res, err := upload(ctx, sp, st)
			if err != nil {
				st.Abort()
				return nil, nil, err
			}
			st.Done()
			snaps[p.Content] = res
		}
		if waiting {
			try-- // it is time that bounds this
			select {
			case <-time.After(time.Millisecond):
			case <-ctx.Done():
				return nil, nil, ctx.Err()
			}
		}
	}
}

func (e *Engine) stillPending(id graveler.ContentID) (bool, error) {
	v, err := e.rep.View()
	if err != nil {
		return false, err
	}
	defer v.Close()
	return v.IsPending(id)
}

func (e *Engine) pendingOf(layers []graveler.StagingToken) (out []replica.Pending, err error) {
	v, err := e.rep.View()
	if err != nil {
		return nil, err
	}
	defer v.Close()
	for _, t := range layers {
		ps, err := v.PendingOf(t)
		if err != nil {
			return nil, err
		}
		out = append(out, ps...)
	}
	return out, nil
}
