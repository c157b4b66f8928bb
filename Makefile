VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin
LOWEST := .venv-lowest
DEMO := output/demo
PROCESSES ?= 3
# One test after the other to whoever is free. A crash under loadgroup would hang (pytest-xdist 1323).
PARALLEL := --numprocesses $(PROCESSES) --dist load --maxschedchunk 1

.PHONY: search test pytest test-lowest check format hooks docs install clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

## The whole pipeline on generated data and a generated backbone: search, retrain, rank.
search: install
	$(BIN)/crossmodal data synth output/demo-data
	$(BIN)/crossmodal search configs/campaigns/demo.yaml --output-dir $(DEMO)
	$(BIN)/crossmodal confirm $(DEMO) --top 3 --seeds 3
	$(BIN)/crossmodal retrain $(DEMO) --output-dir $(DEMO)/final
	$(BIN)/crossmodal leaderboard $(DEMO)

## Everything that CI runs. Three processes on two cores, since tests that kill and restart campaigns also wait.
test: install
	$(MAKE) --jobs 2 check pytest

pytest: install
	$(BIN)/python -m pytest $(PARALLEL)

## The quick tests with the lowest versions that pyproject.toml allows; torch, which is gigabytes, stays pinned.
test-lowest: $(LOWEST)/.installed
	PYTHONPATH=$(CURDIR) $(LOWEST)/bin/python -m pytest $(PARALLEL) -m "not slow"

$(LOWEST)/.installed: install
	$(PYTHON) -m venv $(LOWEST)
	grep '^torch==' constraints.txt > $(LOWEST)/torch.txt
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement $(LOWEST)/torch.txt
	$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct \
		--override $(LOWEST)/torch.txt --requirement pyproject.toml --extra dev
	touch $@

## An API reference from the docstrings: output/docs/index.html.
docs: install
	$(BIN)/pdoc --output-directory output/docs core search analysis

## Install the pre-commit hooks.
hooks: install
	$(BIN)/pre-commit install

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(LOWEST) output
