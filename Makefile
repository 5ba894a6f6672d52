# Bare `make` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := build/demo
SANDBOX := build/slurm

.DEFAULT_GOAL := help
.PHONY: help demo sandbox sandbox-stop test lint format bench docs lock dist clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/installed: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "ct needs Python 3.11 or newer; say PYTHON=python3.12 (or another) after make" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null 2>&1 || true
	@touch $@

demo: $(VENV)/installed  ## Install, and run the real three-person cohort in build/demo
	@$(BIN)/ct init $(DEMO) --example three_people
	@$(BIN)/ct -C $(DEMO) register
	@$(BIN)/ct -C $(DEMO) run
	@$(BIN)/ct -C $(DEMO) status
	@$(BIN)/python examples/three_people/compare.py "$$($(BIN)/ct -C $(DEMO) path joint_variants)/joint.vcf.gz" $(DEMO)/samplesheet.csv
	@echo; echo "report:  $$($(BIN)/ct -C $(DEMO) path cohort_report)/report.html"
	@echo "results: $(DEMO)/store"
	@echo "the UI:  $(BIN)/ct -C $(DEMO) dev"

sandbox:  ## Start a real Slurm cluster in build/slurm (docs/slurm-sandbox.md)
	@$(PYTHON) -m tools.slurm up $(SANDBOX)

sandbox-stop:  ## Stop it; accounting is kept
	@$(PYTHON) -m tools.slurm down $(SANDBOX)

test: lint  ## Install, and run every check and test; PACKAGE=staleness: that room's tests
	@$(BIN)/python -m compileall -q -j 0 ctcore ct_assets resources sensors tests tools benchmarks
	$(BIN)/pytest -n 3 --dist loadgroup --durations 40 --durations-min 5 $(if $(PACKAGE),tests/$(PACKAGE))

lint: $(VENV)/installed  ## Style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports --no-cache

format: $(VENV)/installed  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/installed  ## Measure, beside a baseline in the same run
	$(BIN)/python -m benchmarks

docs: $(VENV)/installed  ## Build the docs site in build/site; a broken link fails
	$(BIN)/python -m mkdocs build --quiet

lock: $(VENV)/installed  ## Resolve the dependencies anew into requirements.lock
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --extra docs --no-emit-index-url --no-emit-find-links \
	  --no-header --upgrade pyproject.toml -o requirements.lock

dist: $(VENV)/installed  ## Build the wheel and the source archive
	$(BIN)/python -m build

clean: sandbox-stop  ## Remove what was built, the environment too
	chmod -R u+w build 2>/dev/null || true
	rm -rf build dist $(VENV) .pytest_cache .ruff_cache .hypothesis
