package main

import (
	"errors"
	"strconv"

	"github.com/lakefsfs/lakefsfs/internal/fsx"
)

func fsxCommand(args []string) error {
	if len(args) < 3 {
		return errors.New("fsx takes a seed, a number of operations and directories")
	}
	seed, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	return fsx.Run(fsx.Options{Dirs: args[2:], Seed: seed, Operations: n, NFS: true})
}
