# Only the verbs. Their programs are in scripts/ and bench/. `make help` lists them.
#
# PG=16|18        the embedded PostgreSQL (default 18)
# PG_CONFIG=path  your own PostgreSQL instead
# MODEL=name      gte-small (default) or all-MiniLM-L6-v2
# MODEL_DIR=dir   your own model directory
# FROM=archive    make install-model: a file of make model-archive
# DESTDIR=dir     put before every path of make install, install-model and uninstall
# FILE=notes.csv  make import: CSV or JSON lines; COLUMN=body is searched, TABLE=name is created, REPLACE=1 replaces it
# LONG=1          make docs-test: also the examples that fetch, build and measure
# FORCE=1         make reset: drop tables that are not the demo's own, imported ones too
# PROFILE=fast    make install without the slow optimizations
# XQUAD=dir       XQuAD English for make fidelity (default ../shared/data/xquad)

PYTHON ?= python3
ifneq ($(filter 3.7% 3.80,$(MAKE_VERSION)),)
$(error make is $(MAKE_VERSION) and must be GNU make 3.81 or newer:  sudo apt-get install -y make)
endif
ifneq ($(shell $(PYTHON) -c 'import sys; print(sys.version_info >= (3, 9))' 2>/dev/null),True)
$(error $(PYTHON) is missing, or older than 3.9:  sudo apt-get install -y python3)
endif
export PG PG_CONFIG DESTDIR MODEL MODEL_DIR FROM PROFILE FILE COLUMN TABLE REPLACE FORCE LONG PORT TIMEOUT DSN

.DEFAULT_GOAL := help
.PHONY: help run start stop psql dsn reembed reset model model-archive check-model all build install install-model uninstall deb dist installcheck check test test-pg bench bench-peers bench-sql bench-backfill bench-citus fidelity clean import test-debian test-long bench-cancel valgrind docs-test test-clients test-citus web web-screenshot

help:           ## this list
	@$(PYTHON) scripts/help.py

run:            ## set everything up and show searches on real text
	@$(PYTHON) scripts/demo.py run

start:          ## start the demo's server
	@$(PYTHON) scripts/demo.py start

stop:           ## stop the demo's servers; the data stays
	@$(PYTHON) scripts/demo.py stop

psql:           ## open psql in the demo's database
	@$(PYTHON) scripts/demo.py psql

dsn:            ## its connection string: psql "$$(make -s dsn)"
	@$(PYTHON) scripts/demo.py dsn

web:            ## search the demo's tables in a browser: PORT=8018 TIMEOUT=10, DSN= for another database
	@$(PYTHON) scripts/web.py

web-screenshot: ## draw docs/web.png again, with chromium
	@$(PYTHON) scripts/web_screenshot.py

import:         ## load your own file and search it: FILE=notes.csv COLUMN=body
	@$(PYTHON) scripts/import_file.py

reembed:        ## embed the demo's rows again with the model of MODEL= or MODEL_DIR=
	@$(PYTHON) scripts/demo.py reembed

reset:          ## remove the demo's server and rows; FORCE=1 drops other tables too
	@$(PYTHON) scripts/demo.py reset

model:          ## fetch the model: gte-small, MODEL= or MODEL_DIR=
	@$(PYTHON) scripts/model.py

check-model:    ## compare a model's vectors with published values and with stock candle
	@$(PYTHON) scripts/model.py check

build:          ## build for PG_CONFIG (default: pg_config on PATH); then  sudo make install
	@$(PYTHON) scripts/build.py build

# PGXN's client calls it before make install.
all: build

install:        ## install for PG_CONFIG what make build has built, or build it first; DESTDIR=
	@$(PYTHON) scripts/build.py install

model-archive:  ## the model as one file with its checksums, for install-model FROM=
	@$(PYTHON) scripts/model_archive.py

install-model:  ## install gte-small, MODEL=, MODEL_DIR= or FROM=archive where a server of PG_CONFIG finds it
	@$(PYTHON) scripts/install_model.py

deb:            ## Debian packages of extension and model into target/dist: PG=15
	@$(PYTHON) scripts/deb.py

dist:           ## the zip for PGXN into target/dist
	@$(PYTHON) scripts/dist.py

uninstall:      ## remove library, control and SQL from PG_CONFIG's PostgreSQL
	@$(PYTHON) scripts/build.py uninstall

installcheck:   ## SQL tests on a throw-away server of PG_CONFIG's PostgreSQL, after make install
	@$(PYTHON) scripts/test.py installcheck

check:          ## format, clippy, and the tests that need no PostgreSQL
	@$(PYTHON) scripts/test.py check

test:           ## every test, on throw-away servers
	@$(PYTHON) scripts/test.py

test-pg:        ## the part of make test that depends on the version of PostgreSQL: PG=16
	@$(PYTHON) scripts/test.py test-pg

test-debian:    ## packages and every test in Debian 12's PostgreSQL 15 or Debian 13's 17: PG=17; needs root and apt
	@$(PYTHON) scripts/debian.py

test-clients:   ## the examples with their client libraries, from PyPI, npm and crates.io; node is optional
	@$(PYTHON) scripts/clients.py

test-citus:     ## distributed tables on private clusters, with your PG_CONFIG's PostgreSQL, Citus, pgvector and gte-small
	@$(PYTHON) scripts/citus.py

test-long:      ## every test, with 200,000 calls, longer concurrency tests and many more random cases
	@$(PYTHON) scripts/test.py --long

docs-test:      ## run the examples of README and docs, compare what they print; LONG=1: also those that build
	@$(PYTHON) scripts/docs_test.py

valgrind:       ## tests of the engine and of pgvector's layout under valgrind (AVX2 and portable kernels)
	@$(PYTHON) scripts/valgrind.py

bench:          ## the engine alone: by length and batch, every tier of this CPU, 1 and 2 threads
	@$(PYTHON) bench/bench.py

bench-peers:    ## the engine beside ONNX Runtime, OpenVINO and stock candle; figures and plot into target/bench
	@$(PYTHON) bench/peers.py

bench-sql:      ## through SQL: overhead over the engine, INSERT, first embed, memory, sessions, threads, counted searches
	@$(PYTHON) bench/sql.py

bench-backfill: ## embed_backfill() and Python + ONNX Runtime: read, embed and write 20,000 rows
	@$(PYTHON) bench/backfill.py

bench-citus:    ## COPY, embed_backfill() and searches on Citus, with 1 to 3 workers of your PG_CONFIG's PostgreSQL
	@$(PYTHON) bench/citus.py

bench-cancel:   ## time until a cancelled statement ends: p50 and p99 of 200, for embed(text[]) and COPY
	@$(PYTHON) bench/cancellation.py

fidelity:       ## search quality through SQL on XQuAD English, compared with the published figures
	@$(PYTHON) bench/fidelity.py

clean:          ## remove all created files, servers and models included
	@$(PYTHON) scripts/demo.py clean
