# SPDX-License-Identifier: Apache-2.0
# posthorn's entry points; `make help` lists them. The scripts they call are in scripts/.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

env := scripts/env
# cargo with the staged interfaces; CMake makes it.
cargo := $(env) build/posthorn/cargo
# Tests mostly wait: for nodes to find each other, for time-outs.
test_threads := $(shell echo $$((3 * $$(nproc))))
# Crates that have no more tests with ROS 2 than without.
tested := mail settings health record_log vehicle fair_queue tls smtp imap evidence mail_bridge chatbot vehicle_router fleet_simulator
# What compiles without ROS 2: every crate but ros, chain and the tests; of authenticator what decides.
pure := $(tested) authenticator
environments := web3 mailauth slither
# `make test` runs these before the graphs, two at a time.
before_graphs := $(if $(CRATE),,test-core $(if $(ONLY),,test-bootstrap test-package))
# Cargo and colcon have workers of their own, and complain about a make whose workers they cannot have.
unexport MAKEFLAGS MFLAGS

.PHONY: help bootstrap build $(environments) dovecot demo test test-faults test-core test-bootstrap test-package fresh fresh-bootstrap observe lint docs bench-path bench-build bench-soak bench-ledger bench-dkim bench-evidence bench-mailbox shell lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

bootstrap: ## set up ROS 2 and Debian packages where they are missing
	@scripts/bootstrap

build: bootstrap ## build interfaces and nodes with colcon, into install/
	@scripts/build

demo: build web3 ## mails through the whole graph, with what became of each
	@$(cargo) build --quiet --locked --release --example demo --example observer
	@$(env) build/posthorn/cargo-target/release/examples/demo

test: build contracts/node_modules/.package-lock.json $(environments) dovecot ## run every test; CRATE=NAME those of one crate, ONLY=NAME those with NAME in their path
	$(if $(before_graphs),@$(MAKE) --no-print-directory --jobs=2 --output-sync ONLY=$(ONLY) $(before_graphs))
	$(cargo) test --locked --release $(if $(CRATE),-p $(CRATE),--workspace $(addprefix --exclude ,$(tested))) -- --test-threads $(test_threads) $(ONLY)

test-core: ## run the tests of what needs no ROS, with debug assertions
	cargo test --locked --no-default-features --features mail_bridge/net $(addprefix -p ,$(pure)) -- $(ONLY)

test-faults: build contracts/node_modules/.package-lock.json $(environments) ## kill -9 at 200 moments on a chain that loses transactions, answers and blocks, and all other faults; FAULTS=N times
	POSTHORN_FAULTS=$(or $(FAULTS),200) $(cargo) test --locked --release -p suites --test posthorn -- --nocapture --test-threads 4 ledger:: graph::chain::

test-bootstrap: bootstrap ## run the tests of bootstrap, on this machine: what it says when something is missing
	@test/bootstrap.sh

test-package: build ## run the tests of what users of colcon and CMake meet
	@test/package.sh

fresh: ## try both commands in throw-away Debian roots, as root; CASE=NAME one of them
	@scripts/fresh $(CASE)

fresh-bootstrap: ## the same, only as far as make bootstrap goes: some minutes
	@scripts/fresh --bootstrap $(CASE)

observe: build ## print messages as JSON, where there is no ros2 command: make observe NAMESPACE=fleet TOPICS=mail/inbound=posthorn/msg/Mail=event
	@$(cargo) build --quiet --locked --release --example observer
	@$(env) build/posthorn/cargo-target/release/examples/observer --watch "$(NAMESPACE)" $(TOPICS)

contracts/node_modules/.package-lock.json: contracts/package-lock.json
	npm ci --prefix contracts --no-audit --no-fund

# What the demo verifies its receipts with, what the tests compare verdicts with, and what looks at the contracts: Python
# from PyPI.
$(environments): bootstrap
	@scripts/venv $@

dovecot: ## install Debian's IMAP server for the tests, without starting it as a service
	@scripts/dovecot

lint: build ## formatting, and clippy with warnings denied, of every feature set
	cargo fmt --check
	$(cargo) clippy --locked --release --workspace --all-targets -- -D warnings
	$(cargo) clippy --locked --release --all-targets --no-default-features $(addprefix -p ,$(pure) chain) -- -D warnings

docs: build web3 dovecot ## write docs/interfaces.md and the README's tables anew
	@$(cargo) build --quiet --locked --release --example demo --example observer
	POSTHORN_REGENERATE=1 $(cargo) test --locked --release -p suites --test posthorn documents::

bench-path: build ## mails a second and latency over the whole graph, beside a plain Python pipeline
	@scripts/bench-path

bench-build: build ## how long a changed line takes to be tested and built
	@scripts/bench-build

bench-soak: build ## memory of each node under 100 mails a second; SOAK_MINUTES=N for so long instead of 25
	@$(cargo) build --quiet --locked --release --bins --example observer
	$(cargo) bench --quiet --locked -p suites --bench soak

bench-ledger: build contracts/node_modules/.package-lock.json ## entries with a receipt a second, on the embedded chain and on anvil, many transactions in flight beside one
	@$(cargo) bench --quiet --locked -p suites --bench ledger

bench-dkim: build mailauth ## signed mails that a core verifies a second, beside dkimpy and OpenDKIM's library
	@$(cargo) bench --quiet --locked -p suites --bench dkim

bench-evidence: ## memory, disk, look-ups and start of the evidence of 10 million mails; EVIDENCE=N of so many
	cargo bench --quiet --locked -p evidence --bench evidence

bench-mailbox: build dovecot ## messages a second from a mailbox on Dovecot, beside mbsync; needs Debian's isync
	@$(cargo) bench --quiet --locked -p suites --bench mailbox

shell: bootstrap ## a shell with ROS 2 and, once built, posthorn
	@$(env) bash

lock: ## pin the requirements.in of ROS 2 and of the benchmarks anew
	@scripts/lock

clean: ## remove what was built; the ROS 2 prefix stays in its cache
	rm -rf build install log target contracts/node_modules
