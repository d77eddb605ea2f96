# make demo: install, train on real data, export, verify, compare.   make test: everything that must hold.
# make test-delegates: runtimes and accelerators that need packages of their own.   make test-web: pages, seen in Chromium.
# make test-arm64, test-android: bundles on emulated processors, and on Java.   make test-ray: the example with Ray.
# make bench: speed beside what else there is.   make coverage, make generated: the long tests.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Two processes of TensorFlow fit into 8 GB; more of them only where there is room.
WORKERS ?= 2

# Programs of the system; as root.
APT := apt-get update --quiet=2 && apt-get install --quiet=2 --yes --no-install-recommends

# What the tests of delegates need beside the delegates.
TESTS := "hypothesis>=6.100" "pytest>=8.3" "pytest-timeout>=2.3"

.PHONY: demo test test-arm64 test-android test-ray test-delegates test-web lint types imports tests format readme coverage generated bench bench-devices bench-quantization bench-scale clean

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
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# Sets of packages that are large, or exclude each other: an environment for each. Software Vulkan stands in for a GPU.
test-delegates: .venv-delegates/ready .venv-delegates/vulkan/env .venv-delegates/onnxruntime/onnxruntime_c_api.h .venv-tflite-runtime/ready .venv-cuda/ready
	command -v adb > /dev/null || { $(APT) adb; }
	command -v c++ > /dev/null || { $(APT) g++; }
	. .venv-delegates/vulkan/env && MH_EDGE_DEVICES="$(DELEGATES)" .venv-delegates/bin/python -m pytest tests/delegates \
		--ignore tests/delegates/test_tflite_runtime.py --ignore tests/delegates/test_cuda.py
	MH_EDGE_DEVICES=tflite-runtime .venv-tflite-runtime/bin/python -m pytest tests/delegates/test_tflite_runtime.py \
		tests/delegates/test_contract.py
	MH_EDGE_DEVICES=cpu .venv-cuda/bin/python -m pytest tests/delegates/test_cuda.py tests/delegates/test_contract.py

DELEGATES := cpu openvino webgpu qnn xnnpack litert-builtin litert-reference litert-gpu litert-npu tflite-micro

# The report and the bundles for the web, in the system's Chromium; WebGPU on its software Vulkan.
test-web: .venv/web tests/web/node_modules/.package-lock.json
	command -v chromium > /dev/null || { $(APT) chromium fonts-dejavu-core; }
	$(BIN)/python -m pytest tests/web

# The self-test of Android's bundles: Kotlin, by the compiler that a package of PyPI brings, on Debian's Java.
test-android: .venv/dev .venv-kotlin/ready
	test -e /usr/share/java/com.android.json.jar && command -v java > /dev/null || \
		{ $(APT) openjdk-17-jre-headless libandroid-json-java; }
	MH_EDGE_KOTLIN=.venv-kotlin/run_kotlin_kernel/jars $(BIN)/python -m pytest tests/bundling/test_android_kotlin.py

# What the example with Ray answers, beside a single process; the environment with TensorFlow exports its model.
test-ray: .venv-ray/ready .venv-ray/example/digits.onnx
	MH_EDGE_RAY_EXAMPLE=.venv-ray/example .venv-ray/bin/python -m pytest tests/ray

# A kit for Linux on ARM, in a Debian of that architecture under an emulator.
test-arm64: .venv/dev .venv-arm64/ready
	MH_EDGE_ARM64=.venv-arm64 $(BIN)/python -m pytest tests/arm64

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

bench-devices: .venv/local .venv-delegates/ready .venv-delegates/vulkan/env
	PYTHONPATH=tests $(BIN)/python -m benchmarks.devices prepare
	. .venv-delegates/vulkan/env && PYTHONPATH=tests .venv-delegates/bin/python -m benchmarks.devices measure \
		--output tests/benchmarks/results/devices.md

bench-scale: .venv-bench/ready
	$(BENCH).scale --output tests/benchmarks/results/scale.md

clean:
	rm -rf tests/web/node_modules .venv .venv-* .bench demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/python: Makefile
	$(PYTHON) -m venv .venv
	touch $@

.venv-arm64/ready: .venv/python tests/arm64/tree.sh
	PYTHON=$(BIN)/python tests/arm64/tree.sh $(@D)
	touch $@

.venv-bench/ready: Makefile setup.cfg
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check -e ".[bench]"
	touch $@

.venv-delegates/ready: Makefile setup.cfg
	$(PYTHON) -m venv .venv-delegates
	.venv-delegates/bin/python -m pip install --quiet --disable-pip-version-check $(TESTS) \
		-e ".[cpu,litert,micro,openvino,webgpu,qnn,litert-npu]"
	touch $@

.venv-delegates/vulkan/env: .venv-delegates/ready tests/delegates/vulkan.sh
	tests/delegates/vulkan.sh $(@D)

.venv-delegates/onnxruntime/onnxruntime_c_api.h: .venv-delegates/ready tests/delegates/ort_headers.sh
	tests/delegates/ort_headers.sh $(@D)
	touch $@

.venv-tflite-runtime/ready: Makefile setup.cfg
	$(PYTHON) -m venv .venv-tflite-runtime
	.venv-tflite-runtime/bin/python -m pip install --quiet --disable-pip-version-check $(TESTS) -e ".[tflite-runtime,litert]"
	touch $@

.venv-kotlin/ready: Makefile
	$(PIP) --no-deps --upgrade --target .venv-kotlin kotlin-jupyter-kernel==0.19.0.944
	touch $@

.venv-cuda/ready: Makefile setup.cfg
	$(PYTHON) -m venv .venv-cuda
	.venv-cuda/bin/python -m pip install --quiet --disable-pip-version-check $(TESTS) -e ".[cuda]"
	touch $@

.venv-ray/ready: Makefile setup.cfg
	$(PYTHON) -m venv .venv-ray
	.venv-ray/bin/python -m pip install --quiet --disable-pip-version-check $(TESTS) -e ".[ray]"
	touch $@

.venv-ray/example/digits.onnx: .venv/local examples/08_scale_out_with_ray/export.py
	$(BIN)/python examples/08_scale_out_with_ray/export.py $(@D)

.venv/local: .venv/python setup.cfg
	@echo "installing into .venv; TensorFlow is large, this takes a minute or more"
	$(PIP) -e ".[local]"
	touch $@

.venv/dev: .venv/python setup.cfg
	@echo "installing into .venv; TensorFlow is large, this takes a minute or more"
	$(PIP) -e ".[dev]"
	touch $@

.venv/web: .venv/dev
	$(PIP) "playwright>=1.50,<2"
	touch $@

tests/web/node_modules/.package-lock.json: tests/web/package-lock.json
	command -v npm > /dev/null || { $(APT) npm; }
	npm ci --prefix tests/web --ignore-scripts --no-audit --no-fund
	touch $@
