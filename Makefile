# Everything a person or a machine does with this checkout. Each target first installs what it needs (tools/bootstrap.py):
# with Python 3.11 to 3.13 and make alone on Debian, as root or not.
#
#   make run      a payment from start to end on this machine, then it stays up     ARGS="--port 8080"
#   make test     all tests, against a real PostgreSQL and a real local chain       ARGS="-k reorg"
#   make fuzz     odd input for everything that reads from outside, for as long as you say   SECONDS=600
#   make exhaustive  every order of a handful of events, in larger scopes than `make test` (some minutes)
#   make soak     fresh seeds of the simulation, for as long as you say; failing ones are kept   SECONDS=3600 SEED=1
#   make pictures every page in every situation, light and dark, phone and desktop, under test-results
#   make check    lint, format, types, architecture rules
#   make bench    the benchmarks, as a table and as JSON
#   make format   rewrites the sources as `make check` wants them
#   make lock     resolves the dependencies anew
#   make clean    removes what was installed and built

PYTHON3 ?= python3
BOOTSTRAP = $(PYTHON3) tools/bootstrap.py
BIN = .venv/bin
# Half of the tests' time is waiting for servers, chains and clocks: one worker more than the smallest machine we test on
# has cores. What only computes gets no more than there are.
TEST_WORKERS ?= 3
COMPUTE_WORKERS ?= 2
ARGS ?=
# How long each part of `make fuzz`, and `make soak`, goes on.
SECONDS ?= 600
# Where `make soak` begins: another number each time unless one is given.
SEED ?= $(shell date +%s)

.DEFAULT_GOAL := help
.PHONY: help run test fuzz exhaustive soak pictures check bench format lock clean install

help:
	@sed -n 's/^#   //p' Makefile

install:
	@$(BOOTSTRAP) dev

run:
	@$(BOOTSTRAP) demo
	@exec $(BIN)/tallystick demo $(ARGS)

test:
	@$(BOOTSTRAP) dev
	@. .bootstrap/environment; set -x; exec $(BIN)/python -m pytest -n $(TEST_WORKERS) $(ARGS)

fuzz:
	@$(BOOTSTRAP) dev
	@. .bootstrap/environment; set -x; TALLYSTICK_FUZZ_SECONDS=$(SECONDS) exec $(BIN)/python -m pytest -n $(COMPUTE_WORKERS) tests/fuzz $(ARGS)

exhaustive:
	@$(BOOTSTRAP) dev
	@. .bootstrap/environment; set -x; TALLYSTICK_EXHAUSTIVE=1 exec $(BIN)/python -m pytest -n $(COMPUTE_WORKERS) \
		tests/core/test_all_interleavings.py tests/simulation/test_small_scope.py $(ARGS)

soak:
	@$(BOOTSTRAP) dev
	@exec $(BIN)/tallystick simulate --seed $(SEED) --seconds $(SECONDS) --jobs $(COMPUTE_WORKERS) \
		--failures failing-seeds.txt $(ARGS)

pictures:
	@$(BOOTSTRAP) dev
	@. .bootstrap/environment; set -x; TALLYSTICK_PICTURES=1 exec $(BIN)/python -m pytest tests/web $(ARGS)

check:
	@$(BOOTSTRAP) check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -p no:xdist tests/test_architecture.py

bench:
	@$(BOOTSTRAP) dev
	@exec $(BIN)/python -m bench $(ARGS)

format:
	@$(BOOTSTRAP) check
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:
	@$(BOOTSTRAP) lock

clean:
	@$(BOOTSTRAP) clean
