# Everything runs from a fresh clone; each target installs what it needs and is quick when that is already there.
# Root is needed for network namespaces (demo, test); the root namespace itself is never programmed.

VENV := .venv
# Debian's own Python first: the daemons run as another user, who can read /usr but maybe not a private Python.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3.11 /usr/bin/python3.12 /usr/bin/python3.13) python3)
PACKAGES := controlloop subnet_alloc netagent proxy netctl lab

.PHONY: setup demo test check bench picture fmt lock clean

setup:
	@PYTHON=$(PYTHON) ./setup.sh

demo: setup
	@$(VENV)/bin/python -m lab.demo

# Packet tests wait more than they work: three processes pay on two cores. A file stays in one process, the longest first.
test: check
	@$(VENV)/bin/pytest -n 3 --dist loadfile --no-loadscope-reorder

check: setup
	@$(VENV)/bin/ruff check --quiet . && $(VENV)/bin/ruff format --quiet --check .
	@$(VENV)/bin/mypy --no-error-summary
	@report=$$($(VENV)/bin/lint-imports --no-logo 2>&1) || { echo "$$report"; exit 1; }
	@echo "check: ruff, mypy --strict and import contracts passed"

bench: setup
	@$(VENV)/bin/python -m bench.overlay --write
	@$(VENV)/bin/python -m bench.healing --write
	@$(VENV)/bin/python -m bench.proxy --write
	@$(VENV)/bin/python -m bench.explain --write
	@$(VENV)/bin/python -m bench.top --write
	@$(VENV)/bin/python -m bench.commands --write
	@$(VENV)/bin/python -m bench.lab --write

# What README.md shows: half a minute in network namespaces. Best on a machine that does nothing else.
picture: setup
	@$(VENV)/bin/python -m lab.picture

fmt: setup
	@$(VENV)/bin/ruff check --fix --quiet . ; $(VENV)/bin/ruff format --quiet .

# Needs uv (pip install uv); the result carries hashes for every platform and names no index.
lock:
	uv pip compile --quiet --universal --generate-hashes --no-header pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --generate-hashes --no-header --extra dev pyproject.toml -o requirements-dev.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
