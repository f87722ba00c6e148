# `make quickstart` and `make test` need python3.11 or newer, make and pip; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install quickstart test test-slow test-all check format docs notebooks bench bench-peers bench-quality leaderboard clean

help:
	@echo "make quickstart   install, then train, evaluate and recommend on generated data (about a minute)"
	@echo "make test         install, then run all tests except the slow ones, on all cores"
	@echo "make test-slow    the slow ones, which CI runs too (as long again)"
	@echo "make test-all     all of them, also those that take minutes or gigabytes (an hour)"
	@echo "make check        ruff and pyright"
	@echo "make format       let ruff fix what it can"
	@echo "make docs         the table of models and the picture of the results; then the site, build/site/index.html"
	@echo "make notebooks    run the notebooks and keep their outputs (minutes); ARGS=05 for one, with ml-1m in data/ for 05 to 09"
	@echo "make bench        speed, both sides in one run; figures in benchmarks/results"
	@echo "make bench-peers  speed against RecBole, Cornac and implicit, each in its own environment (a quarter of an hour)"
	@echo "make bench-quality  seconds until a training is good, against RecBole and Cornac (hours); ARGS=\"--data FOLDER\" for your data"
	@echo "make leaderboard  every model, tuned, on six data sets (hours); ARGS=\"--source ml-1m=FOLDER\" for data on disk"

install: $(STAMP)

$(STAMP): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit("recvae needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; try make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

quickstart: install
	$(BIN)/recvae quickstart

# Compiled modules are kept, whatever the environment says: the tests start some hundred processes.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest
SHARED := -n logical --maxprocesses 8 --dist worksteal

MARKS := not slow

test: install
	$(PYTEST) -m "$(MARKS)" $(SHARED)

test-slow: install
	$(PYTEST) -m "slow and not large" $(SHARED)

test-all: test test-slow
	$(PYTEST) -m large

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install
	$(BIN)/python docs/tables.py
	$(BIN)/python benchmarks/picture.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	@echo "the site: build/site/index.html"

notebooks: install
	$(BIN)/python docs/site/notebook_pages.py $(ARGS)

bench: install
	$(BIN)/python benchmarks/all.py $(ARGS)

bench-peers: install
	$(BIN)/python benchmarks/peers/run.py $(ARGS)

bench-quality: install
	$(BIN)/python benchmarks/peers/quality.py $(ARGS)

leaderboard: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/leaderboard.py $(ARGS)

clean:
	rm -rf $(VENV) build/site .pytest_cache .ruff_cache .hypothesis
