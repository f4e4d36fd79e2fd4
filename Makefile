# What a person does here. Everything a target needs it installs itself, pinned, into .venv.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
UV := VIRTUAL_ENV=$(VENV) $(BIN)/uv
# Where it is set, each of the many processes that commands and tests start would compile the project's code anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- set-up ---------------------------------------------------------------------------------------------------------
# Byte code is compiled at once: without it every run would pay two seconds to import dagster.
$(BIN)/uv: requirements/install.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14) and "taxi_assets needs Python 3.11 to 3.14, this is " + sys.version.split()[0] + ": make PYTHON=python3.11 ...")'
	@echo "installing into $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/install.lock
	@touch $@

$(VENV)/.runtime: $(BIN)/uv requirements/runtime.lock
	@$(UV) pip install --quiet --compile-bytecode --require-hashes --no-deps -r requirements/runtime.lock
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements/dev.lock
	@$(UV) pip install --quiet --compile-bytecode --require-hashes --no-deps -r requirements/dev.lock
	@touch $@

$(VENV)/.bench: $(VENV)/.runtime requirements/bench.lock
	@$(UV) pip install --quiet --compile-bytecode --require-hashes --no-deps -r requirements/bench.lock
	@touch $@

$(VENV)/.audit: $(VENV)/.runtime requirements/audit.lock
	@$(UV) pip install --quiet --compile-bytecode --require-hashes --no-deps -r requirements/audit.lock
	@touch $@

$(VENV)/.docs: $(VENV)/.runtime requirements/docs.lock
	@$(UV) pip install --quiet --compile-bytecode --require-hashes --no-deps -r requirements/docs.lock
	@touch $@

.PHONY: setup
setup: $(VENV)/.dev ## Install everything for development into .venv

.PHONY: lock
lock: $(BIN)/uv ## Compile requirements/*.lock anew from pyproject.toml (UPGRADE=1: take newer versions)
	@for set in install: runtime: docker:docker docs:docs dev:dev bench:bench audit:audit; do \
	  name=$${set%%:*}; group=$${set#*:}; \
	  if [ $$name = install ]; then input="--group install"; elif [ -n "$$group" ]; then input="pyproject.toml --group pyproject.toml:$$group -c requirements/runtime.lock"; else input="pyproject.toml"; fi; \
	  $(UV) pip compile $$input --output-file requirements/$$name.lock --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-emit-find-links --no-strip-extras $(if $(UPGRADE),--upgrade) --quiet \
	    --custom-compile-command "make lock"; \
	done

# --- use -------------------------------------------------------------------------------------------------------------
# Everything is kept under ./data, unless TAXI_LAKE, TAXI_WAREHOUSE or DAGSTER_HOME say otherwise. PROFILE=gcp takes what
# the environment does not say from deploy/profiles/gcp.env, to the letter; its history of runs is its own.
ifneq ($(PROFILE),)
ifeq ($(wildcard deploy/profiles/$(PROFILE).env),)
$(error There is no profile $(PROFILE). There are: $(basename $(notdir $(wildcard deploy/profiles/*.env))))
endif
PROFILE_SETTINGS = while IFS= read -r line || [ -n "$$line" ]; do name="$${line%%=*}"; \
	  case "$$line" in [A-Z]*=*) [ -n "$${!name+set}" ] || export "$$line";; esac; done < "deploy/profiles/$(PROFILE).env";
endif
SETTINGS = $(PROFILE_SETTINGS) export DAGSTER_HOME="$${DAGSTER_HOME:-$(CURDIR)/data/dagster$(filter-out -local,$(PROFILE:%=-%))}";
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))

DEMO_HOME ?= $(CURDIR)/data/demo
DEMO = DAGSTER_HOME="$(DEMO_HOME)/dagster" TAXI_SOURCE=sample TAXI_LAKE="$(DEMO_HOME)/lake" \
	TAXI_WAREHOUSE="duckdb:///$(DEMO_HOME)/warehouse.duckdb"
USAGE := make backfill SERVICE=green FROM=2020-01 TO=2020-12
# An instance that says where its storage is was set up by somebody, and is left alone.
INSTANCE = mkdir -p "$$DAGSTER_HOME" && { grep -qs '^storage:' "$$DAGSTER_HOME/dagster.yaml" || cp -u dagster.yaml "$$DAGSTER_HOME/"; }

.PHONY: demo
demo: $(VENV)/.runtime ## Run generated months through every shelf, offline, and show what came of it
	@export $(DEMO); $(INSTANCE); $(BIN)/python -m taxi_assets.cli.backfill demo

.PHONY: demo-ui
demo-ui: $(VENV)/.runtime ## Dagster's UI on what the demo made
	@export $(DEMO); $(INSTANCE); $(BIN)/dagster dev --host 127.0.0.1

.PHONY: dev
dev: $(VENV)/.runtime ## Dagster's UI and daemon, on your settings; history is kept between starts
	@$(SETTINGS) $(INSTANCE); $(BIN)/dagster dev --host 127.0.0.1

.PHONY: backfill
backfill: $(VENV)/.runtime ## A range of months: make backfill SERVICE=green FROM=2020-01 TO=2020-12
	@: "$(or $(SERVICE),$(error which service? $(USAGE)))" "$(or $(FROM),$(error the first month? $(USAGE)))" "$(or $(TO),$(error the last month? $(USAGE)))"
	@$(SETTINGS) $(INSTANCE); $(BIN)/python -m taxi_assets.cli.backfill backfill --service "$(SERVICE)" --from "$(FROM)" --to "$(TO)"

.PHONY: doctor
doctor: $(VENV)/.runtime ## What the settings mean, and whether each part can be reached (PROFILE=… as for dev, backfill)
	@$(SETTINGS) { $(INSTANCE); } 2>/dev/null || true; $(BIN)/python -m taxi_assets.cli.doctor

# --- check -----------------------------------------------------------------------------------------------------------
.PHONY: check
check: $(VENV)/.dev ## Format, lint, types, definitions
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/ruff check --quiet
	@$(BIN)/mypy
	@$(BIN)/dagster definitions validate --log-level error

.PHONY: test
test: check ## All tests but those of faults, of whole deployments, and in a browser
	@$(BIN)/python -m pytest -q -n 3 --dist worksteal \
	  --ignore taxi_assets_tests/faults --ignore taxi_assets_tests/deployments --ignore taxi_assets_tests/ui

.PHONY: test-faults
test-faults: $(VENV)/.dev ## Runs killed, files broken, several at once: nothing lost, nothing doubled
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal taxi_assets_tests/faults

# Three workers: two of them are busy for half an hour with one test each.
.PHONY: reliability
reliability: $(VENV)/.dev ## The same in its long form, by hand: hundreds of kills, an hour of bad data; docs/reliability.md
	@$(BIN)/python -m pytest -q -n 3 --dist worksteal --long taxi_assets_tests/faults

.PHONY: test-fuzz
test-fuzz: $(VENV)/.dev ## Real files, spoilt byte by byte, to both readers for a minute: kept row by row, or refused by name
	@$(BIN)/python -m pytest -q -n 2 --fuzz 60 -m fuzz taxi_assets_tests/faults

.PHONY: test-deployments
test-deployments: $(VENV)/.dev ## Daemon, servers and commands as processes, killed and restarted; deployment files, documents
	@$(BIN)/python -m pytest -q -n 3 --dist worksteal taxi_assets_tests/deployments

.PHONY: test-unit
test-unit: $(VENV)/.dev ## Unit tests alone: a minute
	@$(BIN)/python -m pytest -q taxi_assets_tests/unit

# Each in an environment of its own, resolved anew; tools for testing are the newest that go with it.
.PHONY: test-lowest test-newest
test-lowest: RESOLUTION := lowest-direct
test-lowest: ## Unit and definition tests with the lowest versions that pyproject.toml allows
test-newest: RESOLUTION := highest
test-newest: ## The same with the newest versions there are, whatever the lock says
test-lowest test-newest: test-%: $(BIN)/uv
	@$(BIN)/uv venv --quiet --clear --python $(PYTHON) .venv-$*
	@$(BIN)/uv pip compile pyproject.toml --quiet --python .venv-$*/bin/python --resolution $(RESOLUTION) --no-header --no-annotate --output-file .venv-$*/runtime.txt
	@$(BIN)/uv pip install --quiet --python .venv-$*/bin/python -r .venv-$*/runtime.txt --group dev
	@.venv-$*/bin/python -m pytest -q -n 3 --dist worksteal taxi_assets_tests/unit taxi_assets_tests/definitions \
	  --ignore taxi_assets_tests/unit/test_licences.py  # which lists what the lock says

.PHONY: test-ui
test-ui: $(VENV)/.dev ## Walk through Dagster's UI in a browser (needs chromium)
	@$(BIN)/python -m pytest -q taxi_assets_tests/ui

.PHONY: screenshots
screenshots: $(VENV)/.dev ## The same walk, with pictures of it for docs/images
	@TAXI_TEST_SCREENSHOTS=docs/images $(BIN)/python -m pytest -q taxi_assets_tests/ui

.PHONY: dist
dist: $(VENV)/.dev ## Build the package into dist/: an sdist, and a wheel from it
	@rm -rf dist
	@$(UV) build --quiet --no-build-isolation --offline
	@rm -rf taxi_assets.egg-info

.PHONY: audit
audit: $(VENV)/.audit ## Look up what the image runs among known vulnerabilities (asks PyPI; a package it cannot look up fails, too)
	@$(BIN)/pip-audit --strict --require-hashes --disable-pip --progress-spinner off -r requirements/docker.lock

.PHONY: docs
docs: $(VENV)/.dev ## Write the documents that are made from the code, and from what is installed
	@$(BIN)/python -m taxi_assets.cli.docgen docs
	@$(BIN)/python -m taxi_assets_tests.licences > docs/licences.md

.PHONY: site
site: $(VENV)/.docs ## The documents as a website, in data/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "data/site/index.html"

.PHONY: bench
bench: $(VENV)/.bench ## Speed and memory beside what you would run otherwise: docs/benchmarks.md (ONLY=clean,memory REPETITIONS=3)
	@$(BIN)/python -m benchmarks $(if $(ONLY),--only "$(ONLY)") $(if $(REPETITIONS),--repetitions "$(REPETITIONS)")

.PHONY: bench-page
bench-page: $(VENV)/.bench ## Write docs/benchmarks.md and its picture anew from what was last measured
	@$(BIN)/python -m benchmarks --only none
