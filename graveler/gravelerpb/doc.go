// Package gravelerpb is the protobuf form of entries, commits, branches, tags and range records, as lakeFS stores them.
package gravelerpb

//go:generate protoc --go_out=. --go_opt=paths=source_relative graveler.proto catalog.proto
