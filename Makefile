# Works with GNU make 3.81 and later. Everything lives in .venv, which the targets make themselves.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RUNS := $(VENV)/.runs
EVENTS ?= ../shared/data/serenade-toy/events.csv.gz
SOURCES := api cli models ops streams

# The first Python of a version that River and Faust have wheels for, and that really runs: a name
# on the PATH may be a shim for a version that is not installed.
PYTHON = $(shell for name in python3.13 python3.12 python3.11 python3.14 python3; do \
	$$name -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null \
	&& { command -v $$name; break; }; done)
UV = $(shell command -v uv 2>/dev/null)
# Three processes a core, since most tests wait; ARGS="-n 0" runs one test after the other.
PARALLEL := -n auto --dist loadfile
# What the demo needs: no tools of development, but the embedded servers.
RUN_EXTRAS = --no-dev --extra embedded
EXPORT = uv export --quiet --locked --no-emit-project --no-header --format requirements-txt

# Demo and tests start many processes: without bytecode each compiles the same sources again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help $(VENV) demo test test-unit test-kafka test-slow test-rest drill check web web-check advisories lock \
	dist npm-package bench bench-peers bench-growth clean

help: ## This list.
	@awk -F ':.*## ' '/^[a-z.$$(][^:]*:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

.venv: $(READY) ## The environment, of exactly the locked versions.

# What the demo runs, without what tests and checks need; a full environment is used as it is.
FOR_DEMO = $(if $(wildcard $(READY)),$(READY),$(RUNS))

$(READY) $(RUNS): pyproject.toml uv.lock requirements.lock requirements-run.lock
	@if [ -z "$(PYTHON)" ] && [ -z "$(UV)" ]; then \
		echo "No Python 3.11 to 3.14 found: install one, or uv, which brings its own." >&2; \
		exit 1; fi
	@echo "installing $(if $(filter $@,$(RUNS)),what it runs,everything) into $(VENV), once: about a minute"
ifneq ($(UV),)
	@UV_PROJECT_ENVIRONMENT=$(VENV) uv sync --frozen --quiet $(addprefix --python ,$(PYTHON)) \
		$(if $(filter $@,$(RUNS)),$(RUN_EXTRAS),--all-extras)
else
	@$(BIN)/python -c 'import pip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null \
		|| $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile \
		--require-hashes -r requirements$(if $(filter $@,$(RUNS)),-run).lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
endif
	@# Inner loops become machine code now, once, and not in every process that starts first.
	@$(BIN)/python -c "from models.code_cache import compile_once; compile_once(print)"
	@touch $@

demo: $(FOR_DEMO) ## Real events, learning and recommendations that change; ARGS="--once --json".
	@$(BIN)/recommender demo $(ARGS)

test: $(READY) ## The tests that need nothing installed; ARGS go to pytest.
	$(BIN)/python -m pytest $(PARALLEL) -m "not kafka and not slow" $(ARGS)

test-unit: $(READY) ## The tests that start no server, in seconds.
	$(BIN)/python -m pytest -q -m unit tests $(ARGS)

test-kafka: $(READY) ## The tests on Apache Kafka and Redis: needs Java 17, Maven, redis-server.
	$(BIN)/python -m pytest $(PARALLEL) -n 6 -m kafka $(ARGS)

test-slow: $(READY) ## The tests that take minutes.
	$(BIN)/python -m pytest $(PARALLEL) -m "slow and not kafka" $(ARGS)

test-rest: $(READY) ## test-kafka and test-slow in one run, as in CI, which takes less CPU.
	$(BIN)/python -m pytest $(PARALLEL) -m "kafka or slow" $(ARGS)

drill: $(READY) ## Two hundred faults on Apache Kafka and Redis under load; ARGS="--seed 8".
	$(BIN)/recommender drill --faults 200 --redis-server redis-server --kafka-folder \
		"$$($(BIN)/python -c 'from tests.servers import kafka_jars; print(kafka_jars())')" $(ARGS)

check: $(READY) ## Format, lint, types, import contracts, doctests, locks in step.
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q $(SOURCES)
ifneq ($(UV),)
	$(EXPORT) --all-extras | diff -u requirements.lock -
	$(EXPORT) $(RUN_EXTRAS) | diff -u requirements-run.lock -
else
	@echo "uv not found: whether the locks are in step was not checked."
endif

# What npm has installed of the lock file.
PACKAGES := web/node_modules/.package-lock.json

$(PACKAGES): web/package.json web/package-lock.json web/.npmrc
	cd web && npm ci --loglevel=error
	@touch $@

web: $(PACKAGES) ## The shop and the browser SDK, from web/ into api/static; needs npm.
	cd web && npm run --silent types && npm run --silent build

web-check: $(PACKAGES) ## Their types, and that api/static is what web/ builds; needs npm.
	cd web && npm run --silent types && rm -rf ../.cache/static && npm run --silent build ../.cache/static
	diff -r .cache/static api/static
	@! grep '"resolved"' web/package-lock.json | grep -v '"resolved": "https://registry.npmjs.org/'

advisories: ## Known vulnerabilities of the locked packages, as PyPI has them; needs uv and the network.
	uvx --quiet pip-audit@2.10.1 --strict --disable-pip --require-hashes -r requirements.lock

lock: ## All locks, after a change of the dependencies in pyproject.toml; needs uv.
	uv lock
	$(EXPORT) --all-extras --output-file requirements.lock
	$(EXPORT) $(RUN_EXTRAS) --output-file requirements-run.lock

dist: ## Wheel, sdist and bill of materials of the release TAG=v1.2.3 into dist/; needs uv.
	@test "$(TAG)" = "v$$(uv version --short)" || { \
		echo "tag '$(TAG)' is not the version of pyproject.toml, v$$(uv version --short)" >&2; exit 1; }
	rm -rf dist
	uv build --quiet --out-dir dist
	uv export --quiet --locked --no-dev --all-extras --format cyclonedx1.5 --output-file dist/sbom.cdx.json
	@found=$$(cd dist && uv run --quiet --no-project --isolated --with ./*.whl recommender --version) && \
		test "v$${found##* }" = "$(TAG)" || { echo "the wheel says: $$found" >&2; exit 1; }

pin-images: ## Digests behind the versions of all images in Dockerfile and docker-compose.yml; needs docker.
	@for image in $$(sed -nE 's/^(FROM| +image:) ([^ @]+:v?[0-9][^ @]*)( AS .*)?$$/\2/p' Dockerfile docker-compose.yml | sort -u); do \
		digest=$$(docker buildx imagetools inspect "$$image" --format '{{.Manifest.Digest}}') || exit 1; \
		sed -i -E "s|^(FROM\|  +image:) $$image( AS .*)?$$|\1 $$image@$$digest\2|" Dockerfile docker-compose.yml; \
	done

npm-package: ## The browser SDK of the release TAG=v1.2.3 as an npm package, into dist/; needs npm.
	rm -rf .cache/npm && mkdir -p .cache/npm dist
	cp web/sdk/package.json web/sdk/README.md api/static/recommender.js api/static/recommender.d.ts LICENSE .cache/npm
	cd .cache/npm && npm version --silent --no-git-tag-version --allow-same-version "$(TAG:v%=%)" >/dev/null
	cd .cache/npm && npm pack --silent --pack-destination ../../dist

bench: $(READY) ## Every benchmark, each prints JSON with its conditions.
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.prepare
	$(BIN)/python -m benchmarks.filters
	$(BIN)/python -m benchmarks.connections
	$(BIN)/python -m benchmarks.learning $(EVENTS)
	$(BIN)/python -m benchmarks.learning $(EVENTS) --events-per-message 10
	$(BIN)/python -m benchmarks.freshness
	$(BIN)/python -m benchmarks.pages
	$(BIN)/python -m benchmarks.outage
	$(BIN)/python -m benchmarks.live_event $(EVENTS)
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.serving $(EVENTS)

bench-peers: $(READY) ## This beside Serenade, implicit and more, into README; ARGS="--quick".
	$(BIN)/python -m benchmarks.peers $(dir $(EVENTS)) $(or $(ARGS),--write)

bench-load: $(READY) ## Three times the sustainable rate, then a soak at half of it; ARGS="--minutes 5".
	$(BIN)/python -m benchmarks.overload
	$(BIN)/python -m benchmarks.soak $(ARGS)

bench-growth: $(READY) ## What grows with messages, items and users; an hour, ARGS="--sizes 10000,100000".
	$(BIN)/python -m benchmarks.broker_growth
	$(BIN)/python -m benchmarks.growth $(or $(ARGS),--sizes 10000,100000,1000000)

clean: ## Remove the environment and every cache; data in .recommender stays.
	rm -rf web/node_modules $(VENV) .cache .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find $(SOURCES) tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
