# `make` lists the targets. Everything but e2e (Docker) and interop (Node) runs with Go and a C compiler (for the race detector)
# alone; tools are built from tools/go.mod.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

FUZZTIME ?= 10s
CHAOSTIME ?= 3m
SEED ?= 0
BENCH ?= .
BENCHTIME ?= 3s

# Where no image registry is reached: a program that starts a Docker engine, and makes the image of NATS (test/e2e/images).
DOCKER_UP ?= ../shared/tools/docker-up

.PHONY: help build demo test lint fuzz bench tools check-cli interop chaos e2e clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/wxkeeper
	go build -trimpath -o bin/wxkeeper ./cmd/wxkeeper

demo: ## run the demo: a simulated WeChat, NATS and a worker in one process
	go run ./cmd/wxkeeper demo

test: ## run all tests with the race detector
	go test -race ./...

lint: bin/golangci-lint ## check format, style and import directions
	bin/golangci-lint run ./...

fuzz: ## run every fuzz target for FUZZTIME (10s) each
	@grep -rHoE '^func Fuzz\w+' --include='*_test.go' . | sort | while IFS=: read -r file func; do \
		target=$${func#func }; \
		echo "fuzz $$target in $$(dirname "$$file") for $(FUZZTIME)"; \
		go test -run='^$$' -fuzz="^$$target\$$" -fuzztime=$(FUZZTIME) "$$(dirname "$$file")" </dev/null; \
	done

bench: ## run the benchmarks for BENCHTIME (3s) each; BENCH=pattern selects
	go test -run='^$$' -bench='$(BENCH)' -benchtime=$(BENCHTIME) -benchmem ./...

tools: bin/golangci-lint bin/nats ## build the pinned tools into bin/

check-cli: bin/nats ## test the binary with the real nats command
	@grep -rqx '//go:build cli' cmd || { echo 'no test in cmd has the build tag cli' >&2; exit 1; }
	PATH="$(CURDIR)/bin:$$PATH" go test -race -count=1 -tags=cli ./cmd/...

interop: ## test the examples in JavaScript and Go: needs Node 20 or newer, and npm
	@node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' && npm --version >/dev/null || { \
		echo "make interop needs node (20 or newer) and npm (on Debian: nodejs, npm)" >&2; exit 1; }
	npm ci --prefix examples/node --loglevel=error
	go test -race -count=1 -timeout=5m -tags=interop ./test/interop

chaos: bin/nats-server build ## let a fleet of real processes live through faults for CHAOSTIME (3m); SEED repeats a schedule
	go build -trimpath -o bin/chaos ./test/chaos
	bin/chaos --for $(CHAOSTIME) --seed $(SEED)

e2e: bin/nats ## run docker-compose.yml on a Docker engine: scale, kill, upgrade, lose nothing
	@if [ -x '$(DOCKER_UP)' ]; then test/e2e/images '$(DOCKER_UP)'; fi
	go test -race -count=1 -timeout=15m -tags=e2e ./test/e2e

clean: ## remove what was built
	rm -rf bin

bin/golangci-lint: tools/go.mod tools/go.sum
	cd tools && go build -trimpath -o ../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

bin/nats-server: go.mod go.sum
	go build -trimpath -o $@ github.com/nats-io/nats-server/v2

bin/nats: tools/go.mod tools/go.sum
	cd tools && go build -trimpath -o ../$@ github.com/nats-io/natscli/nats
