# Two commands matter: `make report` and `make test`; each sets up what it needs.
PY := .venv/bin/python
JOBS ?= 2
PROFILE ?= quick
.PHONY: help setup report test test-gpu bench lint docs notebooks clean
.DEFAULT_GOAL := help

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## .venv with everything in it, and the libraries that rendering needs
	@scripts/setup.sh

report: setup  ## run every notebook (PROFILE=quick) and write the site of results
	@$(PY) -m dreamzero report --profile $(PROFILE)

test:  ## lint and all tests that need no GPU (JOBS=2 at a time)
	@scripts/setup.sh browser && $(PY) -m ruff check -q . && $(PY) -m ruff format -q --check . && $(PY) -m pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "not gpu"

test-gpu: setup  ## the tests that need CUDA
	@$(PY) -m pytest -q -m gpu

bench: setup  ## measure the engine on this machine
	@$(PY) -m dreamzero bench

lint: setup  ## ruff, mypy and typos
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy && .venv/bin/typos

docs: setup  ## the API reference, from the docstrings, to build/docs
	@mkdir -p build && { NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict >build/docs.log 2>&1 || { grep -v ^INFO build/docs.log; exit 1; }; } && echo build/docs/index.html

notebooks: setup  ## open the notebooks in JupyterLab
	@.venv/bin/jupyter lab notebooks

clean:  ## remove caches and builds (never results in runs/ or reports/)
	@rm -rf build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis && find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
