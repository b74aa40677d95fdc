# Every target makes its own .venv; nothing has to be installed first but Python 3.11 or newer.

PYTHON ?= python3
VENV := .venv
PEERS := .bench/venv
RUN := $(VENV)/bin/python

BENCHMARKS := startup embedding call shim trust units detector decision

FUZZ_SECONDS ?= 300

SOAK_TESTS := tests/e2e/test_failure_detection.py tests/e2e/test_network.py tests/e2e/test_thousand_units.py tests/soak

.PHONY: demo test lint bench scale soak fuzz proto clean

demo: $(VENV)/.stamp  ## three nodes, one API, one of them killed
	$(RUN) -m scripts.demo

test: $(VENV)/.stamp
	$(RUN) -m pytest

lint: $(VENV)/.stamp
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports

bench: $(VENV)/.stamp $(PEERS)/.stamp  ## figures, as ratios against peers measured in the same run
	@for name in $(BENCHMARKS); do \
	  echo "== $$name"; $(RUN) -m tests.benchmarks.$$name || exit 1; \
	done

scale: $(VENV)/.stamp  ## every run that docs/scale.md tells of, and the page; goes on where it was interrupted
	$(RUN) -m simulations.scale

soak: $(VENV)/.stamp  ## the long forms: twenty deaths, ten minutes of loss and delay, 100,000 requests; half an hour
	ATMOSPHERE_SOAK=1 $(RUN) -m pytest -s $(SOAK_TESTS)

fuzz: $(VENV)/.stamp  ## every parser against coverage-guided fuzzing, FUZZ_SECONDS each
	FUZZ_SECONDS=$(FUZZ_SECONDS) $(RUN) -m pytest -s tests/fuzz

proto: $(VENV)/.stamp  ## regenerate the protobuf code
	$(RUN) scripts/generate_proto.py

clean:
	rm -rf $(VENV) .bench tests/interop/js/node_modules build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.stamp: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install -qq --disable-pip-version-check -e '.[dev]'
	@# trio-typing, which libp2p requires, brings stubs of an old Trio that hide Trio's own types from mypy.
	$(RUN) -c 'import shutil, sysconfig; shutil.rmtree(sysconfig.get_path("purelib") + "/trio-stubs", ignore_errors=True)'
	touch $@

# What we are measured against lives apart: its dependencies must not decide ours.
$(PEERS)/.stamp: pyproject.toml $(VENV)/.stamp
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(RUN) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["bench"], sep="\n")' > .bench/requirements.txt
	$(PEERS)/bin/python -m pip install -qq --disable-pip-version-check -r .bench/requirements.txt
	touch $@
