# make up: try it.  make test: run all tests.  The other targets are for its developers.
SHELL := /bin/bash
TOOLS := $(CURDIR)/.tools/bin
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X github.com/lakefsfs/lakefsfs/daemon.Version=$(VERSION)
DATA ?= $(HOME)/.local/share/lakefsfs
MOUNT ?= $(HOME)/lakefsfs
PREFIX ?= /usr/local
# The packages whose tests run again under the race detector.
RACE := ./cache ./spill ./vfs ./fs ./nfs/... ./engine/... ./control ./daemon ./graveler/...

.PHONY: build up down test lint bench bench-nfs bench-peers bench-cluster bench-cluster-peers chaos failover soak-mount deps deps-run install clean fuzz soak nfs-soak

build:
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/lakefsfs ./cmd/lakefsfs

# What running it needs: FUSE's helper for ordinary users.
deps-run:
	@scripts/apt fusermount3:fuse3

# What the tests need.
deps: deps-run
	@scripts/apt getfattr:attr rsync:rsync sqlite3:sqlite3 git:git xz:xz-utils gcc:gcc tar:tar diff:diffutils nfs-cp:libnfs-utils qemu-system-x86_64:qemu-system-x86 modprobe:kmod mkfs.ext4:e2fsprogs pkill:procps
	@test -n "$$LAKEFSFS_TEST_NO_VM" || scripts/nfsvm-guest .tools/nfsvm
	go mod download
	@mkdir -p $(TOOLS)
	@test -x $(TOOLS)/versitygw || GOBIN=$(TOOLS) go install github.com/versity/versitygw/cmd/versitygw@v1.8.0
	@test -x $(TOOLS)/fake-gcs-server || GOBIN=$(TOOLS) go install github.com/fsouza/fake-gcs-server@v1.56.1
	@test -x $(TOOLS)/staticcheck || GOBIN=$(TOOLS) go install honnef.co/go/tools/cmd/staticcheck@v0.8.2

up: deps-run build
	@DATA='$(DATA)' MOUNT='$(MOUNT)' scripts/up

down:
	@DATA='$(DATA)' scripts/down

lint:
	@out=$$(gofmt -l .); test -z "$$out" || { echo "gofmt: $$out"; exit 1; }
	go vet ./...
	@test -x $(TOOLS)/staticcheck || { echo "staticcheck is not installed: run make deps"; exit 1; }
	$(TOOLS)/staticcheck ./...

# Installs what it needs first; that is quick where everything is there.
test: deps lint
	go test ./...
	go test -race -short $(RACE)

# Speed: the cost of commits, and a contest with the plain disk and others, as ratios. bench/README.md tells the flags for ARGS, such
# as ARGS=-quick, and keeps the figures. As root, or some of it can't be measured. The S3 server is what make deps installs.
bench: build
	go run ./bench $(ARGS)

# Our NFS server, nfs-ganesha and rclone, on the same work by one client. ARGS as of bench.
bench-nfs: build bench-peers
	@scripts/apt ganesha.nfsd:nfs-ganesha-vfs rpcbind:rpcbind
	go run ./bench -nfs $(ARGS)

# What the contest is with, besides JuiceFS, which it takes if that is on PATH.
bench-peers:
	@mkdir -p $(TOOLS)
	@test -x $(TOOLS)/rclone || CGO_ENABLED=0 GOBIN=$(TOOLS) go install github.com/rclone/rclone@v1.76.0

# Three nodes on loopback beside etcd's, puts in a second and how long they take. -h tells the flags for ARGS. The second makes etcd, once.
bench-cluster: build bench-cluster-peers
	go run ./bench/cluster $(ARGS)

bench-cluster-peers:
	@test -x $(TOOLS)/etcd || scripts/etcd $(TOOLS)

# Clusters of real processes while everything fails: DURATION of it, with SEED's choices, on NODES nodes. As root, or disks don't fail.
DURATION ?= 10m
NODES ?= 3
chaos:
	LAKEFSFS_TEST_CHAOS=$(DURATION) LAKEFSFS_TEST_SEED=$(SEED) LAKEFSFS_TEST_NODES=$(NODES) go test -count=1 -timeout 0 -run 'TestChaos$$|TestClock' -v ./internal/chaos ./e2e/chaos

# How long no write is acknowledged after kill -9 of the leader, under load.
failover:
	LAKEFSFS_TEST_KILLS=$(or $(KILLS),50) go test -count=1 -timeout 60m -run 'TestFailover$$' -v ./e2e/chaos

# A mount that asks a cluster, through kills of its leaders, while trees are unpacked on it and files are saved.
soak-mount:
	LAKEFSFS_TEST_KILLS=$(or $(KILLS),20) go test -count=1 -timeout 60m -run 'TestMount$$' -v ./e2e/chaos

fuzz:
	scripts/fuzz 60s

# Everything of the fixtures, and long random runs.
soak:
	LAKEFSFS_TEST_ALL=1 go test -count=1 -timeout 60m ./e2e
	go test -count=10 -timeout 60m ./fs ./engine/local ./engine/internal/replica ./spill ./graveler/...

# The kernel's NFS client for an hour: fsx, trees, programs, kills. CTHON is where scripts/cthon put the Connectathon tests, if anywhere.
nfs-soak: deps
	@test -z '$(CTHON)' || scripts/nfsvm-guest .tools/nfsvm-cthon gcc libc6-dev make groff-base time
	LAKEFSFS_TEST_ALL=1 LAKEFSFS_TEST_CTHON='$(CTHON)' go test -count=1 -timeout 180m -v ./e2e/nfs

install: build
	install -D bin/lakefsfs $(DESTDIR)$(PREFIX)/bin/lakefsfs
	install -d $(DESTDIR)/sbin
	ln -sf $(PREFIX)/bin/lakefsfs $(DESTDIR)/sbin/mount.lakefs
	@if old=$$(command -v lakefs) && ! readlink -f "$$old" | grep -q lakefsfs; then \
		echo "$$old is another program: mount -t fuse.lakefs and mount -t fuse lakefs will run that one"; \
	else ln -sf $(PREFIX)/bin/lakefsfs $(DESTDIR)$(PREFIX)/bin/lakefs; fi

clean:
	rm -rf bin
