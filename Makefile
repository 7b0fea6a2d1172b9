# The way in. `make demo` on a fresh Debian 12 or Ubuntu (git, make, python3, root) does everything.

STATE ?= ./var
LISTEN ?= 127.0.0.1:8774
export STATE LISTEN

bin := .venv/bin
code := app compute_api identity_api image_api network_api volume_api compute_agent hypervisor migrations tests benchmarks

.PHONY: help
help: ## what can be made (this list)
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; \
		do printf '  make %-12s %s\n' "$$name" "$$text"; done
	@printf '\n  STATE=%s LISTEN=%s can be set on the command line.\n' '$(STATE)' '$(LISTEN)'

.PHONY: setup image demo stop clean
setup: ## install what is missing: Debian packages, .venv from the lock file
	@scripts/setup.sh

.PHONY: setup-tests
setup-tests:
	@scripts/setup.sh --tests

image: setup ## build the tiny guest: var/images/tiny.qcow2
	@scripts/tiny-image.sh

demo: setup image ## start the cloud, boot a server with the openstack command, ssh into it
	@scripts/demo.sh

.PHONY: cluster-demo
cluster-demo: setup-tests image ## three hosts in network namespaces, with PostgreSQL and RabbitMQ, to play with
	@$(bin)/python -m tests.cluster

stop: ## end the cloud and its servers; what they wrote stays
	@scripts/stop.sh

clean: ## stop, then remove the state directory
	@scripts/stop.sh --remove-state

.PHONY: test check lint types unit format
test: setup-tests image lint types unit ## every test there is, on real machines and networks (needs root)
	SIXSTACK_TEST_DATABASE=postgresql $(bin)/pytest -q -n auto tests/api
	$(bin)/pytest -n 3 --dist loadgroup tests/host tests/contract

check: lint types unit ## what can be checked in two minutes: style, types, layers, unit and API tests

lint types unit format lock: setup

lint:
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/lint-imports

types:
	$(bin)/mypy

unit:
	$(bin)/pytest -q -n auto tests/unit tests/api

format: ## format the code and fix what ruff can
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

SECONDS ?= 600
SEED ?=
.PHONY: fuzz
fuzz: setup-tests ## mutated requests over every route: no 5xx, no slow answer (SECONDS=3600 SEED=7)
	$(bin)/python -m tests.fuzz.run --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

.PHONY: chaos
chaos: setup-tests image ## random faults while servers live, then everything must be consistent (SECONDS=3600 SEED=7; root)
	$(bin)/python -m tests.chaos.run --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

.PHONY: tempest
tempest: setup image ## tempest's required tests against a cloud of their own (needs root)
	$(bin)/python -m tests.contract.tempest.run $(TESTS)

.PHONY: nodepool
# What nodepool 11 forgets to ask for comes with it.
nodepool: setup-tests ## nodepool's own adapter against the cloud of `make demo`, as the README has it
	@$(bin)/uv venv -q --allow-existing --python $(bin)/python var/nodepool
	@$(bin)/uv pip install -q --python var/nodepool/bin/python 'nodepool==11.0.0' cachetools 'setuptools<81'
	var/nodepool/bin/python -W ignore tests/contract/nodepool/run.py $(STATE) var/nodepool

.PHONY: clients
clients: setup-tests ## fog, pkgcloud and packer, where installed, against the cloud of `make demo` (docs/client-suites.md)
	$(bin)/python -W ignore -m tests.contract.clients.run $(STATE) $(CLIENTS)

.PHONY: bench fleet lock
bench: setup image ## the benchmarks, as ratios against the thing named
	$(bin)/python -m benchmarks

FLEET ?= --hosts 1000 --servers 100000
fleet: setup-tests ## 1,000 hosts that do not exist, 100,000 servers (FLEET="--hosts 50 --servers 2000 --patience 0.1" in a minute)
	$(bin)/python -m benchmarks.fleet $(FLEET)

# Both files are written by uv from pyproject.toml, with the hash of every file that may be installed.
compile := $(bin)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
	--python-version 3.11 pyproject.toml
lock: ## write requirements.lock and requirements-dev.lock anew from pyproject.toml
	$(compile) -o requirements.lock
	$(compile) --all-extras -o requirements-dev.lock
