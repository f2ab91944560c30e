package committed

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

// ExtrasAddress is where a refs dump leaves what lakeFS's format has no place for. lakeFS doesn't read it.
const ExtrasAddress = "_lakefs/lakefsfs_refs.json"

// RefsExtras is what a repository has besides commits, branches and tags.
type RefsExtras struct {
	Of            graveler.RefsManifest `json:"of"` // the dump that it goes with
	DefaultBranch graveler.BranchID     `json:"default_branch"`
	Rules         []graveler.Rule       `json:"rules,omitempty"`
}

// WriteExtras writes what goes with a dump, after it.
func (s *Store) WriteExtras(ctx context.Context, x RefsExtras) error {
	b, err := json.MarshalIndent(x, "", " ")
	if err != nil {
		return err
	}
	_, err = s.objects.Put(ctx, ExtrasAddress, bytes.NewReader(b), object.PutOptions{Size: int64(len(b)), ContentType: "application/json"})
	return err
}

// ReadExtras reads what goes with a dump: nothing if lakeFS, or a version that didn't know them, made it.
func (s *Store) ReadExtras(ctx context.Context, m graveler.RefsManifest) (RefsExtras, error) {
	buf := make([]byte, 4096)
	b, err := readAll(ctx, s.objects, object.Object{Address: ExtrasAddress, Fresh: true}, &buf)
	if errors.Is(err, graveler.NotFound) {
		return RefsExtras{}, nil
	}
	var x RefsExtras
	if err == nil {
		x, err = ParseExtras(b)
	}
	if err != nil {
		return RefsExtras{}, fmt.Errorf("read what goes with the refs dump: %w", err)
	}
	if x.Of != m {
		return RefsExtras{}, nil // another dump came after
	}
	return x, nil
}

// ParseExtras decodes what goes with a dump.
func ParseExtras(b []byte) (RefsExtras, error) {
	var x RefsExtras
	if err := json.Unmarshal(b, &x); err != nil {
		return RefsExtras{}, fmt.Errorf("%s: %v: %w", ExtrasAddress, err, graveler.Corrupt)
	}
	if x.DefaultBranch != "" {
		if err := graveler.ValidateBranchID(x.DefaultBranch); err != nil {
			return RefsExtras{}, fmt.Errorf("%s: %v: %w", ExtrasAddress, err, graveler.Corrupt)
		}
	}
	for _, r := range x.Rules {
		if err := r.Validate(); err != nil {
			return RefsExtras{}, fmt.Errorf("%s: %v: %w", ExtrasAddress, err, graveler.Corrupt)
		}
	}
	return x, nil
}
