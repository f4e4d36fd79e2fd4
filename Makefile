# The everyday commands. Each target installs what it needs, pinned, into .venv.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
UV := VIRTUAL_ENV=$(VENV) $(BIN)/uv
# If it were set, each of the many processes that commands and tests start would compile the project's code again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- set-up ---------------------------------------------------------------------------------------------------------
# Byte code is compiled at installation. Without it, importing dagster would take every run two more seconds.
$(BIN)/uv: requirements/install.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14) and "taxi_assets needs Python 3.11 to 3.14, this is " + sys.version.split()[0] + ": make PYTHON=python3.11 ...")'
	@echo "installing into $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/install.lock
	@touch $@

$(VENV)/.runtime: $(BIN)/uv requirements/runtime.lock
	@$(UV) pip install --quiet --compile-bytecode --require-hashes --no-deps -r requirements/runtime.lock
	@touch $@

# The package itself: `import taxi_assets` reads this folder, from any working directory. A link to the environment of another
# folder keeps that folder's package.
$(VENV)/.package: $(VENV)/.runtime pyproject.toml setup.py
	@test -L $(VENV) || { $(UV) pip install --quiet --offline --no-deps --no-build-isolation --editable . && touch $@; }

$(VENV)/.dev: $(VENV)/.runtime requirements/dev.lock | $(VENV)/.package
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

# The example has its own environment, because dbt is not a dependency of the platform. Both packages are read from their
# folders.
DBT := examples/dbt
$(DBT)/.venv/.installed: $(BIN)/uv $(DBT)/requirements.lock $(DBT)/pyproject.toml pyproject.toml
	@echo "installing into $(DBT)/.venv ..."
	@$(PYTHON) -m venv $(DBT)/.venv
	@VIRTUAL_ENV=$(DBT)/.venv $(BIN)/uv pip install --quiet --compile-bytecode --require-hashes --no-deps -r $(DBT)/requirements.lock
	@VIRTUAL_ENV=$(DBT)/.venv $(BIN)/uv pip install --quiet --offline --no-deps --no-build-isolation --editable . --editable $(DBT)
	@touch $@

.PHONY: setup
setup: $(VENV)/.dev ## Install everything for development into .venv

.PHONY: setup-dbt
setup-dbt: $(DBT)/.venv/.installed ## Install the dbt example into examples/dbt/.venv

# uv writes its command into the head of each file. Renovate runs that command again, and accepts only some options, with "=".
COMPILE = $(UV) pip compile --universal --python-version=3.11 --generate-hashes --no-strip-extras $(if $(UPGRADE),--upgrade) --quiet
LIKE_RUNTIME := --constraint=requirements/runtime.lock --constraint=requirements/install.lock

.PHONY: lock
lock: $(BIN)/uv ## Compile the lock files from pyproject.toml, of the dbt example too (UPGRADE=1: take newer versions)
	@$(COMPILE) requirements/install.in --output-file=requirements/install.lock
	@$(COMPILE) pyproject.toml --output-file=requirements/runtime.lock
	@for group in docker docs dev bench audit; do \
	  $(COMPILE) pyproject.toml --group=pyproject.toml:$$group $(LIKE_RUNTIME) --output-file=requirements/$$group.lock; \
	done
	@$(COMPILE) $(DBT)/pyproject.toml --group=$(DBT)/pyproject.toml:dev $(LIKE_RUNTIME) --no-emit-package=taxi-assets --output-file=$(DBT)/requirements.lock

# --- use -------------------------------------------------------------------------------------------------------------
# Everything is stored under ./data, unless TAXI_LAKE, TAXI_WAREHOUSE or DAGSTER_HOME are set. PROFILE=gcp reads variables
# that are not set from deploy/profiles/gcp.env, without any expansion. Each profile has its own run history.
ifneq ($(PROFILE),)
ifeq ($(wildcard deploy/profiles/$(PROFILE).env),)
$(error Unknown profile $(PROFILE). Choose one of: $(basename $(notdir $(wildcard deploy/profiles/*.env))))
endif
PROFILE_SETTINGS = while IFS= read -r line || [ -n "$$line" ]; do name="$${line%%=*}"; \
	  case "$$line" in [A-Z]*=*) [ -n "$${!name+set}" ] || export "$$line";; esac; done < "deploy/profiles/$(PROFILE).env";
endif
SETTINGS = $(PROFILE_SETTINGS) export DAGSTER_HOME="$${DAGSTER_HOME:-$(CURDIR)/data/dagster$(filter-out -local,$(PROFILE:%=-%))}";
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))

DEMO_HOME ?= $(CURDIR)/data/demo
DEMO = DAGSTER_HOME="$(DEMO_HOME)/dagster" TAXI_SOURCE=sample TAXI_LAKE="$(DEMO_HOME)/lake" \
	TAXI_SOURCE_YELLOW= TAXI_SOURCE_GREEN= TAXI_SOURCE_FHV= TAXI_SOURCE_FHVHV= \
	TAXI_WAREHOUSE="duckdb:///$(DEMO_HOME)/warehouse.duckdb"
USAGE := make backfill SERVICE=green FROM=2020-01 TO=2020-12
# A dagster.yaml with a `storage:` was written by the user, so it is not replaced.
INSTANCE = mkdir -p "$$DAGSTER_HOME" && { grep -qs '^storage:' "$$DAGSTER_HOME/dagster.yaml" || cp -u dagster.yaml "$$DAGSTER_HOME/"; }

.PHONY: demo
demo: $(VENV)/.package ## Run generated months through every layer, offline, and print the row counts
	@export $(DEMO); $(INSTANCE); $(BIN)/python -m taxi_assets.cli.backfill demo

.PHONY: demo-ui
demo-ui: $(VENV)/.package ## Start Dagster's UI on the demo's results (PORT=3001)
	@export $(DEMO); $(INSTANCE); exec $(BIN)/python -m taxi_assets.cli.ui $(if $(PORT),--port "$(PORT)")

.PHONY: dev
dev: $(VENV)/.package ## Start Dagster's UI and daemon with your settings; history is kept between starts (PORT=3001)
	@$(SETTINGS) $(INSTANCE); exec $(BIN)/python -m taxi_assets.cli.ui $(if $(PORT),--port "$(PORT)")

# MONTHS is a list such as 2013-08,2020-10; or `published` or `outdated`, with which FROM and TO are optional.
.PHONY: backfill
backfill: $(VENV)/.package ## Run months: make backfill SERVICE=green FROM=2020-01 TO=2020-12 (or MONTHS=…; CONFIG=file.yaml, WORKERS=2, STRICT=1)
	@: "$(or $(SERVICE),$(error SERVICE is not set: $(USAGE)))" $(if $(MONTHS),,"$(or $(FROM),$(error FROM (the first month) is not set: $(USAGE)))" "$(or $(TO),$(error TO (the last month) is not set: $(USAGE)))")
	@$(SETTINGS) $(INSTANCE); $(BIN)/python -m taxi_assets.cli.backfill backfill --service "$(SERVICE)" \
	  $(if $(MONTHS),--months "$(MONTHS)") $(if $(FROM),--from "$(FROM)") $(if $(TO),--to "$(TO)") \
	  $(if $(WORKERS),--workers "$(WORKERS)") $(if $(CONFIG),--config "$(CONFIG)") $(if $(filter-out 0,$(STRICT)),--strict)

.PHONY: outdated
outdated: $(VENV)/.package ## List the months that were built by other rules, columns or code than today's (SERVICE=green)
	@$(SETTINGS) $(INSTANCE); $(BIN)/python -m taxi_assets.cli.backfill outdated $(if $(SERVICE),--service "$(SERVICE)")

.PHONY: revisions
revisions: $(VENV)/.package ## List the published files that the lake keeps (SERVICE=green, MONTH=2021-03); KEEP=2 DELETE=1 deletes older ones
	@: "$(or $(SERVICE),$(error SERVICE is not set: make revisions SERVICE=green))"
	@$(SETTINGS) $(BIN)/python -m taxi_assets.cli.backfill revisions --service "$(SERVICE)" \
	  $(if $(MONTH),--month "$(MONTH)") $(if $(KEEP),--keep "$(KEEP)") $(if $(filter-out 0,$(DELETE)),--delete)

.PHONY: sql
sql: export SQL := $(value QUERY)
sql: $(VENV)/.package ## Query the warehouse, read-only: a prompt, or QUERY="SELECT count(*) FROM green_trips" (PROFILE=… as for dev)
	@$(SETTINGS) $(BIN)/python -m taxi_assets.cli.sql $(if $(value QUERY),"$$SQL")

.PHONY: views
views: $(VENV)/.package ## Write views.duckdb to the lake: views of all tables, for readers; runs keep it current
	@$(SETTINGS) $(INSTANCE); $(BIN)/python -m taxi_assets.cli.backfill views

.PHONY: doctor
doctor: $(VENV)/.package ## Check the settings, and whether each part is reachable (PROFILE=… as for dev, backfill)
	@$(SETTINGS) { $(INSTANCE); } 2>/dev/null || true; $(BIN)/python -m taxi_assets.cli.doctor

.PHONY: iceberg-cleanup
iceberg-cleanup: $(VENV)/.package ## Expire old snapshots of Iceberg tables, and delete the files that none needs
	@$(SETTINGS) $(BIN)/python -m taxi_assets.cli.iceberg_cleanup

.PHONY: notify-test
notify-test: $(VENV)/.package ## Send a test message to each notifier of TAXI_NOTIFY_URLS, and show whether it was delivered
	@$(SETTINGS) $(BIN)/python -m taxi_assets.cli.send_test_message

.PHONY: dbt-sources
dbt-sources: $(VENV)/.package ## Write sources.yml, which describes the warehouse to dbt (FILE=path; PROFILE=… as for dev)
	@$(SETTINGS) $(BIN)/python -m taxi_assets.cli.dbt_sources --output "$(or $(FILE),$(DBT)/dbt/models/sources.yml)"

# --- check -----------------------------------------------------------------------------------------------------------
# Two at a time: mypy takes as long as all others together. Each prints its output when it has ended.
CHECKS := types language definitions unused format lint imports dependencies spelling
CODE := taxi_assets benchmarks deploy docs $(DBT)/src

.PHONY: check $(CHECKS:%=check-%)
check: $(VENV)/.dev ## Check format, lint, types, imports, dependencies, unused code, spelling, wording and definitions
	@$(MAKE) --no-print-directory --keep-going --jobs 2 $(if $(filter output-sync,$(.FEATURES)),--output-sync) $(CHECKS:%=check-%)
check-format:
	@$(BIN)/ruff format --check --quiet
check-lint:
	@$(BIN)/ruff check --quiet
check-types:
	@$(BIN)/mypy
check-imports:
	@$(BIN)/lint-imports > /dev/null || $(BIN)/lint-imports
check-dependencies:
	@$(BIN)/deptry taxi_assets 2> /dev/null || $(BIN)/deptry taxi_assets
# Code that only tests use is unused, too.
check-unused:
	@$(BIN)/vulture $(CODE)
	@$(BIN)/vulture $(CODE) taxi_assets_tests $(DBT)/tests
check-spelling:
	@$(BIN)/codespell . .github .ci
check-language:
	@$(BIN)/python -m pytest -q taxi_assets_tests/unit/test_language.py
check-definitions:
	@$(BIN)/dg check defs > /dev/null 2>&1 || $(BIN)/dg check defs

# COVERAGE=1 also records which lines of taxi_assets/ the tests run, in all their processes.
PYTEST := $(BIN)/$(if $(COVERAGE),coverage run,python) -m pytest -q

# Those in contract/ use the stores of the contract tests.
FAULT_TESTS := taxi_assets_tests/faults $(foreach kind,connections crashes faults killed locks races, \
	$(wildcard taxi_assets_tests/contract/test_*_$(kind).py))

.PHONY: test
test: check ## Run all tests except those of faults, whole deployments and the browser
	@$(PYTEST) -n 3 --dist worksteal --ignore taxi_assets_tests/unit/test_language.py \
	  $(addprefix --ignore ,$(FAULT_TESTS)) --ignore taxi_assets_tests/deployments --ignore taxi_assets_tests/ui

.PHONY: test-faults
test-faults: $(VENV)/.dev ## Test killed runs, broken files and concurrent runs: no row lost, none duplicated
	@$(PYTEST) -n 3 --dist worksteal -m "not fuzz" $(FAULT_TESTS)

# Three workers, because two of them are busy for half an hour with one test each.
.PHONY: reliability
reliability: $(VENV)/.dev ## Run test-faults in its long form: hundreds of kills, an hour of bad data; writes docs/reliability.md
	@$(BIN)/python -m pytest -q -n 3 --dist worksteal --long $(FAULT_TESTS)

.PHONY: test-fuzz
test-fuzz: $(VENV)/.dev ## Corrupt real files byte by byte and read them for a minute: each row is kept, or the file is refused
	@$(PYTEST) -n 2 --fuzz 60 -m fuzz taxi_assets_tests/faults

# Four workers, because these tests wait for daemons and servers half of the time.
.PHONY: test-deployments
test-deployments: $(VENV)/.dev ## Test whole deployments (daemon, servers, commands; killed and restarted), deployment files, documentation
	@$(PYTEST) -n 4 --dist worksteal taxi_assets_tests/deployments

# The report needs the data of all tests, so CI collects it from several jobs.
.PHONY: coverage coverage-report
coverage: ## Run test, test-faults, test-fuzz and test-deployments, and report the code that they do not run: 45 minutes
	@rm -rf data/coverage
	@$(MAKE) --no-print-directory COVERAGE=1 test test-faults test-fuzz test-deployments
	@$(MAKE) --no-print-directory coverage-report

coverage-report: $(VENV)/.dev
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

.PHONY: test-dbt
test-dbt: setup-dbt ## Test the dbt example on DuckDB and Postgres, in its own environment
	@$(DBT)/.venv/bin/python -m pytest -q -n 2 --dist loadfile $(DBT)/tests

.PHONY: test-unit
test-unit: $(VENV)/.dev ## Run the unit tests only: a minute
	@$(BIN)/python -m pytest -q taxi_assets_tests/unit

# Each has its own environment, resolved on every call, with the newest compatible test tools.
.PHONY: test-lowest test-newest
test-lowest: RESOLUTION := lowest-direct
test-lowest: ## Run unit and definition tests with the lowest versions that pyproject.toml allows
test-newest: RESOLUTION := highest
test-newest: ## Run unit and definition tests with the newest versions available
test-lowest test-newest: test-%: $(BIN)/uv
	@$(BIN)/uv venv --quiet --clear --python $(PYTHON) .venv-$*
	@$(BIN)/uv pip compile pyproject.toml --quiet --python .venv-$*/bin/python --resolution $(RESOLUTION) --no-header --no-annotate --output-file .venv-$*/runtime.txt
	@$(BIN)/uv pip install --quiet --python .venv-$*/bin/python -r .venv-$*/runtime.txt --group dev
	@.venv-$*/bin/python -m pytest -q -n 3 --dist worksteal taxi_assets_tests/unit taxi_assets_tests/definitions \
	  --ignore taxi_assets_tests/unit/test_licenses.py  # it lists the locked versions

.PHONY: test-ui
test-ui: $(VENV)/.dev ## Test Dagster's UI in a browser (needs chromium)
	@$(PYTEST) taxi_assets_tests/ui

.PHONY: screenshots
screenshots: $(VENV)/.dev ## Run test-ui and write its screenshots to docs/images
	@TAXI_TEST_SCREENSHOTS=docs/images $(BIN)/python -m pytest -q taxi_assets_tests/ui

.PHONY: dist
dist: $(VENV)/.dev ## Build the package into dist/: an sdist, and a wheel from it
	@rm -rf dist
	@$(UV) build --quiet --no-build-isolation --offline
	@rm -rf taxi_assets.egg-info

.PHONY: audit
audit: $(VENV)/.audit ## Check the image's packages for known vulnerabilities (asks PyPI; fails if it cannot look a package up)
	@$(BIN)/pip-audit --strict --require-hashes --disable-pip --progress-spinner off -r requirements/docker.lock

.PHONY: docs
docs: $(VENV)/.dev ## Generate the documents that come from the code and the installed packages
	@$(BIN)/python -m taxi_assets.cli.docgen docs
	@$(BIN)/python -m taxi_assets_tests.licenses > docs/licenses.md

.PHONY: site
site: $(VENV)/.docs ## Build the documentation website in data/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "data/site/index.html"

.PHONY: bench
bench: $(VENV)/.bench ## Measure speed and memory against alternatives: docs/benchmarks.md (ONLY=clean,memory REPETITIONS=3)
	@$(BIN)/python -m benchmarks $(if $(ONLY),--only "$(ONLY)") $(if $(REPETITIONS),--repetitions "$(REPETITIONS)")

.PHONY: bench-page
bench-page: $(VENV)/.bench ## Write docs/benchmarks.md and its chart from the last measurements
	@$(BIN)/python -m benchmarks --only none
