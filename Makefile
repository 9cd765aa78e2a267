# The environment is made once and again whenever pyproject.toml changes.
PYTHON ?= python3
BIN := .venv/bin

.venv/made: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable .
	touch $@

.PHONY: study test lab
study: .venv/made
	$(BIN)/negmeta study demo

test: .venv/made
	$(BIN)/python -m pytest -n auto --dist loadfile

lab: .venv/made
	$(BIN)/jupyter lab notebooks
