# Everything runs inside .venv, which the first target sets up from constraints.txt. `make help` lists the targets.

PYTHON ?= python3
TORCH  ?= torch==2.13.0
# Test processes: as many as the machine has cores, at most 4 (a Verilator build takes one core each).
JOBS   ?= auto
# Options for every pytest run, as in `make test ARGS='-k packing -x'`.
ARGS   ?=

VENV  := .venv
BIN   := $(VENV)/bin
PIP   := $(BIN)/python -m pip --disable-pip-version-check
STAMP := $(VENV)/stamp
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --maxprocesses 4 --dist loadgroup

# The tests run make themselves (Verilator's builds): no option of this make may reach those.
unexport MAKEFLAGS
# Every process would compile PyTorch anew where the shell forbids keeping bytecode.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test verify formal mutate lint lint-rules lint-format lint-types format rtl clean clean-all

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) ## create .venv with everything that the other targets need

demo: $(STAMP) ## ternarise a real layer, run it through every level, print one table
	$(BIN)/python demo.py

test: $(STAMP) ## set up and run every test that is not marked slow
	$(PYTEST) -m 'not slow' --durations 10 $(ARGS)

verify: $(STAMP) ## run the long checks (tests marked slow)
	$(PYTEST) -m slow --timeout 1800 --durations 10 $(ARGS)

formal: $(STAMP) ## prove what the gateware's blocks promise, with solvers
	$(BIN)/python -m tern_hw.prove

mutate: $(STAMP) ## break a small array in many places; which tests notice?
	$(BIN)/python -m sim.mutate

lint: lint-rules lint-format lint-types ## ruff's rules, ruff's format, mypy

lint-rules: $(STAMP)
	$(BIN)/python -m ruff check

lint-format: $(STAMP)
	$(BIN)/python -m ruff format --check

lint-types: $(STAMP)
	$(BIN)/python -m mypy

format: $(STAMP) ## sort imports, apply safe fixes, format
	$(BIN)/python -m ruff check --fix
	$(BIN)/python -m ruff format

rtl: $(STAMP) ## write rtl/ again from the named configurations
	$(BIN)/python -m tern_hw.generate --all

clean: ## remove what the tools left behind
	rm -rf build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

clean-all: clean ## the same, and the environment
	rm -rf $(VENV)

# The stamp is written last: an interrupted set-up is taken up again.
# --no-compile: compiling every module of every package takes longer than compiling those that are imported.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) must be installed (or give another: make PYTHON=...)" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python must be 3.11 or newer, not $$($(PYTHON) --version 2>&1)" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: $(PYTHON) must have venv and ensurepip (Debian packs them apart, as python3-venv)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt setuptools
	$(PIP) install --quiet --constraint constraints.txt --no-build-isolation --no-compile --editable '.[sim,synth,formal,explore,notebooks,quant,dev]' '$(TORCH)'
	$(PIP) check
	touch $@
