package objecttest

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/xid"
)

// s3Credentials are those of the server that S3 starts.
const s3Key, s3Secret = "lakefsfs", "lakefsfs-secret"

// S3 starts an S3 server on loopback, over an empty directory, and returns the URL of an empty bucket for object.Open. The
// server (versitygw) is the program of LAKEFSFS_TEST_S3, or the one on PATH, or that of .tools/bin at the root of the
// repository, where `make deps` puts it. Without one the test fails, or is skipped with -short. The test must not be
// parallel: credentials go by the environment.
func S3(t testing.TB) string {
	t.Helper()
	bin := s3Binary()
	if bin == "" {
		if testing.Short() {
			t.Skip("no S3 server: run make deps")
		}
		t.Fatal("no S3 server for this test: run make deps, or set LAKEFSFS_TEST_S3 to a versitygw")
	}
	dir := t.TempDir()
	bucket := "b" + xid.New().String()
	if err := os.Mkdir(filepath.Join(dir, bucket), 0o755); err != nil {
		t.Fatal(err)
	}
	addr := freeAddr(t)
	cmd := exec.Command(bin, "--port", addr, "--access", s3Key, "--secret", s3Secret, "--quiet", "posix", dir)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", bin, err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() && out.Len() > 0 {
			sc := bufio.NewScanner(strings.NewReader(out.String()))
			for n := 0; sc.Scan() && n < 20; n++ {
				t.Log("versitygw:", sc.Text())
			}
		}
	})
	t.Setenv("AWS_ACCESS_KEY_ID", s3Key)
	t.Setenv("AWS_SECRET_ACCESS_KEY", s3Secret)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	waitHTTP(t, "http://"+addr)
	q := url.Values{"endpoint": {"http://" + addr}, "region": {"us-east-1"}, "use_path_style": {"true"}}
	return fmt.Sprintf("s3://%s/ns?%s", bucket, q.Encode())
}

func s3Binary() string {
	if bin := os.Getenv("LAKEFSFS_TEST_S3"); bin != "" {
		return bin
	}
	if bin, err := exec.LookPath("versitygw"); err == nil {
		return bin
	}
	dir, err := os.Getwd()
	for err == nil {
		if bin := filepath.Join(dir, ".tools", "bin", "versitygw"); isFile(bin) {
			return bin
		}
		if isFile(filepath.Join(dir, "go.mod")) || dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir)
	}
	return ""
}

func isFile(name string) bool {
	fi, err := os.Stat(name)
	return err == nil && fi.Mode().IsRegular()
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// waitHTTP returns once a server answers at url, whatever it says.
func waitHTTP(t testing.TB, url string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
			http.DefaultClient.CloseIdleConnections()
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the server at %s does not answer", url)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
