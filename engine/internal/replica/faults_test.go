package replica

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	pb "github.com/lakefsfs/lakefsfs/engine/internal/replica/replicapb"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// breakLog puts something in the place of the open files of a node's log.
func breakLog(t *testing.T, m *member, what string) {
	t.Helper()
	null, err := os.OpenFile(what, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, fd := range fds {
		to, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err != nil || !strings.HasPrefix(to, filepath.Join(m.dir, "raft")+"/") || !strings.HasSuffix(to, ".log") {
			continue
		}
		num, err := strconv.Atoi(fd.Name())
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Dup3(int(null.Fd()), num, unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n == 0 {
		t.Fatal("the log has no open file")
	}
}

// A node whose disk fails a sync, or a write, stops in words, and acknowledges nothing more; the others go on, and it comes back with a disk
// that is well.
func TestFailingDisk(t *testing.T) {
	// /dev/null takes writes and fails to sync; /dev/full takes none.
	for _, what := range []string{"/dev/null", "/dev/full"} {
		for _, leads := range []bool{true, false} {
			c := newCluster(t, 3)
			c.makeRepo()
			c.stage("before")
			m := c.leader()
			if !leads {
				for _, o := range c.all {
					if o != m {
						m = o
						break
					}
				}
			}
			breakLog(t, m, what)
			acked := 0
			if leads {
				if _, err := m.Stage(t.Context(), "repo", "main", []graveler.Change{put("on the broken one", "x")}); err == nil {
					t.Errorf("%s: a change is acknowledged by a leader whose disk fails", what)
				}
			}
			for i := range 20 {
				c.stage(fmt.Sprint(i))
				acked++
			}
			c.await("it stops", func() bool { return m.failed.Load() != nil })
			// What was written before can't be read there either, so it may be that which is found first.
			if err := *m.failed.Load(); !errors.Is(err, graveler.Unavailable) && !errors.Is(err, graveler.NoSpace) && !errors.Is(err, graveler.Corrupt) {
				t.Errorf("%s: %v", what, err)
			}
			if _, err := m.Stage(t.Context(), "repo", "main", []graveler.Change{put("no", "x")}); err == nil {
				t.Error("a node that has stopped takes a change")
			}
			if _, _, err := m.Begin(t.Context(), true); err == nil {
				t.Error("a node that has stopped answers a read")
			}
			m.Replica.Close() // it has its reasons to complain
			m.Replica = nil
			c.start(m)
			c.stage("after")
			c.same()
			got := staged(t, m.Replica, "t0")
			delete(got, "on the broken one") // it may have got to the others
			if len(got) != acked+2 {
				t.Errorf("%s: %d records, %d were acknowledged", what, len(got), acked+2)
			}
			for _, m := range c.all {
				c.stopNode(m)
			}
		}
	}
}

// A leader that finds an entry of its log damaged, which another node needs, stops in words.
func TestDamagedLog(t *testing.T) {
	c := newCluster(t, 3)
	c.makeRepo()
	l := c.leader()
	far := c.all[0]
	if far == l {
		far = c.all[1]
	}
	c.same()
	c.stopNode(far)
	for i := range 10 {
		c.stage(fmt.Sprintf("mark-%d-mark", i))
	}
	files, err := filepath.Glob(filepath.Join(l.dir, "raft", "*.log"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	hit := false
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if at := bytes.Index(b, []byte("mark-5-mark")); at >= 0 {
			f, err := os.OpenFile(name, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt([]byte("damage"), int64(at)); err != nil {
				t.Fatal(err)
			}
			f.Close()
			hit = true
		}
	}
	if !hit {
		t.Fatal("the entry isn't in the log")
	}
	c.start(far)
	c.await("it stops", func() bool { return l.failed.Load() != nil })
	if err := *l.failed.Load(); !errors.Is(err, graveler.Corrupt) {
		t.Error(err)
	}
	c.await("another one leads", func() bool { return c.leader() != l })
	c.stage("on")
	l.Replica.Close()
	l.Replica = nil
	if _, err := Open(l.cfg); !errors.Is(err, graveler.Corrupt) {
		t.Errorf("a damaged log is opened: %v", err)
	}
}

// A node whose disk is full stays behind, and catches up when there is room. A leader refuses.
func TestClusterNoRoom(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("it needs root, to mount a small disk")
	}
	c := &cluster{t: t, f: newFabric(), dir: t.TempDir()}
	var disks []string
	t.Cleanup(func() {
		for _, m := range c.all {
			if m.Replica != nil {
				os.Remove(filepath.Join(m.dir, "filling"))
				m.Replica.Close()
			}
		}
		for _, dir := range disks {
			unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
	small := func(cfg *Config) {
		if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("none", cfg.Dir, "tmpfs", 0, "size=96m"); err != nil {
			t.Skip("no small disk can be mounted: ", err)
		}
		disks = append(disks, cfg.Dir)
	}
	c.add("n0", func(cfg *Config) { cfg.Cluster.Bootstrap = true; small(cfg) })
	c.join(c.add("n1", small), true)
	c.join(c.add("n2", small), true)
	c.await("all vote", func() bool {
		ms, err := c.leader().Members(t.Context())
		n := 0
		for _, m := range ms {
			if m.Voter {
				n++
			}
		}
		return err == nil && n == 3
	})
	c.makeRepo()
	c.same()
	fill := func(m *member) (free func()) {
		name := filepath.Join(m.dir, "filling")
		f, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := f.Write(make([]byte, 1<<20)); err != nil {
				break
			}
		}
		f.Close()
		return func() {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	l := c.leader()
	m := c.all[0]
	if m == l {
		m = c.all[1]
	}
	free := fill(m)
	at := m.fsm.at.Load()
	for i := range 30 {
		c.stage(fmt.Sprintf("behind %d", i))
		if i == 0 {
			time.Sleep(60 * time.Millisecond) // it looks at its disk now and then; how soon decides nothing
		}
	}
	if m.failed.Load() != nil {
		t.Fatalf("it has stopped: %v", *m.failed.Load())
	}
	if got := m.fsm.at.Load(); got > at+5 {
		t.Errorf("a node without room has applied %d entries", got-at)
	}
	free()
	c.same()
	l = c.leader()
	free = fill(l)
	await(t, "a leader without room refuses", func() bool {
		_, err := l.Stage(t.Context(), "repo", "main", []graveler.Change{put("no room", "x")})
		return errors.Is(err, graveler.NoSpace)
	})
	free()
	c.stage("after")
	c.same()
}

// pki makes certificates.
type pki struct {
	t    testing.TB
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	n    int64
}

func newPKI(t testing.TB) *pki {
	p := &pki{t: t, dir: t.TempDir()}
	var err error
	if p.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &p.key.PublicKey, p.key)
	if err != nil {
		t.Fatal(err)
	}
	if p.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	p.write("ca.pem", "CERTIFICATE", der)
	return p
}

func (p *pki) write(name, kind string, der []byte) string {
	p.t.Helper()
	name = filepath.Join(p.dir, name)
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return name
}

// issue writes a node's files, or writes them anew.
func (p *pki) issue(name string, until time.Duration) *TLSFiles {
	p.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	p.n++
	c := &x509.Certificate{
		SerialNumber: big.NewInt(100 + p.n), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(until),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, p.cert, &key.PublicKey, p.key)
	if err != nil {
		p.t.Fatal(err)
	}
	kb, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		p.t.Fatal(err)
	}
	return &TLSFiles{Cert: p.write(name+".crt", "CERTIFICATE", der), Key: p.write(name+".key", "EC PRIVATE KEY", kb), CA: filepath.Join(p.dir, "ca.pem")}
}

// Nodes speak TLS both ways: who has no certificate of the CA is refused, and certificates are read again when they change.
func TestTLS(t *testing.T) {
	p, other := newPKI(t), newPKI(t)
	c := &cluster{t: t, f: newFabric(), dir: t.TempDir()}
	t.Cleanup(func() {
		for _, m := range c.all {
			if m.Replica != nil {
				m.Replica.Close()
			}
		}
	})
	with := func(files *TLSFiles) func(*Config) {
		return func(cfg *Config) { cfg.Cluster.TLS, cfg.Cluster.Insecure = files, false }
	}
	a := c.add("a", func(cfg *Config) { with(p.issue("a", -time.Minute))(cfg); cfg.Cluster.Bootstrap = true })
	c.makeRepo()
	b := c.add("b", with(p.issue("b", time.Hour)))
	// The certificate of the first one has run out: the second takes no connection of it.
	c.join(b, false)
	c.stage("one")
	time.Sleep(3 * testHeartbeat) // long enough for it to come through, if it could; the test is right without
	if b.fsm.at.Load() != 0 {
		t.Fatal("a node takes what comes with a certificate that has run out")
	}
	p.issue("a", time.Hour) // into the same files
	c.same()
	evil := c.add("evil", with(other.issue("evil", time.Hour)))
	ms, err := evil.Members(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := a.AddMember(t.Context(), ms[0]); err != nil {
		t.Fatal(err)
	}
	c.stage("two")
	await(t, "the others have it", func() bool { return staged(t, b.Replica, "t0")["two"] != "" })
	if evil.fsm.at.Load() != 0 {
		t.Error("a node takes what comes with a certificate of another CA")
	}
	// And the other way: without a certificate nothing is answered.
	for what, conf := range map[string]*tls.Config{
		"no certificate":   {InsecureSkipVerify: true},
		"another CA's own": evil.node.net.tls.client("127.0.0.1"),
	} {
		conf.InsecureSkipVerify = true
		conn, err := tls.Dial("tcp", a.addr, conf)
		if err != nil {
			continue
		}
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		conn.Write([]byte{speakPeer})
		writeMessage(conn, &pb.PeerRequest{Ask: &pb.PeerRequest_Status{Status: true}})
		var resp pb.PeerResponse
		if err := readMessage(conn, &resp); err == nil {
			t.Errorf("%s: a node answers", what)
		}
		conn.Close()
	}
	plain, err := net.Dial("tcp", a.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	plain.SetDeadline(time.Now().Add(20 * time.Second))
	plain.Write([]byte{speakPeer})
	writeMessage(plain, &pb.PeerRequest{Ask: &pb.PeerRequest_Status{Status: true}})
	if b, err := io.ReadAll(plain); err == nil && bytes.Contains(b, []byte{0, 0, 0}) && len(b) > 64 {
		t.Errorf("a node answers in the clear: %q", b)
	}
}

// What is not safe is refused at the start.
func TestClusterConfig(t *testing.T) {
	for what, c := range map[string]ClusterConfig{
		"no TLS":               {Listen: "127.0.0.1:0"},
		"plain on an address":  {Listen: "192.0.2.1:7000", Insecure: true},
		"plain on all":         {Listen: ":7000", Advertise: "h:7000", Insecure: true},
		"no port":              {Listen: "127.0.0.1", Insecure: true},
		"nobody finds it":      {Listen: "0.0.0.0:7000", TLS: &TLSFiles{}},
		"a short heartbeat":    {Listen: "127.0.0.1:0", Insecure: true, Heartbeat: time.Millisecond},
		"dead after no time":   {Listen: "127.0.0.1:0", Insecure: true, RemoveDead: time.Second},
		"files that are not":   {Listen: "127.0.0.1:0", TLS: &TLSFiles{Cert: "/nowhere", Key: "/nowhere", CA: "/nowhere"}},
		"an address with text": {Listen: "127.0.0.1:0", Advertise: "not an address", Insecure: true},
	} {
		c.Bootstrap = true
		r, err := Open(Config{Dir: t.TempDir(), Cluster: &c})
		if !errors.Is(err, graveler.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
		if err == nil {
			r.Close()
		}
	}
}

func FuzzPeerMessage(f *testing.F) {
	var b bytes.Buffer
	if err := writeMessage(&b, &pb.PeerRequest{Ask: &pb.PeerRequest_Announce{Announce: &pb.Node{Id: "a", Peer: "h:1"}}}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		var q pb.PeerRequest
		if err := readMessage(bytes.NewReader(data), &q); err != nil {
			return
		}
		if rec := q.GetAnnounce(); rec != nil && checkRecord(rec) == nil && (rec.Id == "" || len(rec.Peer) > 256) {
			t.Errorf("a record that is none: %v", rec)
		}
		var again bytes.Buffer
		if err := writeMessage(&again, &q); err != nil {
			t.Fatal(err)
		}
	})
}
