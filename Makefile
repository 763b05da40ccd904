# Two commands for people: `make run` and `make test`. Each makes the virtual environment that it
# needs (again, when pyproject.toml has changed) and then runs.

PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
BIN := $(VENV)/bin
BUILD := build/compiled

.DEFAULT_GOAL := help
.PHONY: help run test test-compiled container-test check format bench bench-boot figures fuzz probes clean

help:
	@echo 'make run    serve openmirage.org on 127.0.0.1, without any privilege (ARGS="--link tap:NAME ...")'
	@echo 'make test   all tests (ARGS="-k tcp"); as root with the tools of .ci/run, interop too'
	@echo 'make test-compiled  the tests of the stack, of plain queries and of TLS, on the packet path compiled'
	@echo 'make container-test  the Dockerfile, built and run: minutes, as root with buildah, podman and debootstrap'
	@echo 'make check  lint, format and types'
	@echo 'make bench  side by side with nginx and NSD, as root (ROWS="dns-mixed http-1k-c32" ROUNDS=5 JSON=FILE)'
	@echo 'make bench-boot  where the time of a booting machine goes; after appliance configure && appliance build (ROUNDS=5)'
	@echo 'make figures  what takes long about DNS: a million records, hostile queries, IXFR, kills (ARGS="million")'
	@echo 'make probes ask 200 questions of our web server, and of nginx and Caddy where they are installed'
	@echo 'make fuzz   random scenarios and hostile packets for a while (MINUTES=10 SEED=1)'
	@echo 'make format let ruff rewrite the layout'
	@echo 'make clean  remove the virtual environment and the caches'

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=23.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fast,dev]'
	touch $@

run: $(STAMP)
	exec $(BIN)/appliance serve $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest $(ARGS)

# The same tests on what a wheel has; without a C compiler there is nothing to test.
test-compiled: $(STAMP) $(BUILD)/.built
	cd $(BUILD) && $(abspath $(BIN))/python -m appliance --version | grep -F '(compiled)'
	$(BIN)/python -m pytest -o pythonpath='$(BUILD) .' tests/net tests/sim tests/fuzz \
		tests/dns/test_answer.py tests/dns/test_counters.py tests/dns/test_paths.py \
		tests/dns/test_protocol.py tests/tls/test_engine.py tests/tls/test_hello.py \
		tests/tls/test_primaries.py tests/tls/test_protocol.py $(ARGS)

container-test: $(STAMP)
	CONTAINERS=1 $(BIN)/python -m pytest -o faulthandler_timeout=900 \
		tests/image/test_dockerfile.py $(ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# In the order in which they are named; all of them take some ten minutes.
figures: $(STAMP)
	$(BIN)/python -m tests.dns.figures $(ARGS)

probes: $(STAMP)
	$(BIN)/python -m tests.http.probes $(ARGS)

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What `pip install .` gives: the packet path compiled, if there is a C compiler. PURE=1: the sources.
$(BUILD)/.built: pyproject.toml hatch_build.py $(shell find appliance -name '*.py' -o -path '*/theme/*' -type f)
	rm -rf $(BUILD)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(BUILD) .
	touch $@

bench: $(STAMP) $(if $(PURE),,$(BUILD)/.built)
	@APPLIANCE_BUILD='$(if $(PURE),,$(abspath $(BUILD)))' ROWS='$(ROWS)' SECONDS='$(SECONDS)' ROUNDS='$(ROUNDS)' JSON='$(JSON)' $(BIN)/python -m bench

bench-boot: $(STAMP)
	ROUNDS='$(ROUNDS)' $(BIN)/python -m bench.boot $(ARGS)

# Two thirds of the time for scenarios, one third for attackers; what fails lands in fuzz-failures/.
MINUTES ?= 10
fuzz: $(STAMP)
	@status=0; \
	$(BIN)/appliance fuzz loopback --seconds $$(($(MINUTES) * 40)) $(if $(SEED),--seed $(SEED)) || status=1; \
	$(BIN)/appliance fuzz wire --seconds $$(($(MINUTES) * 20)) $(if $(SEED),--seed $(SEED)) || status=1; \
	exit $$status

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find appliance bench tests -name __pycache__ -type d -prune -exec rm -rf {} +
