# The environment is made once, and again whenever pyproject.toml changes.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin

.venv/made: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable .
	touch $@

.PHONY: study test lab bench scaling soak publish
study: .venv/made
	$(BIN)/negmeta study demo --workers 2
	$(BIN)/negmeta report demo

test: .venv/made
	$(BIN)/python -m pytest -n auto --dist loadfile

lab: .venv/made
	$(BIN)/jupyter lab notebooks

bench: .venv/made
	$(BIN)/python -m benchmarks.against_peers

scaling: .venv/made
	$(BIN)/python -m benchmarks.scaling

# Hundreds of kills, and nbval twenty times on a busy machine: half an hour on two cores.
soak: .venv/made
	$(BIN)/python tests/soak.py

# For maintainers, after `negmeta study` of each: what of their results the repository keeps.
publish: .venv/made
	$(BIN)/python tools/publish.py
