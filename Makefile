# Two front doors: `make demo` and `make test`. Each does all the set-up by itself and is incremental afterwards.
# `make test-zephyr` runs what `make test` skips without a Zephyr workspace.

PYTHON ?= python3
BIN := .venv/bin
LINTED := host device tests boards bench scripts zephyr_app
PIP := $(BIN)/pip install --quiet --disable-pip-version-check

.PHONY: demo test test-zephyr check setup clean
.DEFAULT_GOAL := demo

demo: setup
	$(BIN)/fieldloop demo

test: setup .venv/.dev check
	$(BIN)/pytest

# Everything on real Zephyr, twister included: make test-zephyr FIELDLOOP_ZEPHYR_WS=/path/to/workspace
# ZEPHYR_ARGS: more for pytest on tests/zephyr, for example ZEPHYR_ARGS="-k native_sim".
test-zephyr: setup .venv/.dev
	$(BIN)/pytest tests/device --zephyr --fieldloop-board mpy-native_sim,mpy-m3 -k mpy-
	$(BIN)/pytest tests/zephyr --zephyr --durations=10 $(ZEPHYR_ARGS)

# Format, lint and types.
check: setup .venv/.dev
	$(BIN)/ruff format --check $(LINTED)
	$(BIN)/ruff check $(LINTED)
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
