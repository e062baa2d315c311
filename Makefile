# `make demo` and `make test` are all a newcomer needs. Every target first builds what it needs: a
# virtual environment in .venv with the pinned versions of constraints.txt. Without the pins a plain
# `pip install torch` may bring a newer release with several gigabytes of CUDA libraries.

SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
# The tests keep torch to one thread each, so a worker per core uses the machine without fighting.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(min(8, os.cpu_count() or 1))')

.DEFAULT_GOAL := help
.PHONY: help demo test bench parity lint types format docs clean

help:
	@echo "make demo     explain real models of photos, texts and tables, with pictures"
	@echo "make test     lint, types, doctests, laws, examples: all that a change must pass"
	@echo "make bench    the table of time and memory against Captum and hand-written code"
	@echo "make parity   the comparison with Captum alone"
	@echo "make lint | types | format    one tool alone"
	@echo "make clean    remove the environment, caches and pictures"

demo: .venv/.examples
	@$(BIN)/python examples/image_classifier.py
	@$(BIN)/python examples/class_activation.py
	@$(BIN)/python examples/superpixels.py
	@$(BIN)/python examples/text_classifier.py
	@$(BIN)/python examples/tabular_model.py
	@$(BIN)/python examples/conductance.py
	@echo "The pictures are in examples/output. To look into the models in the browser:"
	@echo "    $(BIN)/python -m attrib.insights"

test: lint types .venv/.browser
	@$(BIN)/python -m pytest --quiet --numprocesses=$(WORKERS) --dist=worksteal --durations=10

bench: .venv/.dev
	@$(BIN)/python -m benchmarks

parity: .venv/.dev
	@$(BIN)/python -m pytest --quiet -m parity

lint: .venv/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: .venv/.dev
	@$(BIN)/pyright --pythonpath $(BIN)/python

format: .venv/.dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	rm -rf .venv .hypothesis .pytest_cache .ruff_cache .cache examples/output
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment grows in two steps, so that the demo does not wait for the developer's tools.

.venv/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo "attrib needs Python 3.10 or newer, '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." >&2; \
	    echo "Name another one:  make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -m venv --clear .venv || { \
	    echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@touch $@

.venv/.examples: .venv/.created pyproject.toml constraints.txt
	$(call install,plot$(comma)progress$(comma)insights$(comma)examples)

.venv/.dev: .venv/.examples
	$(call install,plot$(comma)progress$(comma)insights$(comma)notebook$(comma)examples$(comma)parity$(comma)dev)

# The pages of the library are tested in a real browser.

.venv/.browser: .venv/.dev
	@command -v chromium > /dev/null || { \
	    echo "Installing Debian's chromium: once, a minute or more"; \
	    as_root=$$([ "$$(id -u)" = 0 ] || echo sudo); export DEBIAN_FRONTEND=noninteractive; \
	    { $$as_root apt-get update -qq && $$as_root apt-get install -y -qq \
	        --no-install-recommends chromium fonts-dejavu-core; } > .venv/browser.log 2>&1 || { \
	    tail -n 5 .venv/browser.log >&2; \
	    echo "Install chromium by hand; 'make test' needs it, nothing else does." >&2; exit 1; }; }
	@touch $@

comma := ,
define install
	@echo "Installing attrib[$(1)] into .venv: once, a minute or more"
	@$(BIN)/python -m pip install --quiet --no-input --disable-pip-version-check --retries 2 \
	    --constraint constraints.txt --editable '.[$(1)]' > .venv/install.log 2>&1 || { \
	    if grep -qE 'connection broken|Failed to establish|[Tt]imed out' .venv/install.log; \
	    then echo "The package index could not be reached." >&2; \
	    else tail -n 5 .venv/install.log >&2; fi; \
	    echo "All that pip said is in .venv/install.log. With the wheels in a folder of your own:" >&2; \
	    echo "    PIP_NO_INDEX=1 PIP_FIND_LINKS=/path/to/wheels make $(firstword $(MAKECMDGOALS))" >&2; \
	    exit 1; }
	@touch $@
endef
