# Every target sets up what it needs, and needs nothing but python3 (3.11 or newer, with venv) and make.

PYTHON ?= python3
TOOLS := $(PYTHON) -m tools
SERVED ?= examples/upper_tcp.py:Upper --bind tcp://127.0.0.1:9999
ARGS ?=
SYSTEM ?= yes

.DEFAULT_GOAL := help
.PHONY: help run test pytest lint format cover bench chaos fleet fuzz programs pythons clean python

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

run: python ## serve the upper-casing example; SERVED names another handler and its addresses
	@exec $(TOOLS) run run $(SERVED)

test: python ## all checks, on every Python of this machine; SYSTEM=no installs no Debian packages
	@exec $(TOOLS) test --system $(SYSTEM)

pytest: python ## tests on the default Python alone: make pytest ARGS="tests/server -k shutdown"
	@exec $(TOOLS) pytest $(ARGS)

lint: python ## format, style, types and the import contracts
	@exec $(TOOLS) lint

format: python ## format the code
	@exec $(TOOLS) format

cover: python ## tests on the default Python, with branch coverage, and as pages in htmlcov/
	@exec $(TOOLS) cover

bench: python ## the benchmarks; ARGS are their options
	@exec $(TOOLS) bench $(ARGS)

pythons: python ## lay Python 3.14 and 3.15 of Debian beside the system, for make test; ARGS names others
	@exec $(TOOLS) pythons $(ARGS)

chaos: python ## servers whose system calls fail, for five minutes; ARGS are its options
	@exec $(TOOLS) chaos $(ARGS)

fleet: python ## 5,000 connected devices, while the workers of their server are replaced 20 times
	@exec $(TOOLS) fleet $(ARGS)

fuzz: python ## bytes that no one would write, for the codecs, for five minutes; ARGS are its options
	@exec $(TOOLS) fuzz $(ARGS)

programs: python ## tests of programs that stand on socketserver, here on everserve; ARGS names some of them
	@exec $(TOOLS) programs $(ARGS)

clean: python ## remove the files that the other targets made
	@exec $(TOOLS) clean

python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "everserve needs Python 3.11 or newer as python3; PYTHON=... names another" >&2; exit 1; }
