# Each target makes and reuses .venv by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
EXPERIMENT ?= stdlib
ARGS ?=
# The finished run whose report and card are photographed.
RUN ?= runs/stdlib/main

.PHONY: run plan report screenshots test survival lint format serve clean
.DEFAULT_GOAL := run

run: $(INSTALLED)
	@$(BIN)/titanflow run $(EXPERIMENT) $(ARGS)

plan: $(INSTALLED)
	@$(BIN)/titanflow plan $(EXPERIMENT) $(ARGS)

report: $(INSTALLED)
	@$(BIN)/titanflow report $(EXPERIMENT) $(ARGS)

screenshots: $(INSTALLED)
	@$(BIN)/python docs/screenshots.py $(RUN)

test: $(INSTALLED)
	$(BIN)/python -m pytest $(ARGS)

survival: $(INSTALLED)
	$(BIN)/python -m pytest tests/survival --survival -n 0 -q $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

serve: $(INSTALLED)
	@$(BIN)/python -m deployments.serve $(ARGS)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, $(PYTHON) is {sys.version.split()[0]}: make PYTHON=python3.12 …")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
