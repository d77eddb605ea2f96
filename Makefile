# make demo: install, train on real data, export, verify, compare.   make test: everything that must hold.
# make bench: speed beside what else there is.   make coverage, make generated: the long tests.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Two processes of TensorFlow fit into 8 GB; more of them only where there is room.
WORKERS ?= 2

.PHONY: demo test lint types imports tests format readme coverage generated bench bench-quantization bench-scale clean

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

# Minutes each: every layer of Keras; many models that hypothesis draws.
coverage: .venv/dev
	$(BIN)/python tests/layer_coverage.py --jobs $(WORKERS) --output docs/coverage.md

generated: .venv/dev
	$(BIN)/python tests/generated/run.py --models 300 --output tests/generated/results.md

# An hour (quantization: a quarter), on a machine that does nothing else, in an environment of their own (PyTorch takes
# 5 GB).
BENCH := PYTHONPATH=tests .venv-bench/bin/python -m benchmarks

bench: .venv-bench/ready
	$(BENCH).speed prepare --jobs $(WORKERS)
	$(BENCH).speed time

bench-quantization: .venv-bench/ready
	$(BENCH).quantization --output tests/benchmarks/results/quantization.md

bench-scale: .venv-bench/ready
	$(BENCH).scale --output tests/benchmarks/results/scale.md

clean:
	rm -rf .venv .venv-bench .bench demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/python: Makefile
	$(PYTHON) -m venv .venv
	touch $@

.venv-bench/ready: Makefile setup.cfg
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check -e ".[bench]"
	touch $@

.venv/local: .venv/python setup.cfg
	@echo "installing into .venv; TensorFlow is large, this takes a minute or more"
	$(PIP) -e ".[local]"
	touch $@

.venv/dev: .venv/python setup.cfg
	@echo "installing into .venv; TensorFlow is large, this takes a minute or more"
	$(PIP) -e ".[dev]"
	touch $@
