# Everything starts here: `make run` for a working Tarsia, `make test` for the whole check.

PYTHON ?= python3
PORT ?= 8080
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := dsl engine stores serve tests experiments examples

.DEFAULT_GOAL := help
.PHONY: help run test lint soak bench clean

help:  ## what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/'

run: $(VENV)/.installed  ## install, pull the models, ingest the examples, serve on PORT and ask a question
	@$(BIN)/python examples/first_run.py --port $(PORT)

test: lint  ## lint, types and all tests
	@echo "== default models (fetched once)"
	@$(BIN)/tarsia models pull
	@echo "== tests"
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "not soak"

lint: $(VENV)/.installed-dev
	@echo "== ruff and mypy"
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/mypy

soak: $(VENV)/.installed-dev  ## the long runs: many kills, many seeds
	@$(BIN)/tarsia models pull
	@$(BIN)/python -m pytest -m soak

bench: $(VENV)/.installed-bench  ## the figures of the README, beside the peers
	@$(BIN)/tarsia models pull
	@$(BIN)/python -m experiments.bench

clean:  ## forget the virtual environment; models, caches and documents stay
	rm -rf $(VENV)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Tarsia needs Python 3.11 or newer; say which: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@echo "== virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@echo "== installing Tarsia and what it needs (about 600 MB on disk, once)"
	@$(PIP) install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "== installing what the tests need"
	@$(PIP) install --quiet --editable '.[dev]'
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	@echo "== installing the peers for the benchmarks"
	@$(PIP) install --quiet --editable '.[bench]'
	@touch $@
