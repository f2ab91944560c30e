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

// Credentials of the server that S3 starts.
const s3Key, s3Secret = "lakefsfs", "lakefsfs-secret"

// S3 starts an S3 server on loopback, over an empty directory, and returns the URL of an empty bucket for object.Open. The
// server (versitygw) is the program of LAKEFSFS_TEST_S3, or the one on PATH, or that of .tools/bin at the root of the
// repository, where `make deps` puts it. Without one the test fails, or is skipped with -short. The test must not be
// parallel: credentials go by the environment.
func S3(t testing.TB) string {
	t.Helper()
	bin := binary(t, "versitygw", "LAKEFSFS_TEST_S3")
	dir := t.TempDir()
	bucket := "b" + xid.New().String()
	if err := os.Mkdir(filepath.Join(dir, bucket), 0o755); err != nil {
		t.Fatal(err)
	}
	addr := freeAddr(t)
	start(t, bin, "--port", addr, "--access", s3Key, "--secret", s3Secret, "--quiet", "posix", dir)
	t.Setenv("AWS_ACCESS_KEY_ID", s3Key)
	t.Setenv("AWS_SECRET_ACCESS_KEY", s3Secret)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	waitHTTP(t, "http://"+addr)
	q := url.Values{"endpoint": {"http://" + addr}, "region": {"us-east-1"}, "use_path_style": {"true"}}
	return fmt.Sprintf("s3://%s/ns?%s", bucket, q.Encode())
}

// GCS is as S3, for Google's storage: the server (fake-gcs-server, or the program of LAKEFSFS_TEST_GCS) keeps all in memory.
func GCS(t testing.TB) string {
	t.Helper()
	bin := binary(t, "fake-gcs-server", "LAKEFSFS_TEST_GCS")
	addr := freeAddr(t)
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	start(t, bin, "-backend", "memory", "-scheme", "http", "-host", host, "-port", port, "-public-host", addr, "-log-level", "error")
	t.Setenv("STORAGE_EMULATOR_HOST", addr)
	waitHTTP(t, "http://"+addr+"/storage/v1/b?project=p")
	bucket := "b" + xid.New().String()
	resp, err := http.Post("http://"+addr+"/storage/v1/b?project=p", "application/json", strings.NewReader(`{"name":"`+bucket+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("make a bucket: %s", resp.Status)
	}
	return "gs://" + bucket + "/ns"
}

// start runs a server until the test ends.
func start(t testing.TB, bin string, args ...string) {
	t.Helper()
	cmd := exec.Command(bin, args...)
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
				t.Logf("%s: %s", filepath.Base(bin), sc.Text())
			}
		}
	})
}

// binary finds a server's program.
func binary(t testing.TB, name, env string) string {
	t.Helper()
	if bin := os.Getenv(env); bin != "" {
		return bin
	}
	if bin, err := exec.LookPath(name); err == nil {
		return bin
	}
	dir, err := os.Getwd()
	for err == nil {
		if bin := filepath.Join(dir, ".tools", "bin", name); isFile(bin) {
			return bin
		}
		if isFile(filepath.Join(dir, "go.mod")) || dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir)
	}
	if testing.Short() {
		t.Skipf("no %s for this test: run make deps", name)
	}
	t.Fatalf("no %s for this test: run make deps, or set %s to one", name, env)
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
