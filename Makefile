.PHONY: deps test build
deps:
	go mod download
build:
	go build -o bin/lakefsfs ./cmd/lakefsfs
test:
	go vet ./...
	go test ./...
