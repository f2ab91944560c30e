package committed

import (
	"errors"
	"testing"

	"github.com/lakefsfs/lakefsfs/graveler"
)

func FuzzExtras(f *testing.F) {
	f.Add([]byte(`{"of":{},"default_branch":"main","rules":[{"pattern":"a*","block":["staging"]}]}`))
	f.Add([]byte(`{"rules":[{"pattern":"[","block":[]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := ParseExtras(b)
		if err != nil {
			if !errors.Is(err, graveler.Corrupt) {
				t.Fatal(err)
			}
			return
		}
		for _, r := range x.Rules {
			if err := r.Validate(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
