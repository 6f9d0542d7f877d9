# The ways of working. `make serve` and `make test` need nothing but Python 3.11 and a network.

PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
WORKERS ?= 0

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet
SERVING := $(VENV)/.serving
DEVELOPMENT := $(VENV)/.development

.DEFAULT_GOAL := help
.PHONY: help serve test lint format types check-chromium

help:
	@echo "make serve   serve the bundled model on $(HOST):$(PORT) (HOST, PORT, WORKERS override)"
	@echo "make test    run everything: lint, types, tests"
	@echo "make lint    ruff's checks and format"
	@echo "make types   mypy"
	@echo "make format  put the code into ruff's format"

serve: $(SERVING)
	LANTERN_SERVER__HOST=$(HOST) LANTERN_SERVER__PORT=$(PORT) LANTERN_SERVER__WORKERS=$(WORKERS) \
	    exec $(BIN)/gunicorn wsgi:app

test: $(DEVELOPMENT) check-chromium lint types
	rm -f .coverage .coverage.*
	$(BIN)/pytest --cov --cov-report=term

lint: $(DEVELOPMENT)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(DEVELOPMENT)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(DEVELOPMENT)
	$(BIN)/mypy

# The browser tests drive Debian's chromium. Where it can't be installed they are skipped, and say so.
check-chromium:
	@if command -v chromium >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	        apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; \
	else \
	    echo "chromium is not installed, and only root can install it: the browser tests will be skipped."; \
	fi

$(SERVING): requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.txt
	touch $@

$(DEVELOPMENT): $(SERVING) requirements-dev.txt
	$(PIP) -r requirements-dev.txt
	touch $@
