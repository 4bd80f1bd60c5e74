# The two commands that matter: `make demo` and `make test`. Everything is built below this directory.

.DEFAULT_GOAL := help
SHELL := /bin/bash

VENV ?= .venv
# The first Python that the program supports; PYTHON=... picks another.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help install demo test check lint types mutants soak bench bench-quick kafka up down run clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## Create .venv and install everything that demo, tests and tools need, versions pinned

$(INSTALLED): pyproject.toml constraints.txt
	@test -x $(BIN)/python || test -n "$(PYTHON)" || { echo "Python 3.11 or newer with its venv module is needed" \
		"(Debian: apt-get install python3 python3-venv); PYTHON=... names another." >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[demo,dev]'
	@touch $@

kafka: $(INSTALLED) ## Bring a real Apache Kafka into .kafka/ (needs Java 17 and Maven)
	$(BIN)/python -m consumer.demo.broker fetch

demo: $(INSTALLED) ## Watch 1,797 handwritten digits go through three models (BROKER=embedded needs no Java)
	$(BIN)/inference-consumer demo $(if $(BROKER),--broker $(BROKER))

test: $(INSTALLED) ## Run all tests, on a real Kafka where Java and Maven are (ARGS=... go to pytest)
	$(BIN)/python -m pytest --numprocesses=4 $(ARGS)

lint: $(INSTALLED) ## ruff and the import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(INSTALLED) ## mypy --strict
	$(BIN)/mypy

check: lint types test ## Everything that CI asks

mutants: $(INSTALLED) ## Bring classic bugs back, one at a time, and see that the tests catch each (ARGS="--list")
	$(BIN)/python -m tests.mutations $(ARGS)

soak: $(INSTALLED) ## Eight models under random faults for ten minutes, then the fault matrix (ARGS="--minutes 10 --seed 1")
	$(BIN)/python -m tests.soak $(ARGS)
	$(BIN)/python -m pytest -m soak

bench: $(INSTALLED) ## Measure the program against ceilings, loops and other systems (a real Kafka, a quiet machine)
	$(BIN)/python -m benchmarks.run $(ARGS)

bench-quick: $(INSTALLED) ## The same report in two minutes: one workload, few subjects and records
	$(BIN)/python -m benchmarks.run --quick $(ARGS)

run: $(INSTALLED) ## Serve the demo's three models as consumer.yaml says (KAFKA_BOOTSTRAP_SERVERS, or a broker of its own)
	@test -d models || $(BIN)/python -m consumer.demo.training models
	@$(BIN)/python -m consumer.demo.serve consumer.yaml

up: ## Start Kafka and the consumer with Docker Compose
	docker compose up --build --detach --wait

down: ## Stop them and remove their volumes
	docker compose down --volumes

clean: ## Remove what make built, but the environment and Kafka
	rm -rf build dist models benchmarks/out .coverage htmlcov .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
