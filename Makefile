# Two front doors: `make demo` and `make test`. Each does all the set-up by itself and is incremental afterwards.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check

.PHONY: demo test check setup clean
.DEFAULT_GOAL := demo

demo: setup
	$(BIN)/fieldloop demo

test: setup .venv/.dev check
	$(BIN)/pytest

# Format, lint and types.
check: setup .venv/.dev
	$(BIN)/ruff format --check host device tests boards bench
	$(BIN)/ruff check host device tests boards bench
	$(BIN)/mypy

setup: .venv/.run

.venv/.run: requirements.txt pyproject.toml scripts/system-packages
	scripts/system-packages
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "fieldloop needs Python 3.10 or newer: set PYTHON=/path/to/python3" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) torch==2.13.0
	$(PIP) -r requirements.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	touch $@

.venv/.dev: requirements-dev.txt .venv/.run
	$(PIP) -r requirements-dev.txt
	touch $@

clean:
	rm -rf build
