package main

import "github.com/spf13/cobra"

func (a *app) clusterRestoreCmd() *cobra.Command { return &cobra.Command{Use: "restore"} }
