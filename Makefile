# `make` lists the targets. `go test ./...` needs Go only. `make test` also needs a C compiler, for the race detector;
# `make interop` needs Node, `make e2e` a Docker engine, `make bench-peers` Redis. Tools are built from tools/go.mod.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

FUZZTIME ?= 10s
CHAOSTIME ?= 3m
SEED ?= 0
BENCH ?= .
BENCHTIME ?= 3s

# Flags of `make bench-peers`: -smoke, -rows abg, -repeats 5, -scale-accounts 100000.
PEERS_FLAGS ?=

# The systems for which `make cross` builds, beside the system it runs on.
CROSS ?= windows darwin

# The images that are built from or run, without their digests.
PINNED = Dockerfile docker-compose.yml deploy/nats/compose.yml
IMAGES = $(shell sed -nE 's/.*(GO|NATS)_IMAGE(:-|=)([^@}]+).*/\3/p' $(PINNED) | sort -u)

# For a machine that reaches no image registry: a program that starts a Docker engine and makes the image of NATS
# (test/e2e/images calls it). Empty: an engine is running, and Docker pulls the images.
DOCKER_UP ?=

.PHONY: help build demo image test check check-format check-modules lint cross vuln sbom fuzz bench bench-peers tools \
	check-cli interop chaos e2e pin-images check-images clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# -buildvcs: `wxkeeper version` needs the git data, also if GOFLAGS disables it on this machine.
build: ## build bin/wxkeeper
	go build -trimpath -buildvcs=auto -o bin/wxkeeper ./cmd/wxkeeper

demo: ## run the demo: a simulated WeChat, NATS and a worker in one process
	go run ./cmd/wxkeeper demo

image: build ## build the Docker image, with the version and the commit of this checkout
	WXKEEPER_VERSION="$$(bin/wxkeeper version | cut -d' ' -f2)" WXKEEPER_COMMIT="$$(git rev-parse HEAD)" \
		docker compose build worker

test: ## run all tests with the race detector
	go test -race ./...

check: check-format check-modules lint cross test ## run this before a push: format, modules, lint, cross, test

check-format: ## list the files that are not in gofmt's format
	@wrong=$$(gofmt -l .); if [ -n "$$wrong" ]; then echo "not in gofmt's format:" >&2; echo "$$wrong" >&2; exit 1; fi

check-modules: ## check that go.mod is tidy, and the modules against go.sum
	go mod tidy -diff
	go mod verify
	cd tools && go mod verify
	cd bench && go mod tidy -diff && go mod verify

lint: bin/golangci-lint ## check style and import directions
	bin/golangci-lint run ./...
	cd bench && ../bin/golangci-lint run ./...

cross: ## build and vet for other systems (CROSS): Windows and macOS
	@for system in $(CROSS); do \
		echo "GOOS=$$system: go build, go vet"; \
		CGO_ENABLED=0 GOOS=$$system go build ./...; \
		CGO_ENABLED=0 GOOS=$$system go vet ./...; \
	done

vuln: bin/govulncheck ## look for known vulnerabilities in what wxkeeper calls: needs the database at vuln.go.dev
	bin/govulncheck ./...

sbom: bin/cyclonedx-gomod build ## write bin/wxkeeper.cdx.json: what bin/wxkeeper is built from (an SBOM, CycloneDX)
	bin/cyclonedx-gomod bin -json -std -version "v$$(bin/wxkeeper version | cut -d' ' -f2)" \
		-output bin/wxkeeper.cdx.json bin/wxkeeper

fuzz: ## run every fuzz target for FUZZTIME (10s) each
	@grep -rHoE '^func Fuzz\w+' --include='*_test.go' . | sort | while IFS=: read -r file func; do \
		target=$${func#func }; \
		echo "fuzz $$target in $$(dirname "$$file") for $(FUZZTIME)"; \
		go test -run='^$$' -fuzz="^$$target\$$" -fuzztime=$(FUZZTIME) "$$(dirname "$$file")" </dev/null; \
	done

bench: ## run the benchmarks for BENCHTIME (3s) each; BENCH=pattern selects
	go test -run='^$$' -bench='$(BENCH)' -benchtime=$(BENCHTIME) -benchmem ./...

# Linux only: it reads /proc.
bench-peers: bin/nats-server build ## compare with other systems, as processes: PEERS_FLAGS; needs redis-server
	cd bench && go test ./... && go build -trimpath -o ../bin/bench-peers .
	bin/bench-peers $(PEERS_FLAGS)

tools: bin/golangci-lint bin/nats bin/govulncheck bin/cyclonedx-gomod ## build the pinned tools into bin/

check-cli: bin/nats bin/cyclonedx-gomod ## test the binary together with the real nats command
	@grep -rqx '//go:build cli' cmd || { echo 'no test in cmd has the build tag cli' >&2; exit 1; }
	PATH="$(CURDIR)/bin:$$PATH" go test -race -count=1 -tags=cli ./cmd/...

interop: ## test the examples in JavaScript and Go: needs Node 20 or newer, and npm
	@node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' && npm --version >/dev/null || { \
		echo "make interop needs node (20 or newer) and npm (on Debian: nodejs, npm)" >&2; exit 1; }
	npm ci --prefix examples/node --loglevel=error
	go test -race -count=1 -timeout=15m -tags=interop ./test/interop

chaos: bin/nats-server build ## run a fleet of real processes under faults for CHAOSTIME (3m); SEED repeats a schedule
	go build -trimpath -o bin/chaos ./test/chaos
	bin/chaos --for $(CHAOSTIME) --seed $(SEED)

e2e: bin/nats ## run docker-compose.yml on a Docker engine: scale, kill, upgrade, lose nothing
	@images=; if [ -n '$(DOCKER_UP)' ]; then images=$$(test/e2e/images '$(DOCKER_UP)'); fi; \
		env $$images go test -race -count=1 -timeout=20m -tags=e2e ./test/e2e

# Whoever moves a tag in the registry cannot change an image that is named by its digest.
pin-images: ## write the digests of the images into the files that name them: needs Docker and its registry
	@for image in $(IMAGES); do \
		digest=$$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$$image"); \
		[[ $$digest =~ ^sha256:[0-9a-f]{64}$$ ]] || { echo "$$image has the digest '$$digest'" >&2; exit 1; }; \
		sed -i.before -E "s#$$image(@sha256:[0-9a-f]*)?#$$image@$$digest#" $(PINNED); \
		rm $(PINNED:=.before); \
		echo "$$image@$$digest"; \
	done

check-images: ## check that every image is named by its digest
	@for image in $(IMAGES); do \
		if grep -E "$$image" $(PINNED) | grep -vE "$$image@sha256:[0-9a-f]{64}"; then \
			echo "$$image has no digest: run make pin-images, and commit the change" >&2; exit 1; \
		fi; \
	done

clean: ## remove what was built
	rm -rf bin

bin/golangci-lint: tools/go.mod tools/go.sum
	cd tools && go build -trimpath -o ../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

bin/nats-server: go.mod go.sum
	go build -trimpath -o $@ github.com/nats-io/nats-server/v2

bin/nats: tools/go.mod tools/go.sum
	cd tools && go build -trimpath -o ../$@ github.com/nats-io/natscli/nats

bin/govulncheck: tools/go.mod tools/go.sum
	cd tools && go build -trimpath -o ../$@ golang.org/x/vuln/cmd/govulncheck

bin/cyclonedx-gomod: tools/go.mod tools/go.sum
	cd tools && go build -trimpath -o ../$@ github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod
