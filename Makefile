# `make demo` on a fresh Debian 12 or Ubuntu (with git, make, python3, as root) installs and starts everything.

STATE ?= ./var
LISTEN ?= 127.0.0.1:8774
export STATE LISTEN

bin := .venv/bin
code := app compute_api identity_api image_api network_api volume_api compute_agent hypervisor migrations tests benchmarks

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; \
		do printf '  make %-12s %s\n' "$$name" "$$text"; done
	@printf '\n  STATE=%s LISTEN=%s are variables of the command line.\n' '$(STATE)' '$(LISTEN)'

.PHONY: setup image demo stop clean
setup: ## install missing Debian packages and .venv from the lock file
	@scripts/setup.sh

.PHONY: setup-tests
setup-tests:
	@scripts/setup.sh --tests

image: setup ## build the tiny guest image var/images/tiny.qcow2
	@scripts/tiny-image.sh

demo: setup image ## start the cloud, boot a server with the openstack command, log in with ssh
	@scripts/demo.sh

.PHONY: cluster-demo
cluster-demo: setup-tests image ## start three hosts in network namespaces, with PostgreSQL and RabbitMQ
	@$(bin)/python -m tests.cluster

stop: ## stop the cloud and its servers; keep their data
	@scripts/stop.sh

clean: ## stop, then delete the state directory
	@scripts/stop.sh --remove-state

.PHONY: test check lint types unit format
test: setup-tests image lint types unit ## run all tests, on real machines and networks (requires root)
	SIXSTACK_TEST_DATABASE=postgresql $(bin)/pytest -q -n auto tests/api
	$(bin)/pytest -n 3 --dist loadgroup tests/host tests/contract

check: lint types unit ## style, types, import contracts, unit and API tests, in two minutes

lint types unit format lock: setup

lint:
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/lint-imports

types:
	$(bin)/mypy

unit:
	$(bin)/pytest -q -n auto tests/unit tests/api

format: ## format the code and apply ruff's fixes
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

SECONDS ?= 600
SEED ?=
.PHONY: fuzz
fuzz: setup-tests ## send mutated requests to all routes: no 5xx, no slow response (SECONDS=3600 SEED=7)
	$(bin)/python -m tests.fuzz.run --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

.PHONY: chaos
chaos: setup-tests image ## random faults while servers live, then everything must be consistent (SECONDS=3600 SEED=7; root)
	$(bin)/python -m tests.chaos.run --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

.PHONY: tempest
tempest: setup image ## run tempest's required tests against a new cloud (requires root)
	$(bin)/python -m tests.contract.tempest.run $(TESTS)

.PHONY: nodepool
# cachetools and setuptools are undeclared dependencies of nodepool 11.
nodepool: setup-tests ## run nodepool's adapter against the cloud of `make demo`
	@$(bin)/uv venv -q --allow-existing --python $(bin)/python var/nodepool
	@$(bin)/uv pip install -q --python var/nodepool/bin/python 'nodepool==11.0.0' cachetools 'setuptools<81'
	var/nodepool/bin/python -W ignore tests/contract/nodepool/run.py $(STATE) var/nodepool

.PHONY: clients
clients: setup-tests ## run fog, pkgcloud and packer, if installed, against the cloud of `make demo` (docs/client-suites.md)
	$(bin)/python -W ignore -m tests.contract.clients.run $(STATE) $(CLIENTS)

.PHONY: bench fleet lock
bench: setup image ## run the benchmarks; results are ratios to a baseline
	$(bin)/python -m benchmarks

FLEET ?= --hosts 1000 --servers 100000
fleet: setup-tests ## benchmark 1,000 simulated hosts and 100,000 servers (FLEET="--hosts 50 --servers 2000 --patience 0.1" in a minute)
	$(bin)/python -m benchmarks.fleet $(FLEET)

# uv writes both files from pyproject.toml, with the hashes of all distributions.
compile := $(bin)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
	--python-version 3.11 pyproject.toml
lock: ## regenerate requirements.lock and requirements-dev.lock from pyproject.toml
	$(compile) -o requirements.lock
	$(compile) --all-extras -o requirements-dev.lock
