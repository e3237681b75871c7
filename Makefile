# Everything is set up inside .venv; outside the repository nothing is written but pip's own cache.
# Usage: make demo | make test | make clean. Another interpreter: make demo PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m
INSTALL := $(RUN) pip install --quiet --disable-pip-version-check --no-input --constraint constraints.txt --editable

# Frameworks that some tests and `spikeport bench` compare with. Without what they would like to bring along:
# other versions of torch and nir, and torchvision.
PEERS := snntorch==0.9.4 norse==1.1.0 spikingjelly==2.0.0 loguru==0.7.3 tqdm==4.70.1 \
	requests==2.34.2 urllib3==2.8.0 certifi==2026.10.18 idna==3.20 charset-normalizer==3.5.2

# Other readers of event files that tests compare with; where there is no wheel of one, these tests are skipped.
READERS := expelliarmus==1.1.12 faery==0.7.1 aedat==2.3.0 event-stream==1.6.3 dv-processing==2.0.4

# The live view's tests open chromium where there is one (`apt install chromium`; .ci/run does it as root), else they
# are skipped.

# matplotlib keeps its list of fonts here instead of in the home directory.
export MPLCONFIGDIR := $(CURDIR)/$(VENV)/cache/matplotlib

.PHONY: help demo test clean

help:
	@echo 'make demo   train a CNN on digits, convert it, place it on the chip, run it; a report lands in demo-out/'
	@echo 'make test   format, lint, types, import order and the fast tests (CI adds: pytest -m slow);'
	@echo '            the live view is tested in chromium where that is installed: apt install chromium'
	@echo 'make clean  remove .venv, caches and demo-out/'

demo: $(VENV)/ready-demo
	$(VENV)/bin/spikeport demo

test: $(VENV)/ready-test
	$(RUN) ruff format --check --quiet .
	$(RUN) ruff check --quiet .
	$(RUN) mypy
	$(VENV)/bin/lint-imports --no-logo
	$(RUN) pytest -n auto --dist loadfile

$(VENV)/ready-demo: $(VENV)/bin/python
	@echo 'Installing spikeport and what it needs into $(VENV) (a few minutes the first time) ...'
	@$(INSTALL) '.[digits]'
	@touch $@

$(VENV)/ready-test: $(VENV)/bin/python
	@echo 'Installing spikeport and its tools into $(VENV) (a few minutes the first time) ...'
	@$(INSTALL) '.[dev]'
	@$(RUN) pip install --quiet --disable-pip-version-check --no-input --no-deps $(PEERS)
	@$(RUN) pip install --quiet --disable-pip-version-check --no-input --no-deps --only-binary :all: $(READERS) || \
		echo 'Not all of $(READERS) install here: tests that compare with them are skipped.'
	@touch $@ $(VENV)/ready-demo

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { \
		echo "spikeport needs Python 3.11 or newer, and there is no '$(PYTHON)' here. Try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "spikeport needs Python 3.11 or newer, found $$($(PYTHON) --version 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
		echo "$(PYTHON) has no venv module. On Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/ready-demo $(VENV)/ready-test: pyproject.toml constraints.txt

clean:
	rm -rf $(VENV) demo-out build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
