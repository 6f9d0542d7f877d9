# The ways of working. `make serve` and `make test` need nothing but Python 3.11 and a network.

PYTHON ?= python3
# Of these, only those that are given override the settings.
HOST ?=
PORT ?=
WORKERS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet
SERVING := $(VENV)/.serving
DEVELOPMENT := $(VENV)/.development

.DEFAULT_GOAL := help
.PHONY: help serve test bench lint format types check-chromium check-wrk check-redis lock image-test check-prometheus check-kubectl check-cc

help:
	@echo "make serve   serve the bundled model on 127.0.0.1:8000 (HOST, PORT, WORKERS override)"
	@echo "make test    run everything: lint, types, tests"
	@echo "make bench   measure it beside three FastAPI programs, and draw the picture (15 minutes)"
	@echo "make image-test  build both images without an engine, as root, and run them (5 minutes)"
	@echo "make lint    ruff's checks and format"
	@echo "make types   mypy"
	@echo "make format  put the code into ruff's format"
	@echo "make lock    lock what the image installs, after a change of requirements"

serve: $(SERVING)
	$(if $(HOST),LANTERN_SERVER__HOST=$(HOST)) $(if $(PORT),LANTERN_SERVER__PORT=$(PORT)) \
	$(if $(WORKERS),LANTERN_SERVER__WORKERS=$(WORKERS)) exec $(BIN)/gunicorn wsgi:app

test: $(DEVELOPMENT) check-chromium check-wrk check-redis check-prometheus check-kubectl check-cc lint types
	rm -f .coverage .coverage.*
	$(BIN)/pytest --cov --cov-report=term

bench: $(DEVELOPMENT) check-wrk
	$(BIN)/python -m benchmarks

lint: $(DEVELOPMENT)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(DEVELOPMENT)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(DEVELOPMENT)
	$(BIN)/mypy

# The image installs these with their hashes. What stands in them already stays as it is: remove them
# first to have newer versions of what requirements.txt doesn't pin. uv reads nothing of pip's
# configuration, so it is told here where PyTorch's builds for the CPU are, and only for their lock.
LOCK := $(BIN)/uv pip compile --quiet --generate-hashes --custom-compile-command "make lock" \
    --python-version 3.11 --python-platform x86_64-unknown-linux-gnu
lock: $(DEVELOPMENT)
	$(LOCK) requirements-build.txt -o locks/build.txt
	$(LOCK) requirements-onnx.txt -o locks/onnx.txt
	UV_EXTRA_INDEX_URL="$$PIP_EXTRA_INDEX_URL" UV_FIND_LINKS="$$PIP_FIND_LINKS" \
	UV_INDEX_STRATEGY=unsafe-best-match \
	$(LOCK) requirements.txt -c locks/build.txt -c locks/onnx.txt -o locks/torch-cpu.txt
	$(LOCK) requirements.txt -c locks/build.txt -c locks/onnx.txt -o locks/torch-cuda.txt

# As root on Debian. The build is given what this machine's pip is told (its files and PIP_...
# variables) as a secret, and sees the directories that are named there.
image-test: $(DEVELOPMENT)
	@test "$$(id -u)" = 0 || { echo "make image-test takes root: it builds in a chroot."; exit 1; }
	@command -v buildah >/dev/null && command -v debootstrap >/dev/null || { apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	        buildah debootstrap >/dev/null; }
	$(BIN)/pytest -m image tests/deploy

# The browser tests drive Debian's chromium. Where it can't be installed they are skipped, and say so.
check-chromium:
	@command -v chromium >/dev/null || { \
	    test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	        chromium fonts-dejavu-core >/dev/null; \
	} || echo "There is no chromium, and it could not be installed (which takes root and apt-get):" \
	    "the browser tests will be skipped."

# kubectl builds the manifests that the tests look at, which skip without it. Debian's is new enough
# from release 13 on.
check-kubectl:
	@command -v kubectl >/dev/null || command -v kustomize >/dev/null || { \
	    test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	        kubernetes-client >/dev/null; \
	} || echo "There is no kubectl, and it could not be installed (which takes root and apt-get):" \
	    "the tests of the Kubernetes manifests will be skipped."

# wrk loads the servers in some tests, which are skipped without it, and in the benchmarks, which
# can't do without.
check-wrk:
	@command -v wrk >/dev/null || { \
	    test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends wrk >/dev/null; \
	} || echo "There is no wrk, and it could not be installed (which takes root and apt-get):" \
	    "the tests under its load will be skipped, and make bench needs it."

# The tests of a rate that workers share start a Redis of their own, and are skipped without it.
check-redis:
	@command -v redis-server >/dev/null || { \
	    test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	        redis-server >/dev/null; \
	} || echo "There is no redis-server, and it could not be installed (which takes root and" \
	    "apt-get): the tests that need it will be skipped."

# Prometheus judges the alerts and what the dashboard asks; those tests are skipped without it. Its
# package would start one, too, which nothing here needs.
check-prometheus:
	@command -v prometheus >/dev/null || { \
	    test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && \
	    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	        prometheus >/dev/null; \
	} || echo "There is no prometheus, and it could not be installed (which takes root and apt-get):" \
	    "the tests of alerts and dashboard will be skipped."


# A C compiler makes the clock that a test sets back.
check-cc:
	@command -v cc >/dev/null || { \
	    test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	        gcc libc6-dev >/dev/null; \
	} || echo "There is no C compiler, and it could not be installed (which takes root and apt-get):" \
	    "the test of a clock that is set back will be skipped."

$(SERVING): requirements.txt requirements-onnx.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Lantern needs Python 3.11 or newer, and $(PYTHON) is older; set PYTHON."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.txt
	touch $@

$(DEVELOPMENT): $(SERVING) requirements-dev.txt
	$(PIP) -r requirements-dev.txt
	touch $@
