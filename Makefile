# `make help` lists what there is; `make` alone lints and tests.
PYTHON ?= python3
GRPCURL_VERSION := v1.9.3
TYPESCRIPT_VERSION := 5.9.3

BIN := .venv/bin
PROTOS := $(wildcard protos/headway/v1/*.proto)
STUBS := clients/python/headway/v1
OPENAPI := server/headway_server/http/openapi.json
SOURCES := server clients/python clients/conformance tests tools examples benchmarks

.DEFAULT_GOAL := check
.PHONY: check help run bench demo picture test test-all test-clients conformance docs lint format stubs breaking lock clean

check: lint test ## Lint, then test

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: .venv/.run ## Start the server (settings from HEADWAY_* variables; see also: headway serve --help)
	@exec $(BIN)/headway serve

bench: .venv/.bench ## Measure against the limit of the transport and against peers (about 15 minutes); BENCH_ARGS="peers" narrows it
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

demo: .venv/.dev ## Show all that a worker can rely on: kills, restarts, run, pipe and cancel, in a minute
	@$(BIN)/python -m examples.demo

picture: .venv/.dev ## Record the README's pictures anew: the demo in a terminal, and the page
	$(BIN)/python -m examples.picture
	$(BIN)/python -m tests.page.picture

test: .venv/.dev .tools/bin/grpcurl ## Run the tests, but the long ones (CI runs them too); PYTEST_ARGS="-k name" narrows them
	$(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

test-all: ## Run all tests, the long ones included
	@HEADWAY_TEST_ALL=1 $(MAKE) --no-print-directory test

test-clients: .venv/.dev ## Run the tests of the clients in every language alone
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/clients $(PYTEST_ARGS)

# One client: make test-go, test-java, test-node, test-perl, test-python, test-rust, test-shell.
test-%: .venv/.dev
	$(BIN)/python -m pytest tests/clients/test_$*.py $(PYTEST_ARGS)

conformance: .venv/.dev ## Play the cases of clients/conformance with every client, and print a table; ONLY="go rust" CASES=cancel
	@$(BIN)/python -m clients.conformance $(ONLY) --cases "$(CASES)"

docs: .venv/.dev ## Renew what docs/clients.md shows of the clients: their features, and the worker in each language
	$(BIN)/python -m clients.conformance --page

lint: .venv/.dev .tools/node_modules/.bin/tsc ## Check style, types, words, import directions, protos, and that the stubs are fresh
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy $(SOURCES)
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tools/plain_words.py
	@if [ -x .tools/node_modules/.bin/tsc ]; then .tools/node_modules/.bin/tsc -p server && echo "the page's types hold"; fi
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code --path protos/headway
	$(MAKE) --no-print-directory breaking
	@fresh=$$(mktemp -d) && $(MAKE) --no-print-directory stubs OUT=$$fresh OPENAPI=$$fresh/openapi.json >/dev/null && \
	  diff -r $$fresh/headway/v1 $(STUBS) -x __pycache__ && diff $$fresh/openapi.json $(OPENAPI) && rm -r $$fresh && echo "stubs are fresh" || \
	  { echo "the stubs are stale: run 'make stubs' and commit what it changes" >&2; exit 1; }

format: .venv/.dev ## Format code and protos
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/buf format --write --path protos/headway

stubs: OUT ?= clients/python
stubs: .venv/.dev ## Generate the Python stubs and the OpenAPI description from the protos
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iprotos \
	  --python_out=$(OUT) --pyi_out=$(OUT) $(PROTOS)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iprotos \
	  --grpc_python_out=$(OUT) --mypy_grpc_out=quiet:$(OUT) protos/headway/v1/job_service.proto
	$(BIN)/python -m grpc_tools.protoc -Iprotos --include_imports --include_source_info \
	  --descriptor_set_out=/dev/stdout $(PROTOS) | $(BIN)/python -m tools.openapi > $(OPENAPI)

# What callers have is what main had before this change: main itself on a branch, main's last commit on main.
breaking: .venv/.dev ## Check that the protos break no caller written against main
	@base=$$(git rev-parse -q --verify origin/main || git rev-parse -q --verify main || true); \
	  head=$$(git rev-parse -q --verify HEAD || true); \
	  if [ "$$base" = "$$head" ]; then base=$$(git log -1 --skip=1 --format=%H -- protos); fi; \
	  if [ -z "$$base" ]; then echo "no earlier protos to compare with"; else \
	  $(BIN)/buf breaking --against ".git#ref=$$base" && echo "the protos break no caller"; fi

lock: .venv/.dev ## Lock the dependencies anew, with hashes
	$(BIN)/uv pip compile pyproject.toml --extra server --extra postgresql --group dev --universal --python-version 3.11 \
	  --no-emit-index-url --generate-hashes --custom-compile-command "make lock" --quiet -o requirements-dev.txt
	$(BIN)/uv pip compile pyproject.toml --extra server --extra postgresql --group build --universal --python-version 3.11 \
	  --no-emit-index-url --generate-hashes --custom-compile-command "make lock" --quiet \
	  -c requirements-dev.txt -o requirements.txt
	$(BIN)/uv pip compile pyproject.toml --extra server --extra postgresql --group bench --universal --python-version 3.11 \
	  --no-emit-index-url --generate-hashes --custom-compile-command "make lock" --quiet \
	  -c requirements-dev.txt -o requirements-bench.txt

clean: ## Remove what the other targets made
	@for client in clients/*/Makefile; do $(MAKE) --no-print-directory -s -C $$(dirname $$client) clean; done
	rm -rf .venv .tools .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Headway needs Python 3.11 or newer; name one: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

# The server and the client alone: what `make run` needs.
.venv/.run: .venv/.created requirements.txt pyproject.toml
	@echo "setting up .venv (once)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.dev: .venv/.run requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

.venv/.bench: .venv/.run requirements-bench.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.txt
	@touch $@

.tools/node_modules/.bin/tsc:
	@if command -v npm >/dev/null; then \
	  npm install --silent --no-save --prefix .tools typescript@$(TYPESCRIPT_VERSION); \
	else echo "no npm: the types of the page's scripts are not checked"; fi

# Tests that need it are skipped without Go, but not under CI.
.tools/bin/grpcurl:
	@if command -v go >/dev/null; then \
	  GOBIN="$(CURDIR)/.tools/bin" go install github.com/fullstorydev/grpcurl/cmd/grpcurl@$(GRPCURL_VERSION); \
	else echo "no Go: tests that call grpcurl are skipped"; fi
