package daemon

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/lakefsfs/lakefsfs/control"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/nfs"
	"github.com/lakefsfs/lakefsfs/vfs"
)

// NFSConfig says where NFS clients are answered.
type NFSConfig struct {
	Listen      string `mapstructure:"listen" doc:"address and port that NFS clients connect to; empty is none"`
	Key         string `mapstructure:"key" doc:"64 hex digits that file handles are made with; empty makes one in DATA/nfs.key. Nodes that clients may take for one another need the same"`
	Connections int    `mapstructure:"connections" doc:"connections at a time"`
	Memory      int64  `mapstructure:"memory" doc:"bytes of calls and replies that carry data, at a time"`
	Nodes       int    `mapstructure:"nodes" doc:"files that are kept in memory for clients"`
}

// ExportConfig is one export.
type ExportConfig struct {
	Path     string   `mapstructure:"path" doc:"what clients may mount: /, /repo or /repo/@ref"`
	ReadOnly bool     `mapstructure:"read_only" doc:"refuse all changes"`
	Networks []string `mapstructure:"networks" doc:"addresses and networks of the clients that are let in; empty is all"`
	Squash   string   `mapstructure:"squash" doc:"whose word for who asks is not taken: root, all or none; empty is root"`
	AnonUID  *uint32  `mapstructure:"anon_uid" doc:"who is squashed; 65534 if not given"`
	AnonGID  *uint32  `mapstructure:"anon_gid" doc:"the same of groups"`
	UIDMap   []string `mapstructure:"uid_map" doc:"client:here, what a client's uid means here"`
	GIDMap   []string `mapstructure:"gid_map" doc:"the same of groups"`
	Async    bool     `mapstructure:"async" doc:"answer changes of names before they survive a power cut"`
}

var squashes = map[string]nfs.Squash{"": nfs.SquashRoot, "root": nfs.SquashRoot, "all": nfs.SquashAll, "none": nfs.SquashNone}

// export reads an export's texts.
func (c *ExportConfig) export() (nfs.Export, error) {
	bad := func(key, why string) (nfs.Export, error) {
		return nfs.Export{}, fmt.Errorf("%s %s: %w", key, why, graveler.Invalid)
	}
	e := nfs.Export{Path: c.Path, ReadOnly: c.ReadOnly, AnonUID: nfs.Anonymous, AnonGID: nfs.Anonymous, Async: c.Async}
	if _, err := nfs.ParseExportPath(c.Path); err != nil {
		return e, err
	}
	for _, n := range c.Networks {
		p, err := netip.ParsePrefix(n)
		if err != nil {
			a, aerr := netip.ParseAddr(n)
			if aerr != nil {
				return bad("networks", fmt.Sprintf("has %q, which is neither an address nor a network such as 10.0.0.0/8", n))
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		e.Networks = append(e.Networks, p.Masked())
	}
	var ok bool
	if e.Squash, ok = squashes[c.Squash]; !ok {
		return bad("squash", fmt.Sprintf("is %q; give root, all or none", c.Squash))
	}
	if c.AnonUID != nil {
		e.AnonUID = *c.AnonUID
	}
	if c.AnonGID != nil {
		e.AnonGID = *c.AnonGID
	}
	var err error
	if e.UIDs, err = parseMap(c.UIDMap); err != nil {
		return bad("uid_map", err.Error())
	}
	if e.GIDs, err = parseMap(c.GIDMap); err != nil {
		return bad("gid_map", err.Error())
	}
	return e, nil
}

func parseMap(list []string) (map[uint32]uint32, error) {
	out := map[uint32]uint32{}
	for _, s := range list {
		a, b, ok := strings.Cut(s, ":")
		from, err1 := strconv.ParseUint(a, 10, 32)
		to, err2 := strconv.ParseUint(b, 10, 32)
		if !ok || err1 != nil || err2 != nil {
			return nil, fmt.Errorf("has %q; write it as client:here, two numbers", s)
		}
		out[uint32(from)] = uint32(to)
	}
	return out, nil
}

func (c *Config) validateNFS() error {
	bad := func(key, why string) error { return fmt.Errorf("configuration: %s %s: %w", key, why, graveler.Invalid) }
	if c.NFS.Listen == "" && len(c.Exports) > 0 {
		return bad("nfs.listen", "is empty, so nobody could reach the exports; give an address such as 127.0.0.1:2049")
	}
	if c.NFS.Listen != "" {
		if len(c.Exports) == 0 {
			return bad("exports", "are none, so there is nothing to serve at nfs.listen; name one, such as path: /")
		}
		if _, _, err := net.SplitHostPort(c.NFS.Listen); err != nil {
			return bad("nfs.listen", fmt.Sprintf("%q is not address:port", c.NFS.Listen))
		}
	}
	if c.NFS.Key != "" {
		if k, err := hex.DecodeString(c.NFS.Key); err != nil || len(k) != nfs.KeySize {
			return bad("nfs.key", fmt.Sprintf("is not %d hex digits", 2*nfs.KeySize))
		}
	}
	if c.NFS.Connections < 1 {
		return bad("nfs.connections", "is less than 1")
	}
	if c.NFS.Nodes < 1000 {
		return bad("nfs.nodes", "is less than 1000")
	}
	if c.NFS.Memory < 64<<20 {
		return bad("nfs.memory", fmt.Sprintf("is %d bytes; give at least 64 MiB", c.NFS.Memory))
	}
	for i := range c.Exports {
		if _, err := c.Exports[i].export(); err != nil {
			return fmt.Errorf("configuration: exports[%d]: %w", i, err)
		}
	}
	return nil
}

// nfsKey is the key that file handles are made with: the configuration's, or one that is made once and kept with the data.
func (c *Config) nfsKey() ([]byte, error) {
	text := c.NFS.Key
	path := filepath.Join(c.Data, "nfs.key")
	if text == "" {
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return makeKey(path)
		}
		if err != nil {
			return nil, fmt.Errorf("key of NFS file handles: %w", err)
		}
		text = strings.TrimSpace(string(b))
	}
	key, err := hex.DecodeString(text)
	if err != nil || len(key) != nfs.KeySize {
		return nil, fmt.Errorf("key of NFS file handles: %s doesn't hold %d hex digits; without it, clients have to mount again: %w", path, 2*nfs.KeySize, graveler.Corrupt)
	}
	return key, nil
}

func makeKey(path string) ([]byte, error) {
	key := make([]byte, nfs.KeySize)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("key of NFS file handles: %w", err)
	}
	// Under another name first: half of a key would be none.
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err == nil {
		_, err = fmt.Fprintf(f, "%x\n", key)
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return nil, fmt.Errorf("key of NFS file handles: %w", err)
	}
	return key, nil
}

// ExportInfo is one export that is served.
type ExportInfo struct {
	Path     string `json:"path"`
	ReadOnly bool   `json:"read_only"`
	Address  string `json:"address"`
}

// serveNFS begins to answer NFS clients, if the configuration says so.
func (d *Daemon) serveNFS(ctx context.Context) error {
	c := &d.cfg
	if c.NFS.Listen == "" {
		return nil
	}
	key, err := c.nfsKey()
	if err != nil {
		return err
	}
	cfg := nfs.Config{Key: key, Data: c.Data, Logger: d.log, Connections: c.NFS.Connections, Memory: c.NFS.Memory, Nodes: c.NFS.Nodes, VFS: vfs.Config{
		Engine: d.meta.front, Spill: d.meta.spill, Elsewhere: d.meta.far, Keep: d.meta.keep, Control: control.New(d.meta.front), Locks: d.locks,
		ReadAhead: min(c.Cache.ReadAhead, c.Cache.Memory/8),
		UID:       uint32(os.Getuid()), GID: uint32(os.Getgid()), Logger: d.log,
	}}
	for i := range c.Exports {
		e, err := c.Exports[i].export()
		if err != nil {
			return err
		}
		cfg.Exports = append(cfg.Exports, e)
	}
	lis, err := net.Listen("tcp", c.NFS.Listen)
	if err != nil {
		return fmt.Errorf("nfs: listen: %v: %w", err, graveler.Unavailable)
	}
	if d.nfs, err = nfs.New(ctx, cfg); err != nil {
		lis.Close()
		return err
	}
	d.nfsAddr = lis.Addr().String()
	for _, e := range cfg.Exports {
		d.log.Info("exported", "path", e.Path, "address", d.nfsAddr, "read_only", e.ReadOnly)
	}
	go func() {
		if err := d.nfs.Serve(lis); err != nil {
			d.log.Error("nfs", "err", err)
		}
	}()
	return nil
}

// Exports lists what is exported.
func (d *Daemon) Exports() []ExportInfo {
	out := []ExportInfo{}
	if d.nfs != nil {
		for _, e := range d.nfs.Exports() {
			out = append(out, ExportInfo{e.Path, e.ReadOnly, d.nfsAddr})
		}
	}
	return out
}
