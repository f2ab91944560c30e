package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"github.com/lakefsfs/lakefsfs/control"
	"github.com/lakefsfs/lakefsfs/engine"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

func (a *app) lsCmd() *cobra.Command {
	var recursive, long bool
	c := cmd("ls [PLACE]", "list repositories, refs or entries", between(0, 1), func(ctx context.Context, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		p, err := a.place(ctx, args)
		if err != nil {
			return err
		}
		if p.Ref == "" {
			bs, err := c.ListBranches(ctx, p.Repo, engine.RefQuery{})
			if err != nil {
				return err
			}
			ts, err := c.ListTags(ctx, p.Repo, engine.RefQuery{})
			if err != nil {
				return err
			}
			names := []string{}
			for _, b := range bs {
				names = append(names, "@"+string(b.ID))
			}
			for _, t := range ts {
				names = append(names, "@"+string(t.ID))
			}
			if a.json {
				return a.printJSON(names)
			}
			for _, n := range names {
				fmt.Fprintln(a.out, n)
			}
			return nil
		}
		q := engine.ListQuery{Delimiter: "/"}
		if recursive {
			q.Delimiter = ""
		}
		if dir := strings.TrimSuffix(p.Path, "/"); dir != "" {
			f, err := c.Lookup(ctx, p.Repo, p.Ref, dir)
			if err != nil {
				return err
			}
			if f.HasObject && !f.HasPrefix {
				if a.json {
					return a.printJSON([]control.Entry{control.EntryOf(dir, f.Object)})
				}
				return a.printEntry(dir, f.Object, long)
			}
			if !f.HasPrefix {
				return fmt.Errorf("%s: %w", p, graveler.NotFound)
			}
			q.Prefix = dir + "/"
		}
		out := []control.Entry{}
		for l, err := range c.List(ctx, p.Repo, p.Ref, q) {
			if err != nil {
				return err
			}
			name := l.Path[len(q.Prefix):]
			if a.json {
				e := control.EntryOf(l.Path, l.Entry)
				if l.Prefix {
					e.Type = "directory"
				}
				out = append(out, e)
				continue
			}
			if err := a.printEntry(name, l.Entry, long); err != nil {
				return err
			}
		}
		if a.json {
			return a.printJSON(out)
		}
		return nil
	})
	c.Flags().BoolVarP(&recursive, "recursive", "r", false, "everything below too")
	c.Flags().BoolVarP(&long, "long", "l", false, "with size and time")
	return c
}

func (a *app) printEntry(name string, e graveler.Entry, long bool) error {
	if !long {
		_, err := fmt.Fprintln(a.out, name)
		return err
	}
	when := "-"
	if t := e.Mtime(); !t.IsZero() {
		when = t.UTC().Format("2006-01-02 15:04:05")
	}
	_, err := fmt.Fprintf(a.out, "%12d  %-19s  %s\n", e.Size, when, name)
	return err
}

// copyOut writes an entry's bytes to w.
func copyOut(ctx context.Context, c engine.Engine, p graveler.Place, e graveler.Entry, w io.Writer) error {
	buf := make([]byte, 4<<20)
	for off, try := int64(0), 0; ; {
		st, err := c.Objects(ctx, p.Repo)
		if err != nil {
			return err
		}
		n, err := st.ReadAt(ctx, engine.ObjectOf(&e), buf, off)
		if e.Pending != "" && errors.Is(err, graveler.NotFound) && try < 5 {
			try++ // settled in between
			if e, err = c.Stat(ctx, p.Repo, p.Ref, p.Path); err != nil {
				return err
			}
			continue
		}
		if _, werr := w.Write(buf[:n]); werr != nil {
			return werr
		}
		off += int64(n)
		if err == io.EOF || err == nil && e.Pending == "" && off >= e.Size {
			return nil
		}
		if errors.Is(err, graveler.NotFound) {
			return fmt.Errorf("%s: object %s is missing from the object store: %w", p, e.Address, graveler.Corrupt)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
}

func (a *app) catCmd() *cobra.Command {
	return cmd("cat PLACE...", "write files to standard output", between(1, -1), func(ctx context.Context, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		for _, arg := range args {
			p, err := a.refPlace(ctx, []string{arg})
			if err != nil {
				return err
			}
			e, err := c.Stat(ctx, p.Repo, p.Ref, p.Path)
			if err != nil {
				return err
			}
			if err := copyOut(ctx, c, p, e, a.out); err != nil {
				return err
			}
		}
		return nil
	})
}

func (a *app) statCmd() *cobra.Command {
	return cmd("stat PLACE", "show an entry", between(0, 1), func(ctx context.Context, args []string) error {
		p, err := a.refPlace(ctx, args)
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		e, err := c.Stat(ctx, p.Repo, p.Ref, p.Path)
		kind := "object"
		if errors.Is(err, graveler.NotFound) {
			f, lerr := c.Lookup(ctx, p.Repo, p.Ref, strings.TrimSuffix(p.Path, "/"))
			if lerr != nil {
				return lerr
			}
			if f.HasPrefix {
				e, kind, err = f.Marker, "directory", nil
			}
		}
		if err != nil {
			return err
		}
		j := control.EntryOf(p.Path, e)
		j.Type = kind
		if a.json {
			return a.printJSON(j)
		}
		fmt.Fprintf(a.out, "path     %s\ntype     %s\nsize     %d\nchecksum %s\naddress  %s\nmtime    %s\n", p.Path, kind, e.Size, e.ETag, e.Address, j.Mtime.Format(time.RFC3339Nano))
		for k, v := range e.Metadata {
			fmt.Fprintf(a.out, "meta     %s=%s\n", k, v)
		}
		return nil
	})
}

// progress shows on a terminal how far a long command is.
type progress struct {
	on    bool
	start time.Time
	last  time.Time
	files int64
	bytes int64
}

func (a *app) progress() *progress {
	return &progress{on: !a.quiet && !a.json && term.IsTerminal(int(os.Stderr.Fd())), start: time.Now()}
}

func (p *progress) show() {
	if !p.on || time.Since(p.last) < 100*time.Millisecond {
		return
	}
	p.last = time.Now()
	s := time.Since(p.start).Seconds()
	fmt.Fprintf(os.Stderr, "\r\033[K%d files, %.1f MiB, %.1f MiB/s", p.files, float64(p.bytes)/(1<<20), float64(p.bytes)/(1<<20)/max(s, 0.001))
}

func (p *progress) end() {
	if p.on && !p.last.IsZero() {
		fmt.Fprint(os.Stderr, "\r\033[K")
	}
}

func isPlace(s string) bool {
	if strings.HasPrefix(s, "lakefs://") {
		return true
	}
	p, err := graveler.ParsePlace(s)
	return err == nil && p.Ref != ""
}

func (a *app) cpCmd() *cobra.Command {
	var recursive bool
	c := cmd("cp SOURCE... DEST", "copy files between this machine and a branch, or within a repository without moving bytes", between(2, -1), func(ctx context.Context, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		dest := args[len(args)-1]
		p := a.progress()
		defer p.end()
		for _, src := range args[:len(args)-1] {
			cp := copier{a: a, c: c, p: p, recursive: recursive}
			switch {
			case isPlace(src) && isPlace(dest):
				err = cp.within(ctx, src, dest)
			case isPlace(src):
				err = cp.download(ctx, src, dest)
			case isPlace(dest):
				err = cp.upload(ctx, src, dest, len(args) > 2)
			default:
				err = usagef("cp %s %s: one of them must be a place, as repo/@ref/path", src, dest)
			}
			if err != nil {
				return err
			}
		}
		p.end()
		a.say("%d files, %d bytes", p.files, p.bytes)
		return nil
	})
	c.Flags().BoolVarP(&recursive, "recursive", "r", false, "directories with all that is in them")
	return c
}

type copier struct {
	a         *app
	c         engine.Engine
	p         *progress
	recursive bool
}

// target is where a file named base goes: into dest if that is a directory.
func (cp *copier) target(ctx context.Context, d graveler.Place, base string, dir bool) (string, error) {
	to := strings.TrimSuffix(d.Path, "/")
	if to == "" || dir || strings.HasSuffix(d.Path, "/") {
		return strings.TrimPrefix(to+"/"+base, "/"), nil
	}
	f, err := cp.c.Lookup(ctx, d.Repo, d.Ref, to)
	if err == nil && f.HasPrefix {
		to += "/" + base
	}
	return to, err
}

func (cp *copier) upload(ctx context.Context, src, dest string, dir bool) error {
	d, err := cp.a.refPlace(ctx, []string{dest})
	if err != nil {
		return err
	}
	fi, err := os.Stat(src)
	if err != nil {
		return err
	}
	if fi.IsDir() && !cp.recursive {
		return usagef("%s is a directory: copy it with -r", src)
	}
	to, err := cp.target(ctx, d, filepath.Base(filepath.Clean(src)), dir)
	if err != nil {
		return err
	}
	st, err := cp.c.Objects(ctx, d.Repo)
	if err != nil {
		return err
	}
	var changes []graveler.Change
	flush := func() error {
		err := cp.c.Stage(ctx, d.Repo, graveler.BranchID(d.Ref), changes)
		changes = nil
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	out := make(chan graveler.Change, 64)
	walked := make(chan error, 1)
	go func() {
		err := filepath.WalkDir(src, func(name string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(src, name)
			if err != nil {
				return err
			}
			key := to
			if rel != "." {
				key = path.Join(to, filepath.ToSlash(rel))
			}
			g.Go(func() error {
				c, err := put(gctx, st, name, key)
				if err == nil && c != nil {
					select {
					case out <- *c:
					case <-gctx.Done():
						err = gctx.Err()
					}
				}
				return err
			})
			return gctx.Err()
		})
		gerr := g.Wait()
		if gerr != nil {
			err = gerr
		}
		close(out)
		walked <- err
	}()
	for c := range out {
		changes = append(changes, c)
		cp.p.files++
		cp.p.bytes += c.Entry.Size
		cp.p.show()
		if len(changes) == 1000 {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := <-walked; err != nil {
		return err
	}
	return flush()
}

// put uploads one file, link or directory and returns its change.
func put(ctx context.Context, st object.Store, name, key string) (*graveler.Change, error) {
	fi, err := os.Lstat(name)
	if err != nil {
		return nil, err
	}
	uid, gid := owner(fi)
	e := graveler.Entry{AddressType: graveler.AddressRelative, Metadata: map[string]string{
		graveler.MetaPermissions: graveler.Permissions{UID: uid, GID: gid, Mode: fi.Mode()}.String(),
	}}
	e.SetMtime(fi.ModTime())
	switch {
	case fi.IsDir():
		key += "/"
		e.ETag = emptyMD5
	case fi.Mode()&fs.ModeSymlink != 0:
		t, err := os.Readlink(name)
		if err != nil {
			return nil, err
		}
		e.Metadata[graveler.MetaSymlink], e.ETag = t, emptyMD5
	case fi.Mode().IsRegular():
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		e.Address = object.NewAddress()
		info, err := st.Put(ctx, e.Address, f, object.PutOptions{Size: -1})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		e.Size, e.ETag = info.Size, info.MD5
	default:
		return nil, nil // pipes, sockets and devices have nothing to copy
	}
	return &graveler.Change{Path: key, Entry: e}, nil
}

const emptyMD5 = "d41d8cd98f00b204e9800998ecf8427e"

// each calls f for every entry of a place: the object, or all under the directory.
func (cp *copier) each(ctx context.Context, s graveler.Place, f func(rel string, e graveler.Entry) error) error {
	dir := strings.TrimSuffix(s.Path, "/")
	found := graveler.Found{HasPrefix: true}
	if dir != "" {
		var err error
		if found, err = cp.c.Lookup(ctx, s.Repo, s.Ref, dir); err != nil {
			return err
		}
	}
	switch {
	case !found.HasPrefix && !found.HasObject:
		return fmt.Errorf("%s: %w", s, graveler.NotFound)
	case !found.HasPrefix:
		return f("", found.Object)
	case !cp.recursive:
		return usagef("%s is a directory: use -r", s)
	}
	prefix := dir
	if prefix != "" {
		prefix += "/"
	}
	for l, err := range cp.c.List(ctx, s.Repo, s.Ref, engine.ListQuery{Prefix: prefix}) {
		if err != nil {
			return err
		}
		if rel := l.Path[len(prefix):]; rel != "" {
			if err := f(rel, l.Entry); err != nil {
				return err
			}
		}
	}
	return nil
}

func (cp *copier) within(ctx context.Context, src, dest string) error {
	s, err := cp.a.refPlace(ctx, []string{src})
	if err != nil {
		return err
	}
	d, err := cp.a.refPlace(ctx, []string{dest})
	if err != nil {
		return err
	}
	if s.Repo != d.Repo {
		return usagef("cp between two repositories, %s and %s: copy by way of a directory", s.Repo, d.Repo)
	}
	to, err := cp.target(ctx, d, path.Base(strings.TrimSuffix(s.Path, "/")), false)
	if err != nil {
		return err
	}
	var changes []graveler.Change
	err = cp.each(ctx, s, func(rel string, e graveler.Entry) error {
		key := to
		if rel != "" {
			key = strings.TrimPrefix(to+"/"+rel, "/")
		}
		changes = append(changes, graveler.Change{Path: key, Entry: e})
		cp.p.files++
		cp.p.bytes += e.Size
		return nil
	})
	if err != nil {
		return err
	}
	return cp.c.Stage(ctx, d.Repo, graveler.BranchID(d.Ref), changes)
}

func (cp *copier) download(ctx context.Context, src, dest string) error {
	s, err := cp.a.refPlace(ctx, []string{src})
	if err != nil {
		return err
	}
	if dest == "-" {
		return usagef("use cat to write to standard output")
	}
	if fi, err := os.Stat(dest); err == nil && fi.IsDir() && s.Path != "" {
		dest = filepath.Join(dest, path.Base(strings.TrimSuffix(s.Path, "/")))
	}
	return cp.each(ctx, s, func(rel string, e graveler.Entry) error {
		if rel != "" && !filepath.IsLocal(filepath.FromSlash(rel)) {
			return fmt.Errorf("%q can't be a file's name here: %w", rel, graveler.Invalid)
		}
		name := filepath.Join(dest, filepath.FromSlash(rel))
		if strings.HasSuffix(rel, "/") {
			return os.MkdirAll(name, 0o755)
		}
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if t, ok := e.Metadata[graveler.MetaSymlink]; ok {
			return os.Symlink(t, name)
		}
		mode := fs.FileMode(0o644)
		if p, err := graveler.ParsePermissions(e.Metadata[graveler.MetaPermissions]); err == nil {
			mode = p.Mode.Perm()
		}
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
		if err != nil {
			return err
		}
		full := s
		if rel != "" {
			full.Path = strings.TrimPrefix(strings.TrimSuffix(s.Path, "/")+"/"+rel, "/")
		}
		err = copyOut(ctx, cp.c, full, e, f)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err == nil {
			err = os.Chtimes(name, time.Time{}, e.Mtime())
		}
		cp.p.files++
		cp.p.bytes += e.Size
		cp.p.show()
		return err
	})
}

func (a *app) rmCmd() *cobra.Command {
	var recursive bool
	c := cmd("rm PLACE...", "remove files from a branch", between(1, -1), func(ctx context.Context, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		for _, arg := range args {
			p, err := a.refPlace(ctx, []string{arg})
			if err != nil {
				return err
			}
			if p.Path == "" {
				return usagef("%s is a whole branch; remove it with branch delete, or name a path", p)
			}
			cp := copier{a: a, c: c, recursive: recursive}
			dir := strings.TrimSuffix(p.Path, "/")
			f, err := c.Lookup(ctx, p.Repo, p.Ref, dir)
			if err != nil {
				return err
			}
			var changes []graveler.Change
			if f.HasObject {
				changes = append(changes, graveler.Change{Path: dir, Remove: true})
			}
			if f.HasMarker {
				changes = append(changes, graveler.Change{Path: dir + "/", Remove: true})
			}
			err = cp.each(ctx, p, func(rel string, _ graveler.Entry) error {
				if rel != "" {
					changes = append(changes, graveler.Change{Path: dir + "/" + rel, Remove: true})
				}
				return nil
			})
			if err != nil {
				return err
			}
			if err := c.Stage(ctx, p.Repo, graveler.BranchID(p.Ref), changes); err != nil {
				return err
			}
		}
		return nil
	})
	c.Flags().BoolVarP(&recursive, "recursive", "r", false, "directories with all that is in them")
	return c
}

func (a *app) importCmd() *cobra.Command {
	return cmd("import URL PLACE", "stage objects where they lie, without copying them", between(2, 2), func(ctx context.Context, args []string) error {
		source, dest := args[0], args[1]
		if isPlace(source) && !isPlace(dest) {
			source, dest = dest, source
		}
		p, err := a.refPlace(ctx, []string{dest})
		if err != nil {
			return err
		}
		c, err := a.client()
		if err != nil {
			return err
		}
		pr := a.progress()
		n, err := c.Import(ctx, engine.ImportRequest{Repo: p.Repo, Branch: graveler.BranchID(p.Ref), Source: source, Dest: p.Path}, func(n int64) {
			pr.files = n
			pr.show()
		})
		pr.end()
		if err != nil {
			return err
		}
		if a.json {
			return a.printJSON(map[string]int64{"imported": n})
		}
		a.say("%d objects", n)
		return nil
	})
}
