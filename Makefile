VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin
DEMO := output/demo
PROCESSES ?= 3

.PHONY: search test check format install clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

## The whole main job on data and a backbone it makes itself: search, retrain, rank.
search: install
	$(BIN)/crossmodal data synth output/demo-data
	$(BIN)/crossmodal search configs/campaigns/demo.yaml --output-dir $(DEMO)
	$(BIN)/crossmodal retrain $(DEMO) --output-dir $(DEMO)/final
	$(BIN)/crossmodal leaderboard $(DEMO)

## Everything that CI runs. Three processes on two cores: tests that kill and restart campaigns mostly wait.
test: check
	$(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadgroup

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) output
