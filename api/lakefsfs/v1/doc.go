// Package lakefsfsv1 is the public interface of lakefsfs over gRPC, generated from the .proto files beside it. types.proto has the
// rules that it changes by.
package lakefsfsv1

//go:generate protoc -I ../.. --go_out=../.. --go_opt=paths=source_relative --go-grpc_out=../.. --go-grpc_opt=paths=source_relative lakefsfs/v1/types.proto lakefsfs/v1/repositories.proto lakefsfs/v1/refs.proto lakefsfs/v1/entries.proto lakefsfs/v1/versions.proto lakefsfs/v1/holders.proto lakefsfs/v1/sessions.proto lakefsfs/v1/changes.proto lakefsfs/v1/objects.proto lakefsfs/v1/cluster.proto lakefsfs/v1/mounts.proto
