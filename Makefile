# Every target is one command on a fresh machine: what needs the environment makes it first.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.installed
TYPED := src $(wildcard benchmarks tests)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow check bench docs clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv and install Trimtab with what its developers need

$(READY): pyproject.toml constraints.txt
	@echo "Installing into .venv (about two minutes the first time, 2 GB) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Trimtab needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; try: make setup PYTHON=python3.11")'
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install -qq --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@touch $@

demo: $(READY) ## watch a training go wrong, and be told why
	@$(BIN)/python examples/demo.py

check: $(READY) ## style, types and import rules
	@$(BIN)/ruff check -q
	@$(BIN)/ruff format -q --check || { echo "some files are not formatted; try: $(BIN)/ruff format"; exit 1; }
	@$(BIN)/mypy --no-error-summary $(TYPED)
	@out=$$($(BIN)/lint-imports --no-logo 2>&1) || { echo "$$out"; exit 1; }
	@echo "check: style, types and imports are fine"

test: check ## check, then every test but the slow ones, in two processes
	@$(BIN)/pytest -n 2 --dist worksteal

test-slow: $(READY) ## the slow tests alone
	@$(BIN)/pytest -m slow -n 2 --dist worksteal

bench: $(READY) ## remake the stored results that are missing
	@$(BIN)/python -m benchmarks.all

docs: $(READY) ## build the generated pages of docs/
	@$(BIN)/python docs/build.py

clean: ## remove .venv, caches and builds (never runs/)
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
