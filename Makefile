# Every target installs what it needs into .venv first.
SHELL := bash
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
RAY := .venv/.ray
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install demo picture assets test test-all lint bench fuzz docs clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(INSTALLED): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

install: $(INSTALLED)  ## make .venv from requirements.lock, with this package editable

demo: $(INSTALLED)  ## shipped models at work: two datasets, their verdict, a page; a few minutes
	$(BIN)/negface demo --out runs/demo

picture: demo  ## draw the README's opening picture from the demo's results
	$(BIN)/negface report runs/demo/results.json --out runs/demo/report.html --picture docs/pictures/opening.png

SIZE ?= cpu
assets: $(INSTALLED)  ## make every shipped model again (resumable; SIZE=gpu for one GPU)
	$(BIN)/negface assets make --out runs/assets --size $(SIZE) --install
	cp runs/assets/results.csv results/assets.csv

test: $(INSTALLED)  ## all but the slow tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

$(RAY): $(INSTALLED) requirements-ray.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-ray.lock
	touch $@

test-all: $(RAY)  ## the slow tests too
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) -m ""

lint: $(INSTALLED)  ## ruff, and the contract of the layers
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/lint-imports

BENCHMARKS := released_recipe savings denoiser decoders reuse generation separability scoring negative_selection training \
	recognition_training population population_likeness dataset_conversion
bench: $(INSTALLED)  ## one table: ours against the released recipe and pyeer; then every other benchmark
	set -e; for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python "benchmarks/$$name.py"; done

FUZZ_JOBS ?= 1
fuzz: $(INSTALLED)  ## ten minutes of damaged files for every reader (FUZZ_JOBS readers at a time)
	NEGFACE_FUZZ_SECONDS=600 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/fuzz -m "" -n $(FUZZ_JOBS)

docs: $(INSTALLED)  ## write docs/cli.md from the commands' own help
	$(BIN)/python -m negface.cli.reference docs/cli.md

clean:  ## remove what tools leave behind (never .venv, never runs/)
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
