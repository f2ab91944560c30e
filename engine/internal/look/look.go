// Package look answers, of anything that a cursor walks, what a file system and its users ask: what lies under a path, and listings
// with a delimiter. It is what engines that read tables themselves have in common.
package look

import (
	"context"
	"fmt"
	"strings"

	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// Below completes f with what c, which may show tombstones, has under path as a directory.
func Below(c graveler.Cursor, path string, f *graveler.Found) error {
	dir := path + "/"
	for ok := c.SeekGE(dir); ok && !f.HasPrefix && strings.HasPrefix(c.Path(), dir); ok = c.Next() {
		ch, err := c.Change()
		if err != nil {
			return err
		}
		if f.HasPrefix = !ch.Remove; f.HasPrefix && ch.Path == dir {
			f.HasMarker, f.Marker = true, ch.Entry
		}
	}
	return c.Err()
}

// List calls each with what a query selects of c, which shows no tombstones, in order. each tells whether what it was given counts
// for the limit, and whether to go on.
func List(ctx context.Context, c graveler.Cursor, q engine.ListQuery, each func(l graveler.Listed) (counts, more bool)) error {
	if q.Delimiter != "" && q.Delimiter != "/" {
		return fmt.Errorf("delimiter %q: only / is known: %w", q.Delimiter, graveler.Invalid)
	}
	start := q.Prefix
	if q.After >= q.Prefix && q.After != "" {
		start = q.After + "\x00"
		if q.Delimiter != "" && len(q.After) > len(q.Prefix) && strings.HasSuffix(q.After, "/") {
			start = beyond(q.After)
		}
	}
	n := 0
	for ok := c.SeekGE(start); ok; {
		if err := ctx.Err(); err != nil {
			return err
		}
		path := c.Path()
		if !strings.HasPrefix(path, q.Prefix) {
			break
		}
		if path == q.Prefix && q.Delimiter != "" {
			ok = c.Next()
			continue
		}
		l := graveler.Listed{Path: path}
		if q.Delimiter != "" {
			if i := strings.Index(path[len(q.Prefix):], "/"); i >= 0 {
				l.Path, l.Prefix = path[:len(q.Prefix)+i+1], true
			}
		}
		if !l.Prefix || l.Path == path {
			ch, err := c.Change()
			if err != nil {
				return err
			}
			l.Entry, l.HasMarker = ch.Entry, l.Prefix
		}
		counts, more := each(l)
		if !more {
			return nil
		}
		if counts {
			if n++; q.Limit > 0 && n == q.Limit {
				return nil
			}
		}
		if l.Prefix {
			ok = c.SeekGE(beyond(l.Path))
		} else {
			ok = c.Next()
		}
	}
	return c.Err()
}

// beyond is the first path after all that start with prefix, which ends in "/".
func beyond(prefix string) string { return prefix[:len(prefix)-1] + "0" }
