package replica

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	pb "github.com/lakefsfs/lakefsfs/engine/internal/replica/replicapb"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// What nodes ask each other beside raft: one question at a time on a connection, each and its answer a length (4 bytes) and a message.

// maxPeerMessage bounds a message.
const maxPeerMessage = 64 << 10

func writeMessage(w io.Writer, m proto.Message) error {
	b, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, 4, 128), m)
	if err != nil {
		return err
	}
	if len(b)-4 > maxPeerMessage {
		return fmt.Errorf("a message of %d bytes for a node: %w", len(b)-4, graveler.TooLarge)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	_, err = w.Write(b)
	return err
}

func readMessage(r io.Reader, m proto.Message) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxPeerMessage {
		return fmt.Errorf("a message of %d bytes from a node: %w", n, graveler.TooLarge)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	return proto.Unmarshal(b, m)
}

// servePeer answers another node.
func (n *node) servePeer(c net.Conn) {
	r := bufio.NewReader(c)
	for {
		var q pb.PeerRequest
		if err := readMessage(r, &q); err != nil {
			return
		}
		a := n.answer(&q)
		c.SetWriteDeadline(time.Now().Add(shakeTime))
		if err := writeMessage(c, a); err != nil {
			return
		}
	}
}

func (n *node) answer(q *pb.PeerRequest) *pb.PeerResponse {
	if p := n.r.failed.Load(); p != nil {
		return &pb.PeerResponse{Error: (*p).Error()}
	}
	a := &pb.PeerResponse{}
	switch ask := q.Ask.(type) {
	case *pb.PeerRequest_Confirm:
		// Raft stores a newer term before it votes in it, and shows it here before the vote leaves.
		a.Term = n.raft.CurrentTerm()
	case *pb.PeerRequest_Status:
		a.Term, a.Applied, a.Last = n.raft.CurrentTerm(), n.r.fsm.at.Load(), n.raft.LastIndex()
	case *pb.PeerRequest_Announce:
		if err := n.announced(ask.Announce); err != nil {
			a.Error = err.Error()
		}
		leader, _ := n.raft.LeaderWithID()
		a.Leader = string(leader)
	default:
		a.Error = "a question that this version doesn't know"
	}
	return a
}

// peerConn asks one node, or one address. It is used by one goroutine.
type peerConn struct {
	n    *node
	id   raft.ServerID
	addr string // "": where id is

	c  net.Conn
	r  *bufio.Reader
	at string
}

// call asks. After an error the next one connects anew.
func (p *peerConn) call(ctx context.Context, q *pb.PeerRequest) (*pb.PeerResponse, error) {
	addr := p.addr
	if addr == "" {
		addr = p.n.addressOf(p.id)
	}
	if addr == "" {
		return nil, fmt.Errorf("node %s is no member of the cluster: %w", p.id, graveler.NotFound)
	}
	if p.c != nil && p.at != addr {
		p.close()
	}
	fresh := p.c == nil
	a, err := p.try(ctx, addr, q)
	if err != nil && !fresh && ctx.Err() == nil {
		a, err = p.try(ctx, addr, q) // the other side had closed it since
	}
	if err == nil && a.Error != "" {
		err = fmt.Errorf("node %s at %s: %s: %w", p.id, addr, a.Error, graveler.Unavailable)
	}
	return a, err
}

func (p *peerConn) try(ctx context.Context, addr string, q *pb.PeerRequest) (*pb.PeerResponse, error) {
	if p.c == nil {
		c, err := p.n.net.dial(ctx, addr, speakPeer)
		if err != nil {
			return nil, err
		}
		p.c, p.r, p.at = c, bufio.NewReader(c), addr
	}
	d, _ := ctx.Deadline()
	p.c.SetDeadline(d)
	c := p.c
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	a := &pb.PeerResponse{}
	err := writeMessage(p.c, q)
	if err == nil {
		err = readMessage(p.r, a)
	}
	if err != nil {
		p.close()
		return nil, fmt.Errorf("ask the node at %s: %v: %w", addr, err, graveler.Unavailable)
	}
	return a, nil
}

func (p *peerConn) close() {
	if p.c != nil {
		p.c.Close()
		p.c = nil
	}
}

// ServerAddr is raft.ServerAddressProvider's: a node that has moved is found where it says it is before the configuration knows.
func (n *node) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	n.mu.Lock()
	a, ok := n.moves[id]
	n.mu.Unlock()
	if ok {
		return a, nil
	}
	for _, s := range n.servers() {
		if s.ID == id {
			return s.Address, nil
		}
	}
	return "", errNoMember
}

var errNoMember = errors.New("no member of the cluster")

// addressOf is where a member is reached, "" if it is none.
func (n *node) addressOf(id raft.ServerID) string {
	a, err := n.ServerAddr(id)
	if err != nil {
		return ""
	}
	return string(a)
}
