# Python 3.11 and pip are all that must be there.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses=8 --dist loadscope
COVERAGE := $(CURDIR)/tests/assurance/coverage.ini
COVERAGE_DATA := $(CURDIR)/build/coverage

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow coverage mutants lint format openapi clients proto clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

install: $(STAMP) ## build .venv and install finsent with the extras demo and dev

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v == (3, 11) or sys.exit(f"finsent needs Python 3.11, {sys.executable} is {v[0]}.{v[1]}: make PYTHON=/path/to/python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[demo,dev]'
	touch $@

demo: install ## all of it on the sample corpus, five sentences, then a page; DEMO_ONESHOT=1: no page
	$(BIN)/python -m ray_jobs.pipeline configs/demo.yaml
	$(BIN)/python -m ray_jobs.classify configs/demo.yaml \
	  "Net profit rose to 14.2 million euros from 9.8 million a year earlier." \
	  "The company's operating loss narrowed for the third quarter in a row." \
	  "The annual general meeting will be held in Tampere on 14 April." \
	  "Operating profit fell to 3.1 million euros from 4.4 million." \
	  "The company lowered its full-year outlook after weak demand in Germany."
	test -n "$$DEMO_ONESHOT" || $(BIN)/python -m ray_jobs.serve configs/demo.yaml

test: install ## run the tests but for the slow ones, on all cores
	$(PYTEST)

test-slow: install ## run what is long by nature: repeated kills, node loss, load, deep property tests
	$(PYTEST) tests/slow
	HYPOTHESIS_PROFILE=deep $(PYTEST) tests/unit -m hypothesis --hypothesis-seed=1

coverage: install ## run `make test` with line and branch coverage, also of jobs and Ray's workers
	rm -rf $(COVERAGE_DATA) && mkdir -p $(COVERAGE_DATA)
	PYTHONPATH=$(CURDIR) COVERAGE_PROCESS_START=$(COVERAGE) COVERAGE_DATA=$(COVERAGE_DATA) $(PYTEST)
	COVERAGE_DATA=$(COVERAGE_DATA) $(BIN)/coverage combine --quiet --rcfile $(COVERAGE)
	COVERAGE_DATA=$(COVERAGE_DATA) $(BIN)/coverage report --rcfile $(COVERAGE)
	COVERAGE_DATA=$(COVERAGE_DATA) $(BIN)/coverage html --quiet --rcfile $(COVERAGE)

mutants: install ## plant 41 faults, one at a time: which tests catch each
	$(BIN)/python -m tests.assurance.mutants

lint: install ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install ## mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

openapi: install ## write docs/openapi.json, which clients are generated from
	$(BIN)/python -m serve_app.openapi docs/openapi.json

clients: install ## write the calls of the client tests into docs/clients.md
	$(BIN)/python -m tests.integration.clients

proto: install ## generate serve_app/proto from sentiment.proto
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. serve_app/proto/sentiment.proto

clean: ## remove .venv, artefacts and caches
	rm -rf $(VENV) artifacts .mypy_cache .pytest_cache .ruff_cache *.egg-info
