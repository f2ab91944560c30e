package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/protobuf/encoding/protowire"
)

// etcd is a cluster of it. Its default configuration, but for addresses.
type etcd struct {
	procs []*exec.Cmd
	conns []*grpc.ClientConn
}

// program finds a program where make puts tools, or on PATH.
func program(name string) (string, error) {
	if here, err := filepath.Abs(filepath.Join(".tools/bin", name)); err == nil {
		if _, err := os.Stat(here); err == nil {
			return here, nil
		}
	}
	return exec.LookPath(name)
}

func startEtcd(ctx context.Context, p *plan, dir string) (_ putter, err error) {
	bin := p.etcd
	if bin == "" {
		if bin, err = program("etcd"); err != nil {
			return nil, fmt.Errorf("%w: run make bench-cluster-peers", err)
		}
	}
	e := &etcd{}
	defer func() {
		if err != nil {
			e.close()
		}
	}()
	ports, err := freePorts(2 * p.nodes)
	if err != nil {
		return nil, err
	}
	var cluster, clients []string
	for i := range p.nodes {
		cluster = append(cluster, fmt.Sprintf("n%d=http://127.0.0.1:%d", i, ports[2*i]))
		clients = append(clients, fmt.Sprintf("127.0.0.1:%d", ports[2*i+1]))
	}
	for i := range p.nodes {
		peer := strings.SplitN(cluster[i], "=", 2)[1]
		cmd := exec.Command(bin, "--name", fmt.Sprint("n", i), "--data-dir", filepath.Join(dir, fmt.Sprint("n", i)), "--log-level", "error",
			"--initial-advertise-peer-urls", peer, "--listen-peer-urls", peer, "--listen-client-urls", "http://"+clients[i], "--advertise-client-urls", "http://"+clients[i],
			"--initial-cluster", strings.Join(cluster, ","), "--initial-cluster-state", "new")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		log, err := os.Create(filepath.Join(dir, fmt.Sprint("n", i, ".log")))
		if err != nil {
			return nil, err
		}
		cmd.Stdout, cmd.Stderr = log, log
		err = cmd.Start()
		log.Close()
		if err != nil {
			return nil, err
		}
		e.procs = append(e.procs, cmd)
	}
	// To the leader, as ours: a follower would hand each put on.
	leader := ""
	for end := time.Now().Add(30 * time.Second); leader == ""; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			return nil, errors.New("etcd has no leader after 30 s")
		}
		for _, c := range clients {
			if leads(ctx, c) {
				leader = c
			}
		}
	}
	for range p.conns {
		c, err := grpc.NewClient(leader, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})))
		if err != nil {
			return nil, err
		}
		e.conns = append(e.conns, c)
	}
	return e, nil
}

// leads asks a node, through its JSON gateway, whether it leads.
func leads(ctx context.Context, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/v3/maintenance/status", strings.NewReader("{}"))
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	var s struct {
		Header struct {
			MemberID string `json:"member_id"`
		} `json:"header"`
		Leader string `json:"leader"`
	}
	return json.NewDecoder(resp.Body).Decode(&s) == nil && s.Leader != "" && s.Leader == s.Header.MemberID
}

// put is etcdserverpb.KV's Put: bytes key = 1, bytes value = 2.
func (e *etcd) put(ctx context.Context, conn int, key string, value []byte) error {
	b := make([]byte, 0, len(key)+len(value)+8)
	b = protowire.AppendString(protowire.AppendTag(b, 1, protowire.BytesType), key)
	b = protowire.AppendBytes(protowire.AppendTag(b, 2, protowire.BytesType), value)
	var resp []byte
	return e.conns[conn].Invoke(ctx, "/etcdserverpb.KV/Put", &b, &resp)
}

func (e *etcd) close() {
	for _, c := range e.conns {
		c.Close()
	}
	for _, p := range e.procs {
		p.Process.Kill()
		p.Wait()
	}
}

// raw is a codec of messages that are encoded already.
type raw struct{}

var _ encoding.Codec = raw{}

func (raw) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (raw) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = bytes.Clone(b)
	return nil
}
func (raw) Name() string { return "proto" }

func freePorts(n int) (ports []int, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
