# Every target sets up what it needs: `make test` on a machine that has nothing but Python 3.11 creates .venv,
# installs the pinned packages and runs. The set-up is repeated only when pyproject.toml, constraints.txt or the
# version changes.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-compile -c constraints.txt

# The version is part of the stamp's name: raising it renews the installed metadata.
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' src/cutback/__init__.py)
STAMP := $(VENV)/.installed-$(VERSION)
BENCH_STAMP := $(VENV)/.installed-bench

# Passed on to pytest: make test PYTEST_ARGS="-k labels"
PYTEST_ARGS ?=
# Tests run in this many processes, with one thread each.
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup test long demo zoo bench lint format clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

setup: $(STAMP) ## create .venv with everything that the other targets need

# torch goes first and alone, at its pin, so that nothing that follows chooses another version or build.
# torchvision and timm come without their dependencies for the same reason; what they import is in the dev extra.
$(STAMP): pyproject.toml constraints.txt
	@if ! test -x $(BIN)/pip; then \
	  for python in $(PYTHON) python3.11 python3.12 python3.13 python3 python; do \
	    if $$python -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then \
	      echo "creating $(VENV) with $$python"; exec $$python -m venv $(VENV); \
	    fi; \
	  done; \
	  echo "cutback needs Python 3.11, 3.12 or 3.13; none was found (make PYTHON=/path/to/python ...)" >&2; exit 1; \
	fi
	@echo "installing the pinned packages into $(VENV)"
	@$(PIP) torch hatchling
	@$(PIP) --no-build-isolation -e '.[train,dev]'
	@$(PIP) --no-deps torchvision timm
	@rm -f $(VENV)/.installed-*
	@touch $@

test: lint ## lint, then run the tests
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -q --durations 25 $(PYTEST_ARGS)

long: $(STAMP) ## run the tests that take minutes: twelve kills, CIFAR-10
	CUTBACK_LONG_TESTS=1 OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow \
	  tests/cli/test_resume.py tests/cli/test_cifar.py $(PYTEST_ARGS)

demo: $(STAMP) ## halve a small network's MACs on handwritten digits, and prove it
	rm -rf runs/demo
	$(BIN)/cutback prune cutback:resnet20 --data digits --budget macs=50% --finetune 15 --out runs/demo

zoo: $(STAMP) ## try every architecture of the public model zoos, then 5,000 random networks
	$(BIN)/python -m benchmarks.zoo --jobs $(JOBS)
	$(BIN)/python -m benchmarks.zoo.random_suite --jobs $(JOBS)

# Every script in benchmarks/ itself, one after the other. They time things: keep the machine idle.
bench: $(BENCH_STAMP) ## run the benchmarks against other tools
	@set -e; for script in $(filter-out __init__,$(basename $(notdir $(wildcard benchmarks/*.py)))); do \
	  echo "$$script"; $(BIN)/python -m benchmarks.$$script; \
	done

$(BENCH_STAMP): $(STAMP)
	@$(PIP) --no-build-isolation -e '.[bench]'
	@touch $@

lint: $(STAMP) ## check style, formatting, types, the rooms' imports and the files' lengths
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/check_file_lengths.py
	$(BIN)/lint-imports --no-cache
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(STAMP) ## repair what can be repaired by machine
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove caches and build outputs (not .venv, not runs)
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
