package object

import (
	"fmt"
	"net/url"
	"path"
	"strings"

	"github.com/lakefsfs/lakefsfs/graveler"
)

// howToWrite tells the forms of a storage URL.
const howToWrite = "write it as file:///dir, mem://name, s3://bucket/prefix, gs://bucket/prefix or azblob://container/prefix"

// parseURL reads a storage namespace's URL. Its Path has no slash at the end, and for files none but single ones.
func parseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" || u.Opaque != "" {
		return nil, fmt.Errorf("storage URL %q: %s: %w", s, howToWrite, graveler.Invalid)
	}
	if strings.Contains(s, "#") {
		return nil, fmt.Errorf("storage URL %q: write the # as %%23: %w", s, graveler.Invalid)
	}
	if u.User != nil {
		return nil, fmt.Errorf("storage URL %q: give credentials by the environment, not in the URL: %w", u.Redacted(), graveler.Invalid)
	}
	if climbs(u.Path) {
		return nil, fmt.Errorf("storage URL %q: write the path without ..: %w", s, graveler.Invalid)
	}
	switch u.Scheme {
	case "file", "local":
		if u.Scheme == "file" && u.Host != "" && u.Host != "localhost" {
			return nil, fmt.Errorf("storage URL %q: a file URL has three slashes, file:///%s: %w", s, u.Host+u.Path, graveler.Invalid)
		}
		if u.Scheme == "local" && u.Host == "" {
			return nil, fmt.Errorf("storage URL %q names no directory; write it as local://name: %w", s, graveler.Invalid)
		}
		if u.RawQuery != "" || u.ForceQuery {
			return nil, fmt.Errorf("storage URL %q: a directory takes no ?parameters; write a ? of its name as %%3F: %w", s, graveler.Invalid)
		}
		u.Path = path.Clean("/" + u.Path)
		if u.Scheme == "file" {
			u.Host = ""
			if u.Path == "/" {
				return nil, fmt.Errorf("storage URL %q names no directory; write it as file:///dir: %w", s, graveler.Invalid)
			}
		}
	case "mem", "s3", "gs", "azblob":
		if u.Host == "" {
			return nil, fmt.Errorf("storage URL %q names no bucket; %s: %w", s, howToWrite, graveler.Invalid)
		}
	default:
		return nil, fmt.Errorf("storage URL %q: the scheme %q is not known; %s: %w", s, u.Scheme, howToWrite, graveler.Invalid)
	}
	u.Path = strings.TrimRight(u.Path, "/")
	u.RawPath = ""
	return u, nil
}

// ValidateURL returns an Invalid error that says what to write instead, unless s is a storage namespace's URL.
func ValidateURL(s string) error {
	_, err := CanonicalURL(s)
	return err
}

// CanonicalURL returns the one spelling of a storage namespace's URL: no slash at the end, parameters in order. An absolute
// path stands for its file:// URL.
func CanonicalURL(s string) (string, error) {
	if path.IsAbs(s) {
		s = (&url.URL{Scheme: "file", Path: s}).String()
	}
	u, err := parseURL(s)
	if err != nil {
		return "", err
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return "", fmt.Errorf("storage URL %q: the parameters after ? can't be read: %v: %w", s, err, graveler.Invalid)
	}
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// location is where the URL of an object points. The URLs of objects are raw: a key stands in them as it is, with its % and ?.
type location struct{ scheme, host, key string }

func splitURL(address string) (location, error) {
	scheme, rest, ok := strings.Cut(address, "://")
	host, key, _ := strings.Cut(rest, "/")
	if !ok || key == "" || strings.IndexByte(address, 0) >= 0 {
		return location{}, fmt.Errorf("object address %q is no URL of an object: %w", address, graveler.Invalid)
	}
	switch scheme {
	case "s3", "gs", "azblob", "mem", "local":
		if host == "" {
			return location{}, fmt.Errorf("object address %q names no bucket: %w", address, graveler.Invalid)
		}
	case "file":
		if host != "" && host != "localhost" {
			return location{}, fmt.Errorf("object address %q is on another machine: %w", address, graveler.Invalid)
		}
	default:
		return location{}, fmt.Errorf("object address %q: the scheme %q is not known: %w", address, scheme, graveler.Invalid)
	}
	return location{scheme, host, key}, nil
}

// decoded is the location with its key's %XX decoded, as some clients write it; ok is false if that changes nothing.
func (l location) decoded() (_ location, ok bool) {
	key, err := url.PathUnescape(l.key)
	if err != nil || key == l.key || strings.IndexByte(key, 0) >= 0 {
		return l, false
	}
	l.key = key
	return l, true
}
