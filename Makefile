# Everything a newcomer needs is `make serve` and `make test`. Override: make serve PYTHON=python3.12 PORT=9000
PYTHON ?= python3
DATA ?= data
HOST ?= 127.0.0.1
PORT ?= 8000
# Test files side by side: one more than two processors, since many wait for servers.
JOBS ?= 3

VENV := .venv
TEST_VENV := .venv-test
BENCH_VENV := .venv-bench
SOURCES := $(shell find src -type f -not -name '*.pyc') pyproject.toml README.md LICENSE
PIP := -m pip --disable-pip-version-check install --quiet

.PHONY: help serve test check bench fleet docs format lock clean

help:
	@echo "make serve   install into $(VENV), start on http://$(HOST):$(PORT) with the folder $(DATA)"
	@echo "make test    install what the tests need, build the wheel, run everything against it"
	@echo "make check   format, lint, types, layers, generated docs"
	@echo "make fleet   run a whole fleet on this machine, do its main job, stop it; ARGS=--keep leaves it up"
	@echo "make bench   measure against libvips, thumbor and nginx; several minutes"
	@echo "make format  put the code in the house's format"
	@echo "make lock    pin the requirements anew"

serve: $(VENV)/installed
	$(VENV)/bin/lazypix serve --data "$(DATA)" --host "$(HOST)" --port "$(PORT)"

test: $(TEST_VENV)/installed
	sh scripts/servers.sh
	$(TEST_VENV)/bin/python -m pytest --numprocesses=$(JOBS) --dist=loadfile --no-loadscope-reorder --durations=15 $(ARGS)

check: $(TEST_VENV)/installed
	$(TEST_VENV)/bin/ruff format --check .
	$(TEST_VENV)/bin/ruff check .
	$(TEST_VENV)/bin/mypy
	$(TEST_VENV)/bin/python -m pytest tests/test_layers.py
	$(TEST_VENV)/bin/python scripts/reference.py --check

fleet: $(TEST_VENV)/installed
	sh scripts/servers.sh
	@$(TEST_VENV)/bin/python -m tests.fleet.topology $(ARGS)

bench: $(TEST_VENV)/installed $(BENCH_VENV)/installed
	sh scripts/servers.sh
	$(TEST_VENV)/bin/python -m benchmarks --thumbor $(BENCH_VENV)/bin/thumbor --write docs/performance.md $(ARGS)

docs: $(TEST_VENV)/installed
	$(TEST_VENV)/bin/python scripts/reference.py

format: $(TEST_VENV)/installed
	$(TEST_VENV)/bin/ruff format .
	$(TEST_VENV)/bin/ruff check --fix .

lock: $(TEST_VENV)/installed
	sh scripts/lock.sh $(TEST_VENV)/bin/uv

clean:
	rm -rf $(VENV) $(TEST_VENV) $(BENCH_VENV) dist build .hypothesis .mypy_cache .pytest_cache .ruff_cache

# The package as it is: no packages but the locked ones, no build tools fetched behind our back.
$(VENV)/installed: requirements/serve.txt $(SOURCES) | $(VENV)/bin/python
	$(VENV)/bin/python $(PIP) --require-hashes -r requirements/serve.txt
	$(VENV)/bin/python $(PIP) --no-deps --no-build-isolation --force-reinstall .
	@touch $@

# The tests run against the wheel that would be published, not against the source tree.
$(TEST_VENV)/packages: requirements/dev.txt | $(TEST_VENV)/bin/python
	$(TEST_VENV)/bin/python $(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

$(TEST_VENV)/installed: $(TEST_VENV)/packages $(SOURCES)
	rm -rf dist
	$(TEST_VENV)/bin/python -m pip --disable-pip-version-check wheel --quiet --no-deps --no-build-isolation -w dist .
	$(TEST_VENV)/bin/python $(PIP) --no-deps --force-reinstall dist/*.whl
	@touch $@

$(BENCH_VENV)/installed: requirements/bench.txt | $(BENCH_VENV)/bin/python
	$(BENCH_VENV)/bin/python $(PIP) --require-hashes -r requirements/bench.txt
	@touch $@

%/bin/python:
	sh scripts/venv.sh "$(PYTHON)" $*
