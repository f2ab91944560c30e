package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/engine/remote"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/internal/chaos"
)

// ours is a cluster of lakefsfs: a put stages one entry.
type ours struct {
	c     *chaos.Cluster
	conns []*remote.Client
}

const repo = "bench"

func startLakefsfs(ctx context.Context, p *plan, dir string) (_ putter, err error) {
	bin, err := filepath.Abs(p.bin)
	if err != nil {
		return nil, err
	}
	o := &ours{}
	defer func() {
		if err != nil {
			o.close()
		}
	}()
	o.c, err = chaos.New(chaos.Options{Nodes: p.nodes, Dir: dir, Bin: bin, Env: []string{
		"LAKEFSFS_NAMESPACE=file://" + dir + "/objects", "LAKEFSFS_CACHE_MEMORY=268435456",
	}})
	if err != nil {
		return nil, err
	}
	wait, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for i, n := range o.c.Nodes {
		if err := n.Start(); err != nil {
			return nil, err
		}
		if err := chaos.Wait(wait, func() bool { return voters(wait, o.c.Nodes[0]) == i+1 }); err != nil {
			log, _ := os.ReadFile(n.Log)
			return nil, fmt.Errorf("%s doesn't become a voter: %w\n%s", n.Name, err, log[max(0, len(log)-2000):])
		}
	}
	// Each finds the leader with its first call, and stays there.
	for range p.conns {
		c, err := remote.Dial(strings.Join(o.c.Serve(), ","), remote.DialOptions{Insecure: true})
		if err != nil {
			return nil, err
		}
		o.conns = append(o.conns, c)
	}
	_, err = o.conns[0].CreateRepository(ctx, engine.CreateRepository{ID: repo})
	return o, err
}

func voters(ctx context.Context, n *chaos.Node) (count int) {
	c, err := remote.Dial("unix://"+n.Socket, remote.DialOptions{})
	if err != nil {
		return 0
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	ms, err := c.Members(ctx)
	if err != nil {
		return 0
	}
	for _, m := range ms {
		if m.Voter {
			count++
		}
	}
	return count
}

// put stages an entry.
func (o *ours) put(ctx context.Context, conn int, key string, value []byte) error {
	return o.conns[conn].Stage(ctx, repo, "main", []graveler.Change{{Path: key, Entry: entryOf(value)}})
}

// entryOf is an entry whose record is about as long as a value: the value goes into its address and its metadata.
func entryOf(value []byte) graveler.Entry {
	n := min(32, len(value))
	return graveler.Entry{
		Address: "data/" + string(value[:n]), AddressType: graveler.AddressRelative, Size: 4096,
		ETag: "d41d8cd98f00b204e9800998ecf8427e", Modified: time.Now(), Metadata: map[string]string{"x": string(value[n:max(n, len(value)-fixed)])},
	}
}

// profile asks the leader's socket for a profile of its processor time.
func (o *ours) profile(file string, during time.Duration) func() error {
	failed := make(chan error, 1)
	go func() {
		failed <- func() error {
			lead := o.c.Nodes[0] // nobody has taken the lead from it
			cl := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "unix", lead.Socket)
			}}}
			resp, err := cl.Get(fmt.Sprintf("http://x/debug/pprof/profile?seconds=%d", max(1, int(during.Seconds())-1)))
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			f, err := os.Create(file)
			if err != nil {
				return err
			}
			_, err = io.Copy(f, resp.Body)
			return errors.Join(err, f.Close())
		}()
	}()
	return func() error { return <-failed }
}

// fixed is what the other fields of an entry take of its record, in bytes.
const fixed = 52

func (o *ours) close() {
	var errs []error
	for _, c := range o.conns {
		errs = append(errs, c.Close())
	}
	if err := errors.Join(errs...); err != nil {
		fmt.Fprintln(os.Stderr, "cluster: close:", err)
	}
	if o.c != nil {
		o.c.Close()
	}
}
