# Every target sets up .venv first, if it is not ready. Paths are relative: the clone may lie in a folder
# whose name has spaces. ARGS is passed on, as in: make test ARGS="-k kv -x"

PYTHON_OF_VENV := .venv/bin/python
ARGS ?=
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help venv demo test soak sim mutants chaos bench format clean
.PHONY: check check-format check-lint check-types check-layers check-rules

help: ## show this list
	@echo "make TARGET, one of:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 16

venv: ## set up .venv, if it is not ready
	@.ci/set-up

demo: venv ## a real cluster of processes: write, read back, verify, kill a node; figures at the end
	@.venv/bin/fs3 demo $(ARGS)

test: venv ## the default test suite, on all cores
	@$(PYTHON_OF_VENV) -m pytest -n auto --dist loadfile $(ARGS)

soak: venv ## everything at length: long seeds, real processes, crash tests, many examples
	@$(PYTHON_OF_VENV) -m pytest --tier=all --hypothesis-profile=soak --timeout=3600 $(ARGS)

sim: venv ## the simulated world: seeds of the real servers under faults (SEEDS=100, SEED=… for one)
	@$(PYTHON_OF_VENV) -m tests.sim $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),100) --coverage auto) $(ARGS)

mutants: venv ## one mistake at a time in the product: who notices, after how long; build/mutants/report.json
	@$(PYTHON_OF_VENV) -m tests.mutants $(ARGS)

chaos: venv ## real processes, links and disks fail under load; what clients saw is judged (FAULTS=100 SEED=…)
	@.ci/chaos-tools
	@$(PYTHON_OF_VENV) -m tests.chaos --faults $(or $(FAULTS),100) $(if $(SEED),--seed $(SEED)) $(ARGS)

bench: venv ## measure; a table, and build/bench/report.json
	@$(PYTHON_OF_VENV) -m tests.bench $(ARGS)

check: check-format check-lint check-types check-layers check-rules ## all checks that need no test run

check-format: venv ## is the code formatted (make format does it)
	@.venv/bin/ruff format --check

check-lint: venv ## linter
	@.venv/bin/ruff check

check-types: venv ## mypy, strict
	@$(PYTHON_OF_VENV) -m mypy

check-layers: venv ## import contracts
	@.venv/bin/lint-imports --no-cache >.lint-imports.log 2>&1 || { cat .lint-imports.log; exit 1; }
	@rm -f .lint-imports.log

check-rules: venv ## house rules and packaging
	@$(PYTHON_OF_VENV) -m pytest -q tests/test_tidy.py tests/test_layers.py tests/test_packaging.py

format: venv ## format the code and sort imports
	@.venv/bin/ruff check --select I --fix --quiet
	@.venv/bin/ruff format

clean: ## remove .venv, build/ and caches
	@rm -rf .venv .venv.lock build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
