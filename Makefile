# The Python that .venv is made with, and the torch that selkern is built and tested with.
PYTHON ?= python3
TORCH ?= torch==2.13.0
# The oldest torch that the same binary must run on.
OLDEST_TORCH := 2.11.0
# More arguments for the program that a target runs.
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
DONE := $(VENV)/done
BUILD_TOOLS := 'setuptools>=77.0.3' pybind11 ninja numpy
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/selkern
# nvcc, which must be of the CUDA that the oldest torch is for, and what reads its machine code.
CUDA_TOOLS := nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 \
	nvidia-cuda-cccl==13.0.85 nvidia-cuda-cuobjdump==13.2.78 nvidia-cuda-nvdisasm==13.2.78
IS_CXX := -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh'
SOURCES := $(shell find csrc $(IS_CXX))
CXX_FILES := $(SOURCES) $(shell find tests tools $(IS_CXX))
KERNEL_TESTS := tests/test_pooling.py tests/test_selectivity.py tests/test_autograd.py \
	tests/test_kernels.py tests/test_map_kernels.py tests/test_spectrum_kernels.py \
	tests/test_centered_products.py tests/test_attack_steps.py tests/test_emulation.py
BUILD_FILES := pyproject.toml setup.py tools/cuda_build.py selkern/_version.py $(SOURCES)

# All that tests need.
TESTED := selkern-test-bench-demo-study

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
unexport PYTHONPATH
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# One test process a core, each with one thread.
PARALLEL := -n auto --maxprocesses=8 --dist worksteal

.PHONY: help demo test bench studies docs lint format sanitize sanitize-quick test-oldest-torch \
	oldest-environment cuda-check cuda clean FORCE

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 26
	echo
	echo "  TORCH=$(TORCH)  PYTHON=$(PYTHON)  ARGS=...  MAX_JOBS=...  are taken from the command line"

demo: $(DONE)/selkern-demo-bench ## train on real digits with the fused regularizer and show what it costs (ARGS=spectrum: the 1/n one)
	$(BIN)/python -m selkern demo $(ARGS)

test: $(DONE)/$(TESTED) $(DONE)/secml-torch ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) $(ARGS)

bench: $(DONE)/selkern-bench ## measure every operator against plain PyTorch
	$(BIN)/python -m selkern bench $(ARGS)

# The small presets, into the folders that the README shows.
STUDIES := benchmarks/results/studies
studies: $(DONE)/selkern-study ## repeat both papers' studies on the digits (35 minutes on two cores)
	for study in selectivity spectrum; do
		$(BIN)/python -m selkern study $$study --data digits --output build/studies/$$study $(ARGS)
		mkdir -p $(STUDIES)/$$study
		cp build/studies/$$study/{report.md,summary.json,*.png} $(STUDIES)/$$study
	done

docs: $(DONE)/selkern-docs-study ## build the documentation, warnings as errors
	$(BIN)/python -m sphinx -W --keep-going -n -b html docs build/docs $(ARGS)

lint: $(DONE)/selkern-dev ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)
	$(BIN)/mypy

format: $(DONE)/selkern-dev ## bring the sources into the style that lint checks
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_FILES)

clean: ## remove all that the other targets made, but for the environment with the oldest torch
	rm -rf $(VENV) build dist *.egg-info selkern/_C.*.so selkern/_C.json \
		selkern/_cuda.*.so

# What is installed: one file in $(DONE) per step that is up to date.

$(DONE)/venv:
	$(PYTHON) -m venv --clear $(VENV)
	mkdir $(DONE)
	touch $@

$(DONE)/torch-chosen: FORCE | $(DONE)/venv
	@echo '$(TORCH)' | cmp --quiet - $@ || echo '$(TORCH)' > $@

$(DONE)/torch: $(DONE)/torch-chosen
	$(PIP) install '$(TORCH)' $(BUILD_TOOLS)
	touch $@

# selkern-test-bench is selkern with the extras test and bench. pip hides what the build prints, so
# the build comes first; pip then finds everything compiled.
comma := ,
$(DONE)/selkern-%: $(DONE)/torch $(BUILD_FILES)
	$(BIN)/python setup.py --quiet build_ext
	$(PIP) install --quiet --no-build-isolation --editable '.[$(subst -,$(comma),$*)]'
	touch $@

# Without torchvision, which it requires and does not need here.
$(DONE)/secml-torch: | $(DONE)/torch
	$(PIP) install --quiet --no-deps secml-torch
	touch $@

# A wheel and a build with sanitizers are installed apart from the source folder, and tested by
# the pytest script, because `python -m pytest` would find the source folder first.

# With --capture=sys, because pytest's own way would swallow a sanitizer's report.
SANITIZED := build/sanitized
SANITIZERS := address,undefined
RUNTIMES = $(foreach name,libasan.so libubsan.so libstdc++.so,$(shell $(CXX) -print-file-name=$(name)))
SANITIZED_PYTEST = PYTHONPATH='$(CURDIR)/$(SANITIZED)' LD_PRELOAD='$(RUNTIMES)' \
	SELKERN_SIMT_SANITIZE=$(SANITIZERS) \
	ASAN_OPTIONS=detect_leaks=0:halt_on_error=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
	$(BIN)/pytest -p no:cacheprovider --capture=sys

sanitize: $(SANITIZED)/done ## run the tests under AddressSanitizer and UndefinedBehaviorSanitizer
	$(BIN)/python tests/simt/simt_build.py --variant $(SANITIZERS)
	$(SANITIZED_PYTEST) -m 'not slow' $(ARGS)

sanitize-quick: $(SANITIZED)/done ## the same for the tests of the kernels alone
	$(BIN)/python tests/simt/simt_build.py --variant $(SANITIZERS)
	$(SANITIZED_PYTEST) -m 'not slow' $(KERNEL_TESTS) $(ARGS)

$(SANITIZED)/done: $(DONE)/$(TESTED) $(shell find selkern benchmarks -name '*.py')
	rm -rf build/lib* $(SANITIZED)
	SELKERN_SANITIZE=$(SANITIZERS) $(PIP) install --no-build-isolation --no-deps --target $(SANITIZED) .
	touch $@

# Kept between runs, because torch is large. It holds a CUDA toolkit too.
OLDEST = $(CACHE)/torch-$(OLDEST_TORCH)-py$(shell $(BIN)/python -c 'import platform; print(platform.python_version())')

oldest-environment: $(DONE)/venv
	[ -e '$(OLDEST)/done' ] || $(BIN)/python -m venv --clear '$(OLDEST)'
	'$(OLDEST)/bin/python' -m pip install torch==$(OLDEST_TORCH) $(BUILD_TOOLS) $(CUDA_TOOLS)
	touch '$(OLDEST)/done'

test-oldest-torch: $(DONE)/$(TESTED) oldest-environment ## run the binary built for TORCH on the oldest torch
	rm -rf build/lib* build/wheel
	$(PIP) wheel --quiet --no-build-isolation --no-deps --wheel-dir build/wheel .
	wheel=$$(echo '$(CURDIR)'/build/wheel/selkern-*.whl)
	built=$$($(BIN)/python -c 'import torch; print(torch.__version__.partition("+")[0])')
	cd '$(OLDEST)'
	bin/python -m pip install --quiet --no-deps --force-reinstall "$$wheel"
	bin/python -m pip install --quiet torch==$(OLDEST_TORCH) "$$wheel[test,bench,demo,study]"
	bin/python -m selkern info
	bin/python -c "import selkern; info = selkern.build_info(); assert info['torch'] == '$$built', info; assert info['torch_running'].startswith('$(OLDEST_TORCH)'), info"
	OMP_NUM_THREADS=1 bin/pytest $(PARALLEL) -p no:cacheprovider -m 'not slow' --rootdir '$(CURDIR)' -c '$(CURDIR)/pyproject.toml' '$(CURDIR)/tests' $(ARGS)

cuda-check: $(DONE)/$(TESTED) oldest-environment ## compile with the oldest torch for CUDA, and check the machine code
	unset LD_LIBRARY_PATH
	python='$(OLDEST)/bin/python'
	export CUDA_VISIBLE_DEVICES=
	export CUDA_HOME=$$("$$python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')/nvidia/cu13
	SELKERN_FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST=9.0 NVCC_APPEND_FLAGS='-Xptxas --warn-on-spills,-Werror' \
		"$$python" setup.py --quiet build --build-lib build/cuda-check/lib \
		build_ext --build-temp build/cuda-check/temp
	PATH="$$CUDA_HOME/bin:$$PATH" $(BIN)/python -m pytest -p no:cacheprovider tests/test_cuda_check.py
	PYTHONPATH=build/cuda-check/lib "$$python" tools/check_cuda.py --toolkit "$$CUDA_HOME" $(ARGS) \
		build/cuda-check/lib/selkern/_cuda.*.so

cuda: ## build, test and measure on a machine with a GPU, with the torch that PYTHON has
	$(PYTHON) tools/on_gpu.py $(ARGS)
