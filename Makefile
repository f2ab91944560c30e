.PHONY: deps test build
deps:
	go mod download
	GOBIN=$(CURDIR)/.tools/bin go install github.com/versity/versitygw/cmd/versitygw@v1.8.0
	GOBIN=$(CURDIR)/.tools/bin go install github.com/fsouza/fake-gcs-server@v1.56.1
build:
	go build -o bin/lakefsfs ./cmd/lakefsfs
test:
	go vet ./...
	go test ./...
