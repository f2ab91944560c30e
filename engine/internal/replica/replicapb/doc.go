// Package replicapb is the protobuf form of the state machine's commands and records.
package replicapb

//go:generate protoc --go_out=. --go_opt=paths=source_relative replica.proto
