package remote

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// Certificate returns a function that gives the certificate and key of two PEM files as they are now: who renews them needs no restart.
// A pair that can't be read keeps the one before it in use.
func Certificate(cert, key string) func() (*tls.Certificate, error) {
	var mu sync.Mutex
	var have *tls.Certificate
	var stamp [2]time.Time
	return func() (*tls.Certificate, error) {
		mu.Lock()
		defer mu.Unlock()
		var now [2]time.Time
		for i, f := range []string{cert, key} {
			if fi, err := os.Stat(f); err == nil {
				now[i] = fi.ModTime()
			}
		}
		if have != nil && now == stamp {
			return have, nil
		}
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			if have != nil {
				return have, nil
			}
			return nil, fmt.Errorf("certificate %s with key %s: %w: %w", cert, key, err, graveler.Invalid)
		}
		have, stamp = &pair, now
		return have, nil
	}
}
