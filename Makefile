# The targets need only Python 3.11, 3.12 or 3.13 and pip.
VERSIONS := 3.11 3.12 3.13
# Starts each command, because version managers have commands for Pythons that are not installed.
PYTHON ?= $(shell for v in $(VERSIONS); do python$$v -c '' 2>/dev/null && command -v python$$v && exit; done; command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TESTS := # tests of `make test`; empty: unit, integration and end-to-end tests
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses=8 --dist loadscope
COVERAGE := $(CURDIR)/tests/assurance/coverage.ini
COVERAGE_DATA := $(CURDIR)/build/coverage

.DEFAULT_GOAL := help
.PHONY: help install demo test test-python test-slow coverage mutants lint format lock audit cluster-up cluster-down submit docs dashboards openapi clients proto clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

install: $(STAMP) ## build .venv and install finsent with the extras demo and dev

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit(f"finsent needs Python 3.11, 3.12 or 3.13, {sys.executable} is {v[0]}.{v[1]}: make PYTHON=/path/to/python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo,dev]'
	touch $@

# constraints.txt has the tested versions of all extras. Images are installed from the locks with hashes:
# requirements.lock has the extra `platform`, serve.lock the extra `serve`, sbom.lock the program that lists the
# packages of an image. uv resolves them for all Pythons at once. No other target needs uv.
LOCK := $(BIN)/python -m uv pip compile pyproject.toml --universal --python-version 3.11 --strip-extras --no-annotate --quiet --custom-compile-command 'make lock'
lock: install ## write constraints.txt and the locks of images; UPGRADE=1: with the newest versions
	$(BIN)/python -m pip install --quiet uv
	$(LOCK) --all-extras $(if $(UPGRADE),--upgrade) --output-file constraints.txt
	$(LOCK) --extra platform --generate-hashes --constraint constraints.txt --output-file requirements.lock
	$(LOCK) --extra serve --generate-hashes --constraint constraints.txt --output-file cluster/images/serve.lock
	$(LOCK) --group sbom --generate-hashes --constraint constraints.txt --output-file cluster/images/sbom.lock

# pip-audit returns 1 where it has found something. The report is complete then, too.
AUDIT := build/audit
audit: install ## report known vulnerabilities of the locked packages in build/audit; needs a network
	$(BIN)/python -m pip install --quiet pip-audit
	mkdir -p $(AUDIT)
	for lock in requirements.lock cluster/images/serve.lock; do \
	  $(BIN)/pip-audit --disable-pip --require-hashes --requirement $$lock --format markdown --output $(AUDIT)/$$(basename $$lock .lock).md; \
	  [ $$? -le 1 ] || exit 1; \
	done

demo: install ## train and publish a model of the sample corpus, then serve a page; DEMO_ONESHOT=1: no page
	$(BIN)/finsent demo $(if $(DEMO_ONESHOT),once)

test: install ## run all tests except the slow ones, on all cores
	$(PYTEST) $(TESTS)

test-python: ## run the unit tests on each installed Python of VERSIONS (3.11, 3.12, 3.13)
	tested=; for v in $(VERSIONS); do \
	  python$$v -c '' 2>/dev/null || { echo "Python $$v is not installed"; continue; }; \
	  $(MAKE) --no-print-directory test TESTS=tests/unit VENV=.venv-$$v PYTHON=python$$v || exit; \
	  tested=$$v; \
	done; \
	test -n "$$tested" || { echo "error: VERSIONS='$(VERSIONS)': no such Python is installed. Install one of them." >&2; exit 1; }

test-slow: install ## run the slow tests: repeated kills, node loss, load, property tests with many examples
	$(PYTEST) tests/slow
	HYPOTHESIS_PROFILE=deep $(PYTEST) tests/unit -m hypothesis --hypothesis-seed=1

coverage: install ## run `make test` with line and branch coverage, also of jobs and Ray's workers
	rm -rf $(COVERAGE_DATA) && mkdir -p $(COVERAGE_DATA)
	PYTHONPATH=$(CURDIR) COVERAGE_PROCESS_START=$(COVERAGE) COVERAGE_DATA=$(COVERAGE_DATA) $(PYTEST)
	COVERAGE_DATA=$(COVERAGE_DATA) $(BIN)/coverage combine --quiet --rcfile $(COVERAGE)
	COVERAGE_DATA=$(COVERAGE_DATA) $(BIN)/coverage report --rcfile $(COVERAGE)
	COVERAGE_DATA=$(COVERAGE_DATA) $(BIN)/coverage html --quiet --rcfile $(COVERAGE)

mutants: install ## plant 41 faults, one at a time, and report which tests catch them
	$(BIN)/python -m tests.assurance.mutants

lint: install ## check style, types, imports, spelling, file sizes and workflows
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	git ls-files -z | xargs -0 $(BIN)/check-added-large-files --maxkb=500 --enforce-all
	$(BIN)/actionlint
	$(BIN)/zizmor --offline --quiet .github

format: install ## fix the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

WORKERS := 1
CPUS := 2
cluster-up: install ## start a Ray cluster on this machine: a head and WORKERS=1 nodes of CPUS=2 each
	$(BIN)/python -m cluster up --workers $(WORKERS) --cpus $(CPUS)

cluster-down: install ## stop the cluster of this machine
	$(BIN)/python -m cluster down

submit: install ## submit JOB=train ARGS="..." to this cluster or to RAY_API_SERVER_ADDRESS, and follow the log
	$(BIN)/python -m cluster submit $(JOB) $(ARGS)

docs: install ## build the documentation into build/site; a dead link is an error
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

dashboards: install ## write dashboards, alert rules and their documentation from the list of metrics
	$(BIN)/python -m cluster.monitoring

openapi: install ## write docs/openapi.json, from which clients are generated
	$(BIN)/python -m serve_app.openapi docs/openapi.json

clients: install ## write the calls of the client tests to docs/clients.md
	$(BIN)/python -m tests.integration.clients

proto: install ## generate serve_app/proto from sentiment.proto
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. serve_app/proto/sentiment.proto

clean: ## remove .venv, artifacts and caches
	rm -rf $(VENV) $(VERSIONS:%=.venv-%) artifacts .mypy_cache .pytest_cache .ruff_cache *.egg-info
