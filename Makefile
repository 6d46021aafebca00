# Everything a newcomer types. Each target first makes the environment, once; VENV=… puts it elsewhere, for many checkouts.
VENV ?= .venv
PYTHON ?= python3.11
BIN = $(VENV)/bin
# One torch thread a process: two spinning threads beside another busy process run 30 times slower.
TEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2
# The dependencies are installed once per setup.cfg, for all checkouts; the package is linked to the checkout at work.
INSTALLED = $(VENV)/.clmed-$(shell sha256sum setup.cfg | cut -c1-12)
LINKED = $(VENV)/.clmed-checkout

.PHONY: help setup demo test test-full lint format wheel docs links miniworld-table strategy-costs speed-tables clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20

setup: $(INSTALLED)  ## the environment: dependencies and clmed itself, editable
	@test "$$(cat $(LINKED))" = "$(CURDIR)" || \
	{ $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e . && echo "$(CURDIR)" > $(LINKED); }

$(INSTALLED):
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	echo "$(CURDIR)" > $(LINKED)
	touch $@

demo: setup  ## adapt a small model with replay, and see what it forgets (4 minutes the first time)
	$(BIN)/clmed run experiments/replay.yaml -o runs/demo --overwrite

test: setup  ## the test suite
	$(TEST)

test-full: setup  ## the long checks as well
	$(TEST) -m 'full or not full'

lint: setup  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy clmed strategies

format: setup  ## let ruff put everything in form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup  ## docs/_build/html/index.html, with the references made from the code
	$(BIN)/python -m pip install --quiet -e '.[docs]'
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

links: setup  ## whether the links to other sites still lead somewhere (needs a network)
	$(BIN)/python -m pip install --quiet -e '.[docs]'
	$(BIN)/python -m sphinx -q -b linkcheck docs docs/_build/linkcheck

wheel: setup  ## build dist/*.whl
	rm -rf dist build
	$(BIN)/python -m build --wheel --outdir dist .

miniworld-table: setup  ## docs/results/miniworld.md: all methods, seeds and worlds; what is known is not run again
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/miniworld.py

strategy-costs: setup  ## the table of docs/results/strategies.md, on an otherwise idle machine (15 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/strategies.py

speed-tables: setup  ## the tables of docs/results/speed.md, on an otherwise idle machine
	$(BIN)/python benchmarks/speed.py

clean:  ## remove what was built (not the environment, not runs)
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
