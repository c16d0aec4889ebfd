# What one types in this project. `make` alone explains itself.
# Stamp files inside the virtual environment remember what is installed, so that a second run starts at once.

VENV ?= .venv
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
CODE := src tests bench
TEST_PROCESSES ?= auto

.DEFAULT_GOAL := help
.PHONY: help demo serve test kill-test stripe-test install-node check format-check lint types layers bench bench-quick fmt clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed ## Try it: gateway, simulated provider, account, credit and key on PORT (8080)
	@exec $(BIN)/dragonfly demo

serve: $(VENV)/.installed ## Run the gateway from dragonfly.toml and the environment
	@exec $(BIN)/dragonfly serve

test: $(VENV)/.testable install-node ## Install what the tests need and run them all (pages: with Debian's chromium)
	@$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --maxprocesses 4 --dist worksteal

kill-test: $(VENV)/.testable ## The long version of the tests that kill and starve it (about twenty minutes)
	@KILLS=200 OUTAGE_S=30 $(BIN)/python -m pytest tests/store/test_kill.py tests/system/test_kill.py \
		tests/system/test_outage.py --timeout 3600

stripe-test: $(VENV)/.testable ## Walk through Stripe's own test mode: STRIPE_TEST_KEY=sk_test_…; STRIPE_OPENAPI=spec3.json
	@$(BIN)/python -m pytest -rs tests/store/test_stripe_test_mode.py tests/store/test_stripe_description.py

install-node: ## Install OpenAI's Node SDK for its test, where there is a Node
	@if command -v npm >/dev/null 2>&1 && ! test -d tests/sdk/node/node_modules/openai; then \
		npm install --prefix tests/sdk/node --no-audit --no-fund --no-package-lock --ignore-scripts --loglevel=error >/dev/null \
		|| echo "  The Node SDK could not be installed; its test will be skipped"; fi

check: format-check lint types layers test ## All that a change must pass; what continuous integration runs

format-check: $(VENV)/.checkable
	@$(BIN)/ruff format --quiet --check $(CODE) || { echo "Some files are not formatted: make fmt"; exit 1; }

lint: $(VENV)/.checkable ## Rules of ruff
	@$(BIN)/ruff check --quiet $(CODE)

types: $(VENV)/.checkable ## mypy, strict
	@$(BIN)/mypy --no-error-summary

layers: $(VENV)/.checkable ## The import ladder
	@$(BIN)/lint-imports --no-cache --no-logo

bench: $(VENV)/.testable ## Measure against nginx and other gateways (about ten minutes)
	@$(BIN)/python -m bench

bench-quick: $(VENV)/.testable ## The same in about a minute
	@$(BIN)/python -m bench --quick

fmt: $(VENV)/.checkable ## Format and repair what can be repaired
	@$(BIN)/ruff check --quiet --fix-only $(CODE)
	@$(BIN)/ruff format --quiet $(CODE)

-include bench/bench.mk

clean: ## Remove the virtual environments, caches and the demo's data
	@rm -rf $(VENV) .bench-venv .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Dragonfly needs Python 3.11 or newer. Install it, or name it: make PYTHON=/path/to/python3 …"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
	@$(PIP) install --upgrade 'pip>=25.1' || { rm -rf $(VENV); exit 1; }

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@$(PIP) install --upgrade 'pip>=25.1'
	@echo "Installing Dragonfly into $(VENV) …"
	@$(PIP) install --editable .
	@touch $@

$(VENV)/.testable: pyproject.toml $(VENV)/.installed
	@echo "Installing what the tests need …"
	@$(PIP) install --editable . --group test
	@$(PIP) install --group postgresql 2>/dev/null \
		|| echo "  There is no PostgreSQL for this platform; without TEST_POSTGRESQL_URL its tests will be skipped"
	@touch $@

$(VENV)/.checkable: pyproject.toml $(VENV)/.testable
	@echo "Installing what the checks need …"
	@$(PIP) install --group lint
	@touch $@
