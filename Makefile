# make demo: install, train on real data, export, verify, compare.   make test: everything that must hold.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Two processes of TensorFlow fit into 8 GB; more of them only where there is room.
WORKERS ?= 2

.PHONY: demo test lint types imports tests format readme clean

demo: .venv/local
	$(BIN)/python examples/00_digits/digits.py

test: lint types imports tests

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/dev
	$(BIN)/mypy

imports: .venv/dev
	$(BIN)/lint-imports

tests: .venv/dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

format: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

readme: .venv/dev
	COLUMNS=120 PYTHONPATH=tests $(BIN)/python tests/documentation.py README.md old.h5=tests/fixtures/reference/attention_masking.h5

clean:
	rm -rf .venv demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/python: Makefile
	$(PYTHON) -m venv .venv
	touch $@

.venv/local: .venv/python setup.cfg
	@echo "installing into .venv; TensorFlow is large, this takes a minute or more"
	$(PIP) -e ".[local]"
	touch $@

.venv/dev: .venv/python setup.cfg
	@echo "installing into .venv; TensorFlow is large, this takes a minute or more"
	$(PIP) -e ".[dev]"
	touch $@
