# The environment is made once, and again whenever what it is made from changes. Its versions are
# those of constraints.txt, which the published digits hold for; `make latest` takes the newest.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
INDEX :=
QUICK := $(addprefix tests/,engine evidence questions storage/test_files.py test_model.py \
	test_episodes.py test_adaptation.py test_prototypes.py test_evaluation.py test_rates.py test_runs.py \
	test_training.py test_imports.py test_dependencies.py)
INSTALL = $(BIN)/pip install $(if $(INDEX),--extra-index-url $(INDEX)) --editable

define SIZES
On Linux about 3.2 GB are now downloaded, and 6.5 GB installed in .venv. CUDA's libraries are 2.5
and 4.3 GB of these, and only an NVIDIA card needs them. Without one, stop here (Ctrl-C) and have
PyTorch's build for CPUs: make study INDEX=ADDRESS, with the address that the installation page at
pytorch.org names for CPU.
endef
export SIZES

.venv/made: pyproject.toml constraints.txt
	@$(MAKE) --no-print-directory sizes
	$(PYTHON) -m venv .venv
	$(INSTALL) . --constraint constraints.txt
	echo constraints.txt > $@

# With what the tests need as well.
.venv/made-tests: .venv/made
	$(INSTALL) '.[test]' --constraint constraints.txt
	cp .venv/made $@

sizes:
	@echo "$$SIZES"

.PHONY: study sizes test quick lint lab latest lock bench scaling soak publish
study: .venv/made
	$(BIN)/negmeta study demo --workers 2
	$(BIN)/negmeta report demo
	$(BIN)/negmeta verify

test: .venv/made-tests
	@echo "Versions: $$(cat .venv/made-tests)"
	$(BIN)/python -m pytest -p no:nbval -n auto --dist loadfile --no-loadscope-reorder

# The core without kernels, studies and pages, and without what takes half a second a test. In one
# process, since a second one would take ten seconds to import as much; the plugin of nbval, three.
quick: .venv/made-tests
	$(BIN)/python -m pytest -q -p no:nbval -m "not slow" $(QUICK)

lint: .venv/made-tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

lab: .venv/made
	$(BIN)/jupyter lab notebooks

# The environment anew with the newest releases that pyproject.toml allows; then `make test`.
latest:
	$(PYTHON) -m venv .venv
	$(INSTALL) '.[test]' --upgrade --upgrade-strategy eager
	echo "the newest releases (make latest)" | tee .venv/made .venv/made-tests

# For maintainers: the versions in .venv become those of constraints.txt.
lock: .venv/made-tests
	$(BIN)/pip list --format freeze --exclude-editable --exclude pip > constraints.txt

bench: .venv/made-tests
	$(BIN)/python -m benchmarks.against_peers

scaling: .venv/made
	$(BIN)/python -m benchmarks.scaling

# Hundreds of kills, and nbval twenty times on a busy machine: half an hour on two cores.
soak: .venv/made-tests
	$(BIN)/python tests/soak.py

# For maintainers, after `negmeta study` of each: what of their results the repository keeps.
publish: .venv/made
	$(BIN)/python tools/publish.py
