# make demo | test | check | test-runtime | standalone | fuzz | docs | figures; VENV=path to use another environment,
# JOBS=0 for tests in one process
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
RUNTIME_VENV ?= .venv-runtime
JOBS ?= auto

.PHONY: demo test check test-runtime standalone fuzz docs figures clean

$(INSTALLED): pyproject.toml runtime/pyproject.toml
	@echo "installing into $(VENV): about 2 GB, some minutes"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	$(BIN)/pip install --quiet --no-deps --editable ./runtime
	touch $@

demo: $(INSTALLED)  ## the whole way on simulated data, in a few minutes
	$(BIN)/sccg-compress demo --out demo

test: $(INSTALLED)  ## all tests; real data only where SCCG_TEST_DATA names its folder
	$(BIN)/python -m pytest -q --numprocesses $(JOBS) --maxprocesses 4 --dist loadfile

check: $(INSTALLED)  ## style, types, direction of imports, tables of README and docs, docs/cli.md
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy runtime/sccg_runtime bench/sccg_bench teacher_student/sccg_teacher_student export/sccg_export compress/sccg_compress
	$(BIN)/lint-imports
	$(BIN)/python -m sccg_compress.pages.figures --check
	$(BIN)/python -m sccg_compress.pages.cli --check

docs: $(INSTALLED)  ## docs/cli.md from --help of every verb
	$(BIN)/python -m sccg_compress.pages.cli

figures: $(INSTALLED)  ## tables of README and docs from results/
	$(BIN)/python -m sccg_compress.pages.figures

$(RUNTIME_VENV)/.installed: runtime/pyproject.toml
	test -x $(RUNTIME_VENV)/bin/python || $(PYTHON) -m venv $(RUNTIME_VENV)
	$(RUNTIME_VENV)/bin/pip install --quiet './runtime[test]'
	touch $@

test-runtime: $(RUNTIME_VENV)/.installed  ## the runtime's tests where nothing else is installed
	$(RUNTIME_VENV)/bin/pip install --quiet --no-deps --force-reinstall ./runtime
	$(RUNTIME_VENV)/bin/python -c "import importlib.util as u; assert u.find_spec('torch') is None, 'torch is here'"
	cd runtime && ../$(RUNTIME_VENV)/bin/python -m pytest -q

standalone: $(RUNTIME_VENV)/.installed  ## sccg-runtime in a folder that needs no Python, for this kind of machine
	$(RUNTIME_VENV)/bin/pip install --quiet --no-deps --force-reinstall ./runtime
	$(RUNTIME_VENV)/bin/python runtime/standalone/build.py dist/sccg-runtime

fuzz: $(INSTALLED)  ## 20,000 damaged bundles, and as many DICOM files, folders and zips; CASES and SEED change that
	$(BIN)/python runtime/tests/fuzz.py bundles --cases $(or $(CASES),20000) --seed $(or $(SEED),1)
	$(BIN)/python runtime/tests/fuzz.py dicom --cases $(or $(CASES),20000) --seed $(or $(SEED),1)

clean:
	rm -rf build dist demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
