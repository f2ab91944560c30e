package object

import (
	"context"
	"errors"
	iofs "io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
)

// listDir yields the files under the directory root whose relative name starts with prefix, in byte order of the names.
func listDir(ctx context.Context, root, prefix string, yield func(Info, error) bool) {
	fi, err := os.Stat(root)
	if errors.Is(err, iofs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || err == nil && !fi.IsDir() {
		return
	}
	if err != nil {
		yield(Info{}, wrap("list", root, err))
		return
	}
	var walk func(rel string) bool
	walk = func(rel string) bool {
		if err := ctx.Err(); err != nil {
			yield(Info{}, wrap("list", rel, err))
			return false
		}
		ents, err := os.ReadDir(filepath.Join(root, filepath.FromSlash(rel)))
		if err != nil && !errors.Is(err, iofs.ErrNotExist) {
			yield(Info{}, wrap("list", rel, err))
			return false
		}
		// Object stores order whole keys: a directory's name counts with its slash.
		names := make([]string, 0, len(ents))
		for _, e := range ents {
			n := e.Name()
			if e.IsDir() {
				n += "/"
			}
			names = append(names, n)
		}
		sort.Strings(names)
		for _, n := range names {
			key := rel + n
			if strings.HasPrefix(n, tempPrefix) {
				continue
			}
			if strings.HasSuffix(n, "/") {
				if (strings.HasPrefix(key, prefix) || strings.HasPrefix(prefix, key)) && !walk(key) {
					return false
				}
				continue
			}
			if !strings.HasPrefix(key, prefix) {
				continue
			}
			fi, err := os.Stat(filepath.Join(root, filepath.FromSlash(key))) // through links
			if errors.Is(err, iofs.ErrNotExist) {
				continue
			}
			if err != nil {
				yield(Info{}, wrap("list", key, err))
				return false
			}
			if !fi.Mode().IsRegular() {
				continue
			}
			if !yield(Info{Address: key, Size: fi.Size(), Modified: fi.ModTime()}, nil) {
				return false
			}
		}
		return true
	}
	walk("")
}
