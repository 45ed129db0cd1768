# Each target works as the only command on a fresh clone. PYTHON chooses the interpreter (3.11 or later).
PYTHON ?= python3
STORE ?=
DEMO ?=
BENCH ?= --list
VENV := .venv
BIN := $(VENV)/bin
SOURCES := context_plane assets resources serving commands tests benchmarks docs examples
PIP := $(BIN)/python -m pip install --disable-pip-version-check -qq --require-hashes --no-compile
UV ?= uv

export DO_NOT_TRACK := 1
ifneq ($(STORE),)
export CONTEXT_PLANE_STORE := $(STORE)
endif

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev setup-bench demo up test check screenshots bench docs lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## make .venv with what the product needs

setup-dev: $(VENV)/.installed-dev ## and with what tests and checks need

setup-bench: $(VENV)/.installed-bench ## and with Ray, and the other engines that benchmarks compare with

demo: $(VENV)/.installed ## invent customers, load, build, and let an agent pick whom to contact (STORE=s3://… DEMO="--customers 100")
	@$(BIN)/context-plane demo $(DEMO)

up: $(VENV)/.installed ## serve the API and the Dagster UI on the demo's data, until Ctrl-C
	@$(BIN)/context-plane up

test: $(VENV)/.installed-dev ## every test
	$(BIN)/pytest -n 2 --dist loadgroup

check: $(VENV)/.installed-dev ## style, types, import rules, definitions
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/dg check defs
	$(BIN)/dagster definitions validate -w workspace.yaml

screenshots: $(VENV)/.installed-dev ## take the pictures of the Dagster UI in docs/images again (needs Chromium)
	CONTEXT_PLANE_SCREENSHOTS=docs/images $(BIN)/pytest -n 0 tests/browser/test_dagster_session.py

bench: $(VENV)/.installed-dev ## measure (BENCH="quality --quick")
	$(BIN)/python -m benchmarks $(BENCH)

docs: $(VENV)/.installed-dev ## the documentation site, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

lock: ## choose newest releases again and write the requirements files (needs uv)
	$(UV) pip compile pyproject.toml --extra setup --upgrade --universal --python-version 3.11 --generate-hashes --no-strip-extras \
	  --no-header --no-emit-index-url --no-emit-find-links --quiet --output-file requirements.txt
	$(UV) pip compile pyproject.toml --extra setup --extra deploy --constraint requirements.txt --universal --python-version 3.11 \
	  --generate-hashes --no-strip-extras --no-header --no-emit-index-url --no-emit-find-links --quiet \
	  --output-file requirements-deploy.txt
	$(UV) pip compile pyproject.toml --extra setup --extra dev --extra onnx --constraint requirements.txt --universal --python-version 3.11 \
	  --generate-hashes --no-strip-extras --no-header --no-emit-index-url --no-emit-find-links --quiet \
	  --output-file requirements-dev.txt
	$(UV) pip compile pyproject.toml --extra setup --extra dev --extra onnx --extra bench --extra ray --constraint requirements-dev.txt --universal \
	  --python-version 3.11 --generate-hashes --no-strip-extras --no-header --no-emit-index-url --no-emit-find-links --quiet \
	  --output-file requirements-bench.txt

clean: ## remove .venv, caches, and the demo's store
	rm -rf $(VENV) .plane site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Python 3.11 or later is needed; set PYTHON=/path/to/python3.11, or: apt install python3" >&2; exit 1; }
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then $(PYTHON) -m venv $(VENV); \
	elif command -v virtualenv >/dev/null; then virtualenv --quiet --python $(PYTHON) $(VENV); \
	elif command -v uv >/dev/null; then uv venv --quiet --seed --python $(PYTHON) $(VENV); \
	else echo "this Python cannot make a virtual environment: apt install python3-venv (or pip install virtualenv)" >&2; \
	  exit 1; fi

$(VENV)/.installed: requirements.txt pyproject.toml | $(BIN)/python
	@echo "installing into $(VENV) (a minute or two the first time)"
	@$(PIP) -r requirements.txt
	@$(BIN)/python -m pip install --disable-pip-version-check -qq --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed | $(BIN)/python
	@echo "installing what tests need"
	@$(PIP) -r requirements-dev.txt
	@touch $@

$(VENV)/.installed-bench: requirements-bench.txt $(VENV)/.installed-dev | $(BIN)/python
	@echo "installing what benchmarks compare with"
	@$(PIP) -r requirements-bench.txt
	@touch $@
