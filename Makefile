# `make demo`, `make test` and `make check` set up what they need: a virtual environment in .venv with exactly the
# versions of constraints.txt. It is created once, and again when pyproject.toml or constraints.txt change.
# Another Python: make test PYTHON=python3.12 (remove .venv first). Another folder: make test VENV=/tmp/venv.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-slow faults check format keys setup clean

demo: $(READY)  ## train a small encoder on the bundled text, within minutes
	$(BIN)/ernie2 demo

test: $(READY)  ## run the tests, except slow ones; tests that need a GPU or missing data skip themselves
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile -m "not slow"

test-slow: $(READY)  ## run the tests marked slow: complete commands, several processes, the CUDA path without a GPU
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile -m slow

SEED ?= $(shell date +%s)
MINUTES ?= 5
CASES ?= 100000
faults: $(READY)  ## run the fault campaign: kills, full disks, damaged files, hostile input; SEED=1 MINUTES=5
	PYTHONPATH=tests $(BIN)/python -m faults.campaign --seed $(SEED) --minutes $(MINUTES) --cases $(CASES)

check: $(READY)  ## check lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## format the code as `make check` requires
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

keys: $(READY)  ## write docs/recipe-keys.md from the settings models
	$(BIN)/python docs/write_recipe_keys.py

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("ernie2 needs Python 3.11 or later, and $(PYTHON) is %d.%d; name another: make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV) || { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install pip; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

clean:  ## remove .venv and caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
