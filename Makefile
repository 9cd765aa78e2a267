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
	$(BIN)/python -m negmeta_utils.bench

scaling: .venv/made
	$(BIN)/python -m negmeta_utils.bench_scaling

# Hundreds of kills, and nbval twenty times on a busy machine: half an hour on two cores.
soak: .venv/made
	$(BIN)/python tests/soak.py

# For maintainers, after `negmeta study` of each: what of their results the repository keeps.
KEPT := negmeta_utils/pretrained
publish:
	for study in demo mini-imagenet; do \
	  mkdir -p figures/$$study && \
	  cp runs/$$study/{alpha,features,statistics}/*.{png,csv,parquet,md} figures/$$study 2>/dev/null; \
	  for run in runs/$$study/train-*; do \
	    cp $$run/manifest.json figures/$$study/$$(basename $$run).json && \
	    cp $$run/figure5.png figures/$$study/figure5-$$(basename $$run).png; \
	  done; \
	done
	for job in few-tasks more-tasks; do \
	  mkdir -p figures/linear-theory/$$job && \
	  cp runs/linear-theory/$$job/*.{png,csv,md} figures/linear-theory/$$job; \
	done
	for job in mechanism datasets inner_steps test_time {alpha,features,statistics}{,_uniform}; do \
	  if [ -f runs/questions/$$job/job.json ]; then \
	    mkdir -p figures/questions/$$job && \
	    cp runs/questions/$$job/*.{png,csv,parquet,md} figures/questions/$$job 2>/dev/null || true; \
	  fi; \
	done
	for method in maml meta-sgd; do \
	  mkdir -p $(KEPT)/glyphs-$$method-0 && \
	  cp runs/demo/train-$$method-0/{manifest.json,*.parquet,model.safetensors} $(KEPT)/glyphs-$$method-0; \
	done
