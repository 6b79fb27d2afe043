# Every command a developer needs; each does all its own set-up. `make help` lists them.
# Logic lives in Rust (tests/) and in tests/bring.py, not here.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo run test test-rate-limit-multi-region test-idempotency-race-condition quick conformance check bench bench-redis-pool load lease-report chaos outage fuzz plugin others gateway envoy redis clean

# Ports of `make run`; `make demo` takes free ones.
export PORT ?= 10000
export ADMIN_PORT ?= 9901
export GATEWAY_PORT ?= 10080
export GATEWAY_ADMIN_PORT ?= 10081

TARGET := $(or $(CARGO_TARGET_DIR),target)
BRING := python3 tests/bring.py
# Everything that runs in Envoy or in the simulator, and for no other target.
OTHERS := flags-filter visits-filter
FILTERS := tidegate-plugin noop-filter conformance-filter $(OTHERS)
# Everything that runs natively. One selection for `check` and `test`: with another one cargo would
# choose other features and compile wasmtime a second time.
ALL := --workspace $(FILTERS:%=--exclude %)
NATIVE := cargo build -p tidegate-gateway -p tidegate-tests --bins
# What is shipped, and what measures it.
SHIPPED := cargo build --release -p tidegate-gateway --bins --examples
MEASURE := cargo build --profile measure -p tidegate-tests --bins

help: ## List the commands.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 40

demo: ## Show the main job: a real Envoy admits and refuses real requests.
	@$(BRING) wasm envoy redis
	@$(MAKE) --no-print-directory plugin gateway
	@$(TARGET)/debug/demo show

run: ## The demo's stack, left running on PORT (10000) until Ctrl-C.
	@$(BRING) wasm envoy redis
	@$(MAKE) --no-print-directory plugin gateway
	@$(TARGET)/debug/demo run

test: ## All tests, on a real Envoy and a real Redis.
	@$(BRING) wasm envoy redis
	@$(MAKE) --no-print-directory plugin others gateway
	cargo test $(ALL) --no-fail-fast

quick: ## The tests that need neither Envoy nor Redis; seconds.
	@$(BRING) wasm
	@$(MAKE) --no-print-directory others
	cargo test -p tidegate-policy -p tidegate-host-sim -p host-sim
	cargo test -p tidegate-gateway --lib

test-idempotency-race-condition: ## Of 10, 50 and 1,000 callers at once exactly one claims a key.
	@$(BRING) redis
	cargo test $(ALL) --test claims races

conformance: ## The simulator against the real Envoy, scenario by scenario.
	@$(BRING) wasm envoy
	@$(MAKE) --no-print-directory plugin gateway
	@$(TARGET)/debug/conformance

check: ## Formatting, clippy, house rules, licences and sources of dependencies.
	@$(BRING) wasm deny
	cargo fmt --all --check
	cargo clippy --quiet $(ALL) --all-targets -- -D warnings
	cargo clippy --quiet $(FILTERS:%=-p %) --target wasm32-wasip1 -- -D warnings
	cargo test --quiet $(ALL) --test tidy
	PATH="$(CURDIR)/.tools/bin:$$PATH" cargo deny --all-features check bans licenses sources

bench: ## Compare with no filter and a no-op filter; writes target/bench/summary.json.
	@$(BRING) wasm envoy redis wrk
	@$(MAKE) --no-print-directory plugin
	$(SHIPPED)
	$(MEASURE)
	$(TARGET)/measure/bench all
	cargo build --profile measure -p host-sim
	$(TARGET)/measure/host-sim bench host-sim/cli/bench

test-rate-limit-multi-region: ## Two regions on one Redis and on two: neither uses up the other's limits.
	@$(BRING) redis
	cargo test $(ALL) --test it regions

bench-redis-pool: ## The bound on calls to Redis: 80 and 150 callers, Redis near, far and stopped; writes target/bench/pool.json.
	@$(BRING) wasm envoy redis wrk
	$(SHIPPED)
	$(MEASURE)
	$(TARGET)/measure/bench pool

load: ## Offered load against admitted, shed and p99, to twice the maximum; writes target/bench/load.json.
	@$(BRING) wasm envoy redis wrk
	$(SHIPPED)
	$(MEASURE)
	$(TARGET)/measure/bench load

lease-report: ## What leases admit and cost, load by load, and that they never exceed a limit; writes docs/leases.md.
	@$(BRING) wasm
	@$(MAKE) --no-print-directory plugin
	$(MEASURE)
	$(TARGET)/measure/lease-report

chaos: ## What clients see while the gateway or Redis fails, fault by fault; two minutes.
	@$(BRING) wasm envoy redis
	@$(MAKE) --no-print-directory plugin gateway
	@$(TARGET)/debug/chaos

outage: ## What three Envoys let through to an upstream that dies, hangs and half fails; writes docs/outage.md; three minutes.
	@$(BRING) wasm envoy redis
	@$(MAKE) --no-print-directory plugin gateway
	@$(TARGET)/debug/outage

fuzz: ## Fuzz the configuration's reader, what clients send and the audit verifier, each for FUZZ_S (60) seconds.
	@$(BRING) fuzz
	@for target in document facts export; do \
		mkdir -p $(TARGET)/fuzz/corpus/$$target; \
		PATH="$(CURDIR)/.tools/bin:$$PATH" cargo fuzz run --fuzz-dir policy/fuzz --sanitizer none \
			--target-dir $(TARGET)/fuzz $$target $(TARGET)/fuzz/corpus/$$target policy/fuzz/seeds/$$target -- \
			-max_total_time=$${FUZZ_S:-60} -max_len=8192 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 || exit 1; \
	done

plugin: ## Build the filter: target/wasm32-wasip1/wasm/tidegate.wasm.
	@echo "  building   the filter (first time: a minute)"
	@cargo build -p tidegate-plugin -p noop-filter -p conformance-filter --target wasm32-wasip1 --profile wasm

others: ## Build the plugins that the simulator is tested with, beside ours.
	@$(BRING) wasm clang examples
	@cargo build $(OTHERS:%=-p %) --target wasm32-wasip1 --profile wasm
	@cargo build -p tidegate-plugin --features trap-on-header --target wasm32-wasip1 --profile wasm-trap
	@.tools/bin/wasm-clang -Os -Wall -Wextra -Werror -mexec-model=reactor \
		-o $(TARGET)/wasm32-wasip1/wasm/redact.wasm tests/c-filter/redact.c

gateway: ## Build the gateway, the demo and the other programs.
	@echo "  building   gateway and demo (first time: a minute or two)"
	@$(NATIVE)

envoy: ## Bring Envoy into .tools (ENVOY=/path overrides, ENVOY_VERSION= picks another).
	@$(BRING) envoy

redis: ## Bring redis-server into .tools (REDIS_SERVER=/path overrides).
	@$(BRING) redis

clean: ## Remove everything that was built or brought.
	rm -rf target .tools
