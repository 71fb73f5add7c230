# `make demo`, `make test` and `make check` each do all set-up they need: a virtual environment in .venv with exactly the
# versions of constraints.txt. It is made once, and again only when pyproject.toml or constraints.txt change.
# Another Python: make test PYTHON=python3.12 (remove .venv first). Another place: make test VENV=/tmp/venv.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-slow faults check format keys setup clean

demo: $(READY)  ## the whole way on text that comes with the package, within minutes
	$(BIN)/ernie2 demo

test: $(READY)  ## every test but the slow ones; those that need a GPU or data that is not here skip themselves
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile -m "not slow"

test-slow: $(READY)  ## the tests marked slow: whole commands, several processes, the CUDA path without a card
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile -m slow

SEED ?= $(shell date +%s)
MINUTES ?= 5
CASES ?= 100000
faults: $(READY)  ## break it on purpose: kills, full disks, damaged files, hostile input; SEED=1 MINUTES=5
	PYTHONPATH=tests $(BIN)/python -m faults.campaign --seed $(SEED) --minutes $(MINUTES) --cases $(CASES)

check: $(READY)  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## put the code into the form that `make check` wants
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

clean:  ## remove what `make` made
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
