package replica

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/lakefsfs/lakefsfs/engine"
	pb "github.com/lakefsfs/lakefsfs/engine/internal/replica/replicapb"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// Requests are made once: the state keeps what each returned, from the command that decided it on, until the client says that the answer
// has arrived. The clock that ends sessions is the cluster's own: it counts what its leaders' steady clocks measured, so that a jump of a
// machine's clock ends none.
const (
	// sessionTicks is after how many ticks an unused session ends.
	sessionTicks = 144
	// tickEvery is how long a tick is; 144 are a day.
	tickEvery = 10 * time.Minute
	// maxOutcomePaths bounds the paths of a conflict that are kept.
	maxOutcomePaths = 1000
	// pruneFrom is how many answers have to be done with for them to be removed.
	pruneFrom = 64
)

// OpenSession begins a session.
func (r *Replica) OpenSession(ctx context.Context) (engine.SessionID, error) {
	res, err := r.propose(ctx, &pb.Command{Op: &pb.Command_OpenSession{OpenSession: true}})
	return engine.SessionID(res.Index), err
}

// Refuse records that the request of ctx failed before it came to its command. If it is known already the result says so, and is what it
// returned then.
func (r *Replica) Refuse(ctx context.Context, err error) Result {
	res, perr := r.propose(ctx, &pb.Command{Op: &pb.Command_Refuse{Refuse: &pb.Refuse{Outcome: outcomePB(err, nil)}}})
	if perr != nil && !res.Known {
		res.Err = perr
	}
	return res
}

type answerKey struct{}

// WithAnswer has res set when what is proposed under the context turns out to be a request that has its answer.
func WithAnswer(ctx context.Context, res *Result) context.Context {
	return context.WithValue(ctx, answerKey{}, res)
}

// Answered returns what the request of ctx returned, if it is known.
func (v view) Answered(ctx context.Context) (res Result, err error) {
	q := engine.RequestOf(ctx)
	var o pb.Outcome
	if res.Known, err = v.message(outcomeKey(uint64(q.Session), q.Seq), &o); err != nil || !res.Known {
		return res, err
	}
	res.Err, res.Value = outcomeOf(&o), o.Value
	return res, nil
}

// decides reports whether a command is the one whose effect is its request's. The others of a request may be made again.
func decides(cmd *pb.Command) bool {
	switch cmd.Op.(type) {
	case *pb.Command_Seal, *pb.Command_StageBulk, *pb.Command_DropToken, *pb.Command_LoadRefs, *pb.Command_Settle, *pb.Command_ForgetSettled,
		*pb.Command_OpenSession, *pb.Command_Tick, *pb.Command_SetNode, *pb.Command_ForgetNode:
		return false
	}
	return true
}

// request gives a command the request of ctx, and what that returns.
func request(ctx context.Context, cmd *pb.Command) error {
	q := engine.RequestOf(ctx)
	if q.Session == 0 || !decides(cmd) {
		return nil
	}
	if q.Seq == 0 || q.Done >= q.Seq {
		return fmt.Errorf("request %d of a session, of which all up to %d are done: %w", q.Seq, q.Done, graveler.Invalid)
	}
	cmd.Session, cmd.Seq, cmd.Done = uint64(q.Session), q.Seq, q.Done
	cmd.Value, _ = ctx.Value(valueKey{}).([]byte)
	return nil
}

type valueKey struct{}

// WithValue gives what the request of a context returns if it succeeds, for who asks again.
func WithValue(ctx context.Context, value []byte) context.Context {
	if engine.RequestOf(ctx).Session == 0 {
		return ctx
	}
	return context.WithValue(ctx, valueKey{}, value)
}

func outcomePB(err error, value []byte) *pb.Outcome {
	if err == nil {
		return &pb.Outcome{Value: value}
	}
	o := &pb.Outcome{Kind: uint32(graveler.KindOf(err)), Text: strings.ToValidUTF8(err.Error(), "\uFFFD"), Value: value}
	var mc *graveler.MergeConflict
	if errors.As(err, &mc) {
		n := min(len(mc.Paths), maxOutcomePaths)
		for _, p := range mc.Paths[:n] {
			o.Paths = append(o.Paths, []byte(p))
		}
		o.More = mc.More || n < len(mc.Paths)
	}
	if o.Text == "" {
		o.Text = graveler.KindOf(err).Error()
	}
	return o
}

// outcomeOf is the error that was recorded.
func outcomeOf(o *pb.Outcome) error {
	if o.GetText() == "" {
		return nil
	}
	e := &recorded{text: o.Text, kind: graveler.Kind(o.Kind)}
	if len(o.Paths) > 0 {
		mc := &graveler.MergeConflict{More: o.More}
		for _, p := range o.Paths {
			mc.Paths = append(mc.Paths, string(p))
		}
		e.more = mc
	}
	return e
}

// recorded is an error as it was told before.
type recorded struct {
	text string
	kind graveler.Kind
	more error
}

func (e *recorded) Error() string { return e.text }
func (e *recorded) Unwrap() []error {
	if e.more != nil {
		return []error{e.more, e.kind}
	}
	return []error{e.kind}
}

func (v view) clock() (n uint64, err error) {
	_, err = v.get(clockKey, func(b []byte) error {
		if len(b) != 8 {
			return fmt.Errorf("the cluster's clock: %w", graveler.Corrupt)
		}
		n = be(b)
		return nil
	})
	return n, err
}

func (a *applier) openSession() error {
	now, err := a.clock()
	if err != nil {
		return err
	}
	a.res.Index = a.index
	return a.set(sessionKey(a.index), mustMarshal(&pb.Session{Used: now}))
}

// once applies a command of a request, unless that has its answer.
func (a *applier) once(cmd *pb.Command) Result {
	var s pb.Session
	if ok, err := a.message(sessionKey(cmd.Session), &s); err != nil {
		return Result{Err: err}
	} else if !ok {
		return Result{Err: fmt.Errorf("whether its last changes were made has to be looked up: %w", &engine.SessionEnded{Session: engine.SessionID(cmd.Session)})}
	}
	if cmd.Seq == 0 || cmd.Done >= cmd.Seq {
		return Result{Err: fmt.Errorf("request %d of session %d, of which all up to %d are done: %w", cmd.Seq, cmd.Session, cmd.Done, graveler.Invalid)}
	}
	k := outcomeKey(cmd.Session, cmd.Seq)
	var o pb.Outcome
	if ok, err := a.message(k, &o); err != nil {
		return Result{Err: err}
	} else if ok {
		return Result{Known: true, Err: outcomeOf(&o), Value: o.Value}
	}
	if cmd.Seq <= s.Done {
		return Result{Err: fmt.Errorf("request %d of session %d comes late: its answer has arrived, or nobody waits for it: %w", cmd.Seq, cmd.Session, graveler.Stale)}
	}
	res := a.command(cmd)
	err := a.set(k, mustMarshal(outcomePB(res.Err, cmd.Value)))
	if err == nil {
		err = a.use(cmd, &s)
	}
	if err != nil {
		return Result{Err: err}
	}
	return res
}

// use notes that a session was used, and forgets answers that have arrived.
func (a *applier) use(cmd *pb.Command, s *pb.Session) error {
	now, err := a.clock()
	if err != nil {
		return err
	}
	prune := cmd.Done >= s.Done+pruneFrom
	if prune {
		if err := a.b.DeleteRange(outcomeKey(cmd.Session, s.Done), outcomeKey(cmd.Session, cmd.Done+1), nil); err != nil {
			return err
		}
		s.Done = cmd.Done
	}
	if !prune && s.Used == now {
		return nil
	}
	s.Used = now
	return a.set(sessionKey(cmd.Session), mustMarshal(s))
}

// tick moves the clock on, and ends sessions that nobody used for long.
func (a *applier) tick() error {
	now, err := a.clock()
	if err != nil {
		return err
	}
	now++
	if err := a.set(clockKey, binary.BigEndian.AppendUint64(nil, now)); err != nil {
		return err
	}
	var ended []uint64
	var bad error
	err = a.scan([]byte{'o'}, nil, func(k, v []byte) bool {
		var s pb.Session
		if bad = proto.Unmarshal(v, &s); bad != nil || len(k) != 9 {
			bad = fmt.Errorf("a session's record: %w", graveler.Corrupt)
			return false
		}
		if s.Used+sessionTicks <= now {
			ended = append(ended, be(k[1:]))
		}
		return true
	})
	if err = errors.Join(bad, err); err != nil {
		return err
	}
	for _, id := range ended {
		prefix := binary.BigEndian.AppendUint64([]byte{'i'}, id)
		if err := errors.Join(a.del(sessionKey(id)), a.clear(prefix)); err != nil {
			return err
		}
	}
	return nil
}

// tickLoop makes the clock go on while this node leads.
func (r *Replica) tickLoop() {
	defer r.done.Done()
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-t.C:
			if r.node != nil && r.node.leading() == nil || !r.hasSessions() {
				continue
			}
			if _, err := r.propose(context.Background(), &pb.Command{Op: &pb.Command_Tick{Tick: true}}); err != nil {
				r.cfg.Logger.Warn("the cluster's clock", "err", err)
			}
		}
	}
}

// hasSessions reports whether there is a session that could end.
func (r *Replica) hasSessions() (found bool) {
	v, err := r.Peek()
	if err != nil {
		return false
	}
	defer v.Close()
	err = v.scan([]byte{'o'}, nil, func(_, _ []byte) bool { found = true; return false })
	return found && err == nil
}
