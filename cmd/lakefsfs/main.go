// Command lakefsfs is Git for data, as a file system: the daemon, its mounts, and the commands that work on repositories.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/lakefsfs/lakefsfs/control"
	"github.com/lakefsfs/lakefsfs/graveler"
)

// Exit codes.
const (
	exitFailed   = 1
	exitUsage    = 2
	exitConflict = 3
	exitNotFound = 4
	exitNothing  = 5
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(300) // what lives long is small beside what a request leaves behind
	}
	os.Exit(run(ctx, os.Args))
}

func run(ctx context.Context, args []string) int {
	if isMountHelper(filepath.Base(args[0])) {
		return finish(&app{}, mountHelper(ctx, filepath.Base(args[0]), args[1:]))
	}
	a := &app{out: os.Stdout}
	root := a.root()
	root.SetArgs(args[1:])
	return finish(a, root.ExecuteContext(ctx))
}

// usageError is a command line that can't be meant.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// finish prints an error as one line and gives its exit code.
func finish(a *app, err error) int {
	if err == nil {
		return 0
	}
	code := exitFailed
	var u usageError
	switch {
	case errors.As(err, &u):
		code = exitUsage
	case strings.HasPrefix(err.Error(), "unknown command"), strings.HasPrefix(err.Error(), "unknown flag"),
		strings.HasPrefix(err.Error(), "unknown shorthand"), strings.HasPrefix(err.Error(), "flag needs"),
		strings.HasPrefix(err.Error(), "accepts "), strings.HasPrefix(err.Error(), "requires "),
		strings.HasPrefix(err.Error(), "invalid argument"), strings.HasPrefix(err.Error(), "required flag"):
		code = exitUsage
	default:
		switch graveler.KindOf(err) {
		case graveler.Conflict, graveler.NotEmpty, graveler.Protected, graveler.Exists:
			code = exitConflict
		case graveler.NotFound:
			code = exitNotFound
		case graveler.NothingToDo:
			code = exitNothing
		}
	}
	f := control.FailureOf(err)
	if a.json {
		if b, jerr := control.JSON(f); jerr == nil {
			os.Stderr.Write(b)
			return code
		}
	}
	fmt.Fprintf(os.Stderr, "lakefsfs: %s\n", f.Message)
	for i, p := range f.Paths {
		if i == 20 {
			fmt.Fprintf(os.Stderr, "… and %d more\n", len(f.Paths)-20)
			break
		}
		fmt.Fprintf(os.Stderr, "C\t%s\n", p)
	}
	return code
}
