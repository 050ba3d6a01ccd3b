# `make` alone lists what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= auto

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | awk -F'\t' '{printf "  %-10s %s\n", $$1, $$2}'

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(VENV)/.installed: pyproject.toml | $(BIN)/uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --editable . --group dev
	@touch $@ $(VENV)/.installed

.PHONY: run
run: $(VENV)/.installed ## Install, start the server on http://localhost:8080 and print how to use it
	@exec $(BIN)/ai-middleware serve

.PHONY: test
test: $(VENV)/.installed-dev lint ## Everything that CI runs: linters, types, import contracts, tests
	$(BIN)/pytest --numprocesses $(WORKERS)

.PHONY: lint
lint: $(VENV)/.installed-dev ## Style, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: format
format: $(VENV)/.installed-dev ## Bring the code into its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: schema
schema: $(VENV)/.installed-dev ## Write schema.graphql from the code, and the README's table of settings
	$(BIN)/ai-middleware schema
	$(BIN)/python -m gateway.settings_table

.PHONY: soak
soak: $(VENV)/.installed-dev ## The long runs: 100 kills of a working server, stalled readers
	$(BIN)/pytest -m soak -o addopts=

.PHONY: bench
bench: $(VENV)/.installed-dev ## Measure against a bare pass-through and write benchmarks/results.md
	$(BIN)/python -m benchmarks

.PHONY: clean
clean: ## Remove what was installed and built; DATA_DIR stays
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
