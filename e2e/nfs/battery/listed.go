package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// listedCommand lists a directory that has files 0 to N, and others whose names begin with an x and which come meanwhile: each of the
// first must be listed once, of the others none twice. It is done a number of times.
func listedCommand(args []string) error {
	if len(args) != 3 {
		return errors.New("listed takes a number of files, of times, and a directory")
	}
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	times, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	for range times {
		f, err := os.Open(args[2])
		if err != nil {
			return err
		}
		seen := map[string]bool{}
		others := 0
		for {
			names, err := f.Readdirnames(1000)
			for _, name := range names {
				if seen[name] {
					return fmt.Errorf("%s is listed twice", name)
				}
				seen[name] = true
				if strings.HasPrefix(name, "x") {
					others++
				}
			}
			if err != nil {
				break
			}
		}
		f.Close()
		for i := range n {
			if !seen[strconv.Itoa(i)] {
				return fmt.Errorf("%d isn't listed, of %d that are", i, len(seen))
			}
		}
		if len(seen) != n+others {
			return fmt.Errorf("%d names are listed, %d and %d were made", len(seen), n, others)
		}
		fmt.Printf("listed %d and %d others\n", n, others)
	}
	return nil
}
