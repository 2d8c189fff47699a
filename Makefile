# Every target makes its own virtual environment; PYTHON chooses the interpreter (3.11 or newer for the whole toolchain).
PYTHON ?= $(shell command -v python3.11 || echo python3)
VENV ?= .venv
PIP = $(VENV)/bin/pip --disable-pip-version-check --quiet
RUN = $(VENV)/bin/python

.PHONY: demo test full-size clean

demo: $(VENV)/demo.stamp
	$(RUN) -m edgeturbo.export.demo --out demo-out

test: $(VENV)/test.stamp
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo
	$(RUN) tests/old_python.py
	$(RUN) -m pytest -n 2 --dist worksteal

full-size: $(VENV)/demo.stamp
	$(RUN) -m edgeturbo.benchmarks.full_size --work full-size --results benchmarks/results

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: $(VENV)/bin/pip pyproject.toml constraints.txt
	$(PIP) install -c constraints.txt "torch==2.13.0"
	$(PIP) install -c constraints.txt -e ".[cpu,export,rtx]"
	touch $@

$(VENV)/test.stamp: $(VENV)/demo.stamp
	$(PIP) install -c constraints.txt -e ".[cpu,export,rtx,openvino,camera,service,canny,dev]"
	touch $@

clean:
	rm -rf $(VENV) demo-out full-size build *.egg-info
