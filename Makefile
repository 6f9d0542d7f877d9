# Development tasks. `make serve` and `make test` need nothing but Python 3.11 and a network.

PYTHON ?= python3
# Only those that are set override the settings.
HOST ?=
PORT ?=
WORKERS ?=
# For trials: how long a soak lasts, and the seed of a fuzz run.
MINUTES ?=
SEED ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet
SERVING := $(VENV)/.serving
DEVELOPMENT := $(VENV)/.development
EXAMPLES := examples/.venv
BUILDING := dist/.venv
# Bytecode is kept, whatever the environment says: tests start hundreds of processes, each of which
# would compile everything again.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/pytest
comma := ,

.DEFAULT_GOAL := help
.PHONY: help serve wheel test test-clients test-examples test-busy coverage bench bench-check \
    rolling-restart soak fuzz audit image-test lock lint format types check-chromium check-wrk \
    check-redis check-prometheus check-kubectl check-haproxy check-nginx check-cc check-java \
    check-valgrind

help:
	@echo "make serve   serve the bundled model on 127.0.0.1:8000 (HOST, PORT, WORKERS override)"
	@echo "make wheel   build the package for pip into dist/"
	@echo "make test    run everything: lint, types, tests"
	@echo "make test-clients  test it with the clients of Triton, KServe and MLServer"
	@echo "make test-examples  run the examples, in an environment of their own"
	@echo "make test-busy  the same beside four busy processes: no test may depend on the machine's speed"
	@echo "make coverage  run the tests under coverage, which takes twice as long"
	@echo "make bench   measure it beside nine other servers, and draw the charts (an hour)"
	@echo "make bench-check  say what fell back since the committed results, by ratio to a peer (4 minutes)"
	@echo "make rolling-restart  restart three instances behind HAProxy under load (a minute)"
	@echo "make soak    load it for MINUTES (10) while releases change and workers are killed"
	@echo "make fuzz    send it 200,000 random and malformed requests; SEED repeats a run"
	@echo "make audit   look up known vulnerabilities in what is installed"
	@echo "make image-test  build both images without a container engine, as root, and run them (5 minutes)"
	@echo "make lint    check with ruff, formatting included"
	@echo "make types   check types with mypy"
	@echo "make format  fix and format the code with ruff"
	@echo "make lock    lock what the image installs, after a change of requirements"

serve: $(SERVING)
	exec $(BIN)/python -m app serve $(if $(HOST),--host $(HOST)) $(if $(PORT),--port $(PORT)) \
	    $(if $(WORKERS),--workers $(WORKERS))

# In an environment of its own: whoever only builds it keeps theirs as it is.
wheel: $(BUILDING)/.installed
	$(BUILDING)/bin/python -m hatchling build --target wheel --directory dist

test: $(DEVELOPMENT) check-chromium check-wrk check-redis check-prometheus check-kubectl check-haproxy \
    check-nginx check-cc lint types
	$(PYTEST) --numprocesses=auto

# Each client has its own environment, which is created once: their libraries are incompatible. The
# models that they ask are packed, which takes what the tests take.
test-clients: $(DEVELOPMENT)
	$(BIN)/python -m tests.clients

test-examples: $(DEVELOPMENT) $(EXAMPLES)/.installed
	$(PYTEST) -m examples --numprocesses=auto tests/test_examples.py

# The tests' results must not depend on the machine's speed. The busy processes end with the tests,
# however those end.
test-busy: $(DEVELOPMENT)
	$(BIN)/python -m trials.busy --processes 4 -- $(MAKE) test

# Not part of `make test`: before Python 3.12 (sys.monitoring) the tracer costs as much as the
# tests.
coverage: $(DEVELOPMENT)
	rm -f .coverage .coverage.*
	$(PYTEST) --numprocesses=auto --cov --cov-report=term

bench: $(DEVELOPMENT) check-wrk check-java check-haproxy check-valgrind
	$(BIN)/python -m benchmarks

bench-check: $(DEVELOPMENT) check-wrk check-valgrind
	$(BIN)/python -m benchmarks.regression

rolling-restart: $(DEVELOPMENT) check-haproxy
	$(BIN)/python -m trials.rolling_restart

soak: $(DEVELOPMENT)
	$(BIN)/python -m trials.soak $(if $(MINUTES),--minutes $(MINUTES))

fuzz: $(DEVELOPMENT)
	$(BIN)/python -m trials.fuzz $(if $(SEED),--seed $(SEED))

audit: $(DEVELOPMENT)
	$(BIN)/python -m trials.audit

lint: $(DEVELOPMENT)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(DEVELOPMENT)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(DEVELOPMENT)
	$(BIN)/mypy

# The image installs these with their hashes. Versions already in them are kept: remove them first
# to get newer versions of what requirements.txt doesn't pin. uv doesn't read pip's configuration,
# so it is told here where PyTorch's builds for the CPU are, and only for their lock.
LOCK := $(BIN)/uv pip compile --quiet --generate-hashes --custom-compile-command "make lock" \
    --python-version 3.11 --python-platform x86_64-unknown-linux-gnu
lock: $(DEVELOPMENT)
	$(LOCK) requirements-build.txt -o locks/build.txt
	$(LOCK) requirements-wheel.txt -o locks/wheel.txt
	$(LOCK) requirements-onnx.txt -o locks/onnx.txt
	UV_EXTRA_INDEX_URL="$$PIP_EXTRA_INDEX_URL" UV_FIND_LINKS="$$PIP_FIND_LINKS" \
	UV_INDEX_STRATEGY=unsafe-best-match \
	$(LOCK) requirements.txt -c locks/build.txt -c locks/onnx.txt -o locks/torch-cpu.txt
	$(LOCK) requirements.txt -c locks/build.txt -c locks/onnx.txt -o locks/torch-cuda.txt

# As root on Debian. The build receives this machine's pip configuration (files and PIP_...
# variables) as a secret, and sees the directories named there.
image-test: $(DEVELOPMENT)
	@test "$$(id -u)" = 0 || { echo "make image-test requires root: it builds in a chroot."; exit 1; }
	@command -v buildah >/dev/null && command -v debootstrap >/dev/null || { apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	        buildah debootstrap >/dev/null; }
	$(BIN)/pytest -m image tests/deploy

# Programs that some tests use, from Debian's packages. If one can't be installed, those tests are
# skipped, and say so. $(call program,NAME,PACKAGES,WHAT)
define program
	@command -v $(1) >/dev/null || { \
	    test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -qq && \
	    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	        $(2) >/dev/null; \
	} || echo "$(1) is missing and could not be installed (this requires root and apt-get): $(3)."
endef

check-chromium:
	$(call program,chromium,chromium fonts-dejavu-core,the browser tests will be skipped)

check-wrk:
	$(call program,wrk,wrk,tests under its load will be skipped$(comma) and make bench needs it)

check-redis:
	$(call program,redis-server,redis-server,tests of a rate that is shared will be skipped)

check-prometheus:
	$(call program,prometheus,prometheus,tests of alerts and dashboard will be skipped)

# It includes kustomize, which is new enough in Debian 13.
check-kubectl:
	$(call program,kubectl,kubernetes-client,tests of the Kubernetes manifests will be skipped)

check-haproxy:
	$(call program,haproxy,haproxy,the tests behind it will be skipped$(comma) and make rolling-restart needs it)

check-nginx:
	$(call program,nginx,nginx,the tests behind it will be skipped)

# It compiles the clock that a test sets back.
check-cc:
	$(call program,cc,gcc libc6-dev,the test of a clock that is set back will be skipped)

check-valgrind:
	$(call program,valgrind,valgrind,no instructions will be counted)

# TorchServe's own part is a program in Java.
check-java:
	$(call program,java,default-jre-headless,make bench will not measure TorchServe)

$(SERVING): requirements.txt requirements-onnx.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Lantern needs Python 3.11 or newer, but $(PYTHON) is older; set PYTHON."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.txt
	touch $@

$(DEVELOPMENT): $(SERVING) requirements-dev.txt requirements-wheel.txt
	$(PIP) -r requirements-dev.txt
	touch $@

$(BUILDING)/.installed: requirements-wheel.txt
	test -x $(BUILDING)/bin/python || $(PYTHON) -m venv $(BUILDING)
	$(BUILDING)/bin/pip --disable-pip-version-check install --quiet -r requirements-wheel.txt
	touch $@

# Its libraries don't fit those of the tests: skl2onnx needs an older protobuf.
$(EXAMPLES)/.installed: examples/requirements.txt requirements.txt requirements-onnx.txt pyproject.toml
	test -x $(EXAMPLES)/bin/python || $(PYTHON) -m venv $(EXAMPLES)
	$(EXAMPLES)/bin/pip --disable-pip-version-check install --quiet \
	    -r examples/requirements.txt -e '.[pack]'
	touch $@
