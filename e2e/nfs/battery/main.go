// Command battery checks whether a directory behaves as a file system over NFS has to: what it shows of owners, rights, times, links,
// names, open files, directories. It runs where the directory is mounted, in the guest of internal/nfsvm, as root, and knows nothing of
// the server; that of Linux passes all of it. Its other commands are work that a test watches.
//
//	battery check [-second DIR] [-only NAMES] [-local] DIR
//	battery readonly DIR
//	battery fsx SEED OPERATIONS DIR...
//	battery model SEED OPERATIONS|SECONDSs DIR
//	battery listed N TIMES DIR
//
// The first two print a line for each check: RUN, then PASS or FAIL, the check's name, and after a tab why.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

func main() {
	commands := map[string]func([]string) error{
		"check": checkCommand, "readonly": readOnlyCommand, "fsx": fsxCommand, "model": modelCommand, "listed": listedCommand, "do": doCommand,
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "battery: see its package comment")
		os.Exit(2)
	}
	if err := commands[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "battery:", err)
		os.Exit(1)
	}
}

var errFailed = errors.New("checks failed")

// selected tells whether a name is among those of a flag.
func selected(only, name string) bool {
	if only == "" {
		return true
	}
	for w := range strings.SplitSeq(only, ",") {
		if w == name {
			return true
		}
	}
	return false
}
