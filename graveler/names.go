package graveler

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

var (
	repoName   = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{2,62}$`)
	branchName = regexp.MustCompile(`^\w[-\w]*$`)
	tagName    = regexp.MustCompile(`^\w([-\w.]*[-\w])?$`)
)

// MaxPath is the longest path of an entry, in bytes. It is above the 4,095 that one system call can name, since a directory can be
// moved below another.
const MaxPath = 16 << 10

// maxRefName keeps "@" + name within a file name's 255 bytes.
const maxRefName = 254

// ValidateRepositoryID returns an Invalid error that says how a repository may be named, unless id is such a name.
func ValidateRepositoryID(id RepositoryID) error {
	if !repoName.MatchString(string(id)) {
		return fmt.Errorf("repository name %q: use 3 to 63 of a-z, 0-9 and -, not starting with -: %w", id, Invalid)
	}
	return nil
}

// ValidateBranchID is ValidateRepositoryID for branches.
func ValidateBranchID(id BranchID) error {
	if len(id) > maxRefName || !branchName.MatchString(string(id)) {
		return fmt.Errorf("branch name %q: use letters, digits, _ and -, not starting with -, at most %d bytes: %w", id, maxRefName, Invalid)
	}
	return nil
}

// ValidateTagID is ValidateRepositoryID for tags.
func ValidateTagID(id TagID) error {
	if len(id) > maxRefName || !tagName.MatchString(string(id)) || strings.Contains(string(id), "..") {
		return fmt.Errorf("tag name %q: use letters, digits, _, - and single dots inside, not starting with -, at most %d bytes: %w", id, maxRefName, Invalid)
	}
	return nil
}

// ValidatePath returns an error unless an entry may lie at path: not empty, no NUL, at most MaxPath bytes.
func ValidatePath(path string) error {
	switch {
	case path == "":
		return fmt.Errorf("an entry needs a path: %w", Invalid)
	case len(path) > MaxPath:
		return fmt.Errorf("path of %d bytes is longer than %d: %w", len(path), MaxPath, TooLarge)
	case strings.IndexByte(path, 0) >= 0:
		return fmt.Errorf("path %q holds a NUL byte: %w", path, Invalid)
	}
	return nil
}

// FileName reports whether a path segment can be a file's name.
func FileName(s string) bool {
	return s != "" && s != "." && s != ".." && len(s) <= 255 && strings.IndexByte(s, 0) < 0
}

// Place is where a version or a path of it stands, as in the mount: repo/@ref/path.
type Place struct {
	Repo RepositoryID
	Ref  Ref    // "" names the repository
	Path string // "" names the ref's root; no leading slash
}

// ParsePlace reads "repo", "repo/@ref", "repo/@ref/path", or the same as "lakefs://repo/ref/path".
func ParsePlace(s string) (Place, error) {
	bad := func(why string) (Place, error) {
		return Place{}, fmt.Errorf("place %q: %s; write it as repo/@ref/path: %w", s, why, Invalid)
	}
	rest, url := strings.CutPrefix(s, "lakefs://")
	repo, rest, more := strings.Cut(rest, "/")
	p := Place{Repo: RepositoryID(repo)}
	if err := ValidateRepositoryID(p.Repo); err != nil {
		return bad("no repository is named " + fmt.Sprintf("%q", repo))
	}
	if !more || rest == "" {
		return p, nil
	}
	if !url {
		if rest[0] != '@' {
			return bad("the ref after the repository starts with @")
		}
		rest = rest[1:]
	}
	// A time in @{…} holds no slash, so the ref ends at the first one.
	ref, path, _ := strings.Cut(rest, "/")
	if _, err := ParseRef(Ref(ref)); err != nil {
		return Place{}, fmt.Errorf("place %q: %w", s, err)
	}
	p.Ref, p.Path = Ref(ref), path
	return p, nil
}

// String writes p as it stands in the mount.
func (p Place) String() string {
	s := string(p.Repo)
	if p.Ref != "" {
		s += "/@" + string(p.Ref)
		if p.Path != "" {
			s += "/" + p.Path
		}
	}
	return s
}

// ValidUTF8 reports whether s can stand in a protobuf string.
func ValidUTF8(s string) bool { return utf8.ValidString(s) }
