# `make` alone lists what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1) # tests wait for others more than they compute
SIZES ?= 10000 1000000
ROWS ?= 10000000
LOCKING := --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate
WEB := $(wildcard web/*.json web/*.ts web/*.html web/src/* web/src/*/*)

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | awk -F'\t' '{printf "  %-13s %s\n", $$1, $$2}'

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(VENV)/.installed: pyproject.toml | $(BIN)/uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --editable . --group dev
	@touch $@ $(VENV)/.installed

# Without Node the server has another page to show, and says so: nothing here fails for the want of it.
$(VENV)/.page: $(WEB) | $(BIN)/uv
	@if ! command -v node >/dev/null || ! command -v npm >/dev/null; then \
	  echo "Node and npm are not here: GraphiQL's own page is not built"; \
	else \
	  echo "Building GraphiQL's page, once"; \
	  (cd web && npm ci --no-audit --no-fund --silent && npm run build --silent) \
	    || echo "GraphiQL's own page could not be built: see above; 'make web' tries again"; \
	  touch $@; \
	fi

# A browser for the tests: one that is here, or Debian's, or Playwright's. Where none can be had, the tests say so.
$(VENV)/.browser: | $(VENV)/.installed-dev
	@if command -v chromium || command -v chromium-browser || command -v google-chrome; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get; then \
	  tests/servers/install chromium; \
	else $(BIN)/playwright install chromium; fi >/dev/null && touch $@ || echo "no browser could be installed"

# A PostgreSQL for the tests, which start one of their own. Where it can't be had, they say so.
$(VENV)/.postgres: | $(BIN)/uv
	@if ls /usr/lib/postgresql/*/bin/initdb || command -v initdb; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get; then \
	  tests/servers/install postgresql; \
	else false; fi >/dev/null 2>&1 && touch $@ || echo "PostgreSQL could not be installed: apt-get install postgresql"

# A Redis for the tests, which start theirs. Where it can't be had, they say so.
$(VENV)/.redis: | $(BIN)/uv
	@if command -v redis-server; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get; then \
	  tests/servers/install redis-server; \
	else false; fi >/dev/null 2>&1 && touch $@ || echo "Redis could not be installed: apt-get install redis-server"

# A RabbitMQ for the tests, which start theirs. Where it can't be had, they say so.
$(VENV)/.rabbitmq: | $(BIN)/uv
	@if ls /usr/lib/rabbitmq/bin/rabbitmq-server; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get; then \
	  tests/servers/install rabbitmq-server; \
	else false; fi >/dev/null 2>&1 && touch $@ || echo "RabbitMQ could not be installed: apt-get install rabbitmq-server"

# nginx and HAProxy for the tests, which start theirs. Where they can't be had, they say so.
$(VENV)/.balancers: | $(BIN)/uv
	@if PATH=$$PATH:/usr/sbin command -v nginx && PATH=$$PATH:/usr/sbin command -v haproxy; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get; then \
	  tests/servers/install nginx haproxy; \
	else false; fi >/dev/null 2>&1 && touch $@ || echo "nginx and HAProxy could not be installed: apt-get install nginx haproxy"

# What builds and runs an image, for `make image-test` alone.
$(VENV)/.containers: | $(BIN)/uv
	@if command -v buildah && command -v podman && command -v runc && command -v mmdebstrap; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get; then \
	  tests/servers/install buildah podman runc mmdebstrap; \
	else false; fi >/dev/null 2>&1 && touch $@ || echo "no image can be built here: apt-get install buildah podman runc mmdebstrap"

# Prometheus, Alertmanager and two exporters for the tests and for `make observe`.
$(VENV)/.prometheus: | $(BIN)/uv
	@if command -v prometheus && command -v amtool && command -v prometheus-redis-exporter && command -v prometheus-postgres-exporter; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get; then \
	  tests/servers/install \
	    prometheus prometheus-alertmanager prometheus-redis-exporter prometheus-postgres-exporter; \
	else false; fi >/dev/null 2>&1 && touch $@ || echo "Prometheus could not be installed: apt-get install prometheus prometheus-alertmanager prometheus-redis-exporter prometheus-postgres-exporter"

# TimescaleDB for the tests. Its Apache edition comes from Debian, in a root of its own; the community edition is one
# for Node, and with it comes the oldest PostgreSQL that is served. Where one can't be had, its tests say so.
$(VENV)/.timescaledb: | $(BIN)/uv
	@if [ "$$(id -u)" = 0 ] && { command -v mmdebstrap || tests/servers/install mmdebstrap; } >/dev/null 2>&1; then \
	  echo "Unpacking TimescaleDB for the tests, once" && rm -rf $(VENV)/timescaledb && \
	  mmdebstrap --quiet --variant=minbase --include=postgresql-17-timescaledb trixie $(VENV)/timescaledb; \
	else false; fi && touch $@ || echo "TimescaleDB could not be unpacked: mmdebstrap, as root, does"

tests/servers/pglite/node_modules: tests/servers/pglite/package-lock.json
	@if command -v npm >/dev/null; then (cd $(@D) && npm ci --no-audit --no-fund --silent); else false; fi \
	  && touch $@ || echo "TimescaleDB for Node and PostgreSQL 14 could not be installed: Node and npm are needed"

# The clients that front ends use, and the audit of GraphQL over HTTP, for the tests. Without Node these say so.
tests/clients/node_modules: tests/clients/package-lock.json
	@if command -v npm >/dev/null; then (cd $(@D) && npm ci --no-audit --no-fund --silent); else false; fi \
	  && touch $@ || echo "GraphQL's public clients could not be installed: Node and npm are needed"

# Elastic's own types, to which what Elasticsearch is told is held. Without Node the test says so.
tests/observability/elastic/node_modules: tests/observability/elastic/package-lock.json
	@if command -v npm >/dev/null; then (cd $(@D) && npm ci --no-audit --no-fund --silent); else false; fi \
	  && touch $@ || echo "Elastic's types could not be installed: Node and npm are needed"

# The tests' own mongod comes with the packages; this is the one library that it asks of the system.
$(VENV)/.mongo: | $(VENV)/.installed-dev
	@if [ "$$(uname -s)" != Linux ] || ldconfig -p | grep -q 'libcurl\.so\.4 '; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  tests/servers/install libcurl4; \
	else false; fi >/dev/null 2>&1 && touch $@ || echo "MongoDB's library could not be installed: apt-get install libcurl4"

.PHONY: web
web: ## Build GraphiQL's page anew
	@rm -f $(VENV)/.page
	@$(MAKE) --no-print-directory $(VENV)/.page

.PHONY: picture
picture: $(VENV)/.installed-dev $(VENV)/.page $(VENV)/.browser ## Take the README's picture of GraphiQL
	PICTURE=docs/graphiql.png $(BIN)/pytest tests/web/test_graphiql.py -k tokens_appear

.PHONY: run
run: $(VENV)/.installed $(VENV)/.page ## Install, start the server on http://localhost:8080 and print how to use it
	@exec $(BIN)/ai-middleware serve

.PHONY: test
test: $(VENV)/.installed-dev lint $(VENV)/.page $(VENV)/.browser $(VENV)/.postgres $(VENV)/.mongo $(VENV)/.redis $(VENV)/.rabbitmq $(VENV)/.prometheus $(VENV)/.balancers $(VENV)/.timescaledb tests/servers/pglite/node_modules tests/clients/node_modules tests/observability/elastic/node_modules ## Everything that CI runs: linters, types, import contracts, tests
	$(BIN)/pytest --numprocesses $(WORKERS)

.PHONY: lint
lint: $(VENV)/.installed-dev ## Style, types and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: format
format: $(VENV)/.installed-dev ## Bring the code into its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: schema
schema: $(VENV)/.installed-dev ## Write schema.graphql and .env.example from the code, the README's tables of settings and providers, and docs/metrics.md
	$(BIN)/ai-middleware schema
	$(BIN)/python -m gateway.settings_table
	$(BIN)/python -m gateway.metrics_table

.PHONY: dashboards
dashboards: $(VENV)/.installed-dev ## Write Grafana's dashboards from k8s/observability/grafana/dashboards.yaml
	$(BIN)/python k8s/observability/grafana/write_dashboards.py

.PHONY: observe
observe: $(VENV)/.installed-dev $(VENV)/.prometheus ## A server under load from a fake vendor, with Prometheus and Alertmanager beside it
	@exec $(BIN)/python -m tests.observability.observe

.PHONY: soak
soak: $(VENV)/.installed-dev ## The long runs: 100 kills of a working server, stalled readers, outages by the dozen in the order of SEED
	$(BIN)/pytest -m soak -o addopts=

.PHONY: image-test
image-test: $(VENV)/.installed-dev $(VENV)/.containers $(VENV)/.postgres $(VENV)/.mongo $(VENV)/.redis $(VENV)/.rabbitmq ## Build the image without a registry of images, and run it: read-only, as uid 1001
	$(BIN)/pytest -m image -o addopts= tests/deploy/test_image.py

.PHONY: lock
lock: | $(BIN)/uv ## Lock the image's packages anew, each at its newest release that pyproject.toml allows
	$(BIN)/uv pip compile $(LOCKING) pyproject.toml --output-file requirements.lock
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
	  | $(BIN)/uv pip compile $(LOCKING) - --output-file requirements-build.lock

.PHONY: bench
bench: $(VENV)/.installed-dev ## Measure against a bare pass-through and write the first chapter of benchmarks/results.md
	$(BIN)/python -m benchmarks

.PHONY: bench-reports
bench-reports: $(VENV)/.installed-dev ## Measure usage reports by the ledger's size and write their chapter of benchmarks/results.md
	$(BIN)/python -m benchmarks.reports --rows $(SIZES)

.PHONY: bench-ledger
bench-ledger: $(VENV)/.installed-dev $(VENV)/.postgres $(VENV)/.timescaledb tests/servers/pglite/node_modules ## Measure the ledger on PostgreSQL and TimescaleDB and write its chapter of benchmarks/results.md
	$(BIN)/python -m benchmarks.ledger --rows $(ROWS)

.PHONY: bench-servers
bench-servers: $(VENV)/.installed-dev $(VENV)/.redis $(VENV)/.rabbitmq ## Measure the queue and what a completion asks of Redis and write their chapter of benchmarks/results.md
	$(BIN)/python -m benchmarks.servers

.PHONY: bench-batches
bench-batches: $(VENV)/.installed-dev $(VENV)/.postgres $(VENV)/.rabbitmq $(VENV)/.mongo ## Measure batches through a worker and write their chapter of benchmarks/results.md
	$(BIN)/python -m benchmarks.batches

.PHONY: clean
clean: ## Remove what was installed and built; DATA_DIR stays
	rm -rf $(VENV) dist gateway/static web/node_modules tests/servers/pglite/node_modules tests/clients/node_modules tests/observability/elastic/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
