SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
export SOURCE TARGET ACCEPT KEEP

.PHONY: help setup demo test lint unit format roles lock bench clean

help: ## Say what there is to make.
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Install what is missing: programs by apt where that is allowed, and .venv from the lock.
	@scripts/setup.sh

demo: setup ## Migrate a Grafana, killed halfway and resumed. SOURCE=grafana.db for your own, KEEP=1 to leave it up.
	@$(BIN)/python -m tests.lab.demo

test: setup lint ## Lint, then the whole suite in parallel. WORKERS=n for other than one more than there are cores.
	@$(BIN)/python -m tests.lab.prepare
	@scripts/test.sh

lint: setup ## Linter, formatter, types, imports, spelling; changes nothing.
	@scripts/lint.sh

unit: setup ## The unit tests alone.
	@scripts/pytest.sh tests/unit

format: setup ## Format the code and mend what the linter can.
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

roles: setup ## Write deployments/kubernetes anew from what the tests of each recovery ask of the API.
	@scripts/roles.sh

lock: setup ## Write requirements.lock anew from pyproject.toml, keeping versions. UPGRADE=1 for the newest.
	@scripts/lock.sh

bench: setup ## Measure against the peers of bench/requirements.txt.
	@scripts/bench.sh

clean: ## Remove .venv and caches; not what a demo with TARGET keeps in .lab: the dump is its way back.
	find .lab -mindepth 1 -maxdepth 1 ! -name 'demo-*' -exec rm -rf --one-file-system {} + 2>/dev/null || true
	rm -rf .venv .bench .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf --one-file-system {} +
