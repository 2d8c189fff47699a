# Every target makes its own virtual environment; PYTHON chooses the interpreter (3.11 or newer for the whole toolchain).
PYTHON ?= $(shell command -v python3.11 || echo python3)
VENV ?= .venv
VENV_GPU ?= .venv-gpu
PIP = $(VENV)/bin/pip --disable-pip-version-check --quiet
RUN = $(VENV)/bin/python

.PHONY: demo test report full-size gpu-check soak clean

demo: $(VENV)/demo.stamp
	$(RUN) -m edgeturbo.export.demo --out demo-out

test: $(VENV)/test.stamp
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo
	$(RUN) tests/old_python.py
	$(RUN) -m pytest -n 2 --dist worksteal

# docs/report, from the demo's bundle, PyTorch beside it: six minutes on a quiet machine, and a busy one is named in it.
report: $(VENV)/test.stamp
	test -f demo-out/day2night/manifest.json || $(RUN) -m edgeturbo.export.demo --out demo-out
	$(VENV)/bin/turbo-bench demo-out/day2night --ckpt export/demo/day2night_demo.pkl --base export/demo/base \
		--against pytorch,onnxruntime --suite latency,quality,memory,stream --repeat 12 --seconds 20 \
		--predict jetson-orin-nano-super,agx-orin,thor,rtx-4090 --report demo-out/report
	rm -rf docs/report
	cp -R demo-out/report docs/report
	mv docs/report/report.html docs/report/index.html
	mv docs/report/report.md docs/report/README.md

full-size: $(VENV)/demo.stamp
	$(RUN) -m edgeturbo.benchmarks.full_size --work full-size --results benchmarks/results

soak: $(VENV)/test.stamp
	$(RUN) -m edgeturbo.benchmarks.soak --json benchmarks/results/soak.json

# On a machine with an NVIDIA GPU; resumes where it was interrupted. GPU_CHECK="--stage tensorrt" runs one stage.
gpu-check: $(VENV_GPU)/gpu.stamp
	$(VENV_GPU)/bin/python -m edgeturbo.benchmarks.gpu_check --work gpu-check --results benchmarks/results --docs docs/performance.md $(GPU_CHECK)

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.stamp: $(VENV)/bin/pip pyproject.toml constraints.txt
	$(PIP) install -c constraints.txt "torch==2.13.0"
	$(PIP) install -c constraints.txt -e ".[cpu,export,rtx]"
	touch $@

$(VENV)/test.stamp: $(VENV)/demo.stamp
	$(PIP) install -c constraints.txt -e ".[cpu,export,rtx,openvino,camera,service,canny,bench,dev]"
	touch $@

# A GPU's PyTorch and TensorRT come from the system or the index, so no constraints here.
$(VENV_GPU)/gpu.stamp: pyproject.toml
	$(PYTHON) -m venv --system-site-packages $(VENV_GPU)
	$(VENV_GPU)/bin/pip install -e ".[cuda,export,tensorrt,rtx]"
	touch $@

clean:
	rm -rf $(VENV) $(VENV_GPU) demo-out full-size gpu-check build *.egg-info
