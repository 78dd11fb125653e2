# Each target sets up what it needs; the second time that takes no time.
.DEFAULT_GOAL := help
SHELL := /bin/sh

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python3.11)
VENV := .venv
STAMP := $(VENV)/.stamp
RUN := $(VENV)/bin/python
# One line a target: the sentence after ## is what `make help` shows.

.PHONY: help
help: ## List the targets.
	@grep -hE '^[a-z][a-z0-9-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | \
	  awk -F '\t' '{ printf "  %-18s %s\n", $$1, $$2 }'

.PHONY: demo
demo: $(STAMP) ## Start the service, prune a real model twice, show what came of it, stop everything.
	$(RUN) deploy/demo/demo.py

.PHONY: dev
dev: $(STAMP) ## Run the whole service here until Ctrl-C.
	$(VENV)/bin/secateur dev

.PHONY: test-gpu
test-gpu: $(STAMP) ## The tests that need a CUDA device.
	$(RUN) -m pytest -m gpu $(ARGS)

.PHONY: test
test: $(STAMP) ## Run all tests; ARGS="-k name" runs some.
	sh tests/setup_servers.sh
	$(RUN) -m pytest $(ARGS)

.PHONY: lint
lint: $(STAMP) ## Check style and types.
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

.PHONY: check
check: lint test ## Check everything: lint, then test.

.PHONY: format
format: $(STAMP) ## Put the code into shape.
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

.PHONY: bench
bench: bar-global-mask bar-mask-memory bar-masked-step bar-submit bar-download ## Run the quick bars.

.PHONY: bar-global-mask
bar-global-mask: $(STAMP) ## CPU time of a global mask against torch.nn.utils.prune: at least 20 times less.
	$(RUN) -m tests.benchmarks.global_mask

.PHONY: bar-mask-memory
bar-mask-memory: $(STAMP) ## Extra memory of a global mask: at most 2 bytes a weight.
	$(RUN) -m tests.benchmarks.global_mask --memory

.PHONY: bar-masked-step
bar-masked-step: $(STAMP) ## A fine-tuning step with masks against one without: at most 1.03 times as long.
	$(RUN) -m tests.benchmarks.masked_step

.PHONY: bar-submit
bar-submit: $(STAMP) ## Requests a second of POST /v1/jobs against a bare route: at least 0.6 times as many.
	$(RUN) -m tests.benchmarks.submit

.PHONY: bar-download
bar-download: $(STAMP) ## Download of 1 GiB against boto3's defaults: at least 1.5 times as fast.
	$(RUN) -m tests.benchmarks.download

.PHONY: bar-data
bar-data: $(STAMP) ## Images a second from parquet and tar shards against `datasets` and `webdataset`: at least as many.
	$(RUN) -m tests.benchmarks.data

.PHONY: bar-memory-1b5
bar-memory-1b5: $(STAMP) ## Memory of a job on 1.5 B parameters in bf16: at most 1.6 times the weights.
	$(RUN) -m tests.benchmarks.job_memory

.PHONY: bar-matrix
bar-matrix: $(STAMP) ## Every format, task and pattern, reloaded by its own library alone: the same outputs.
	$(RUN) -m tests.matrix

.PHONY: bar-models
bar-models: $(STAMP) ## List 1,000 models in the local S3: at most 20 seconds.
	$(RUN) -m tests.benchmarks.models

.PHONY: bar-fuzz
bar-fuzz: $(STAMP) ## 10,000 damaged files through every loader: refused in 5 seconds and 1 GiB, or loaded.
	OMP_NUM_THREADS=1 $(RUN) -m tests.fuzz --files 10000

.PHONY: bar-sparsegpt
bar-sparsegpt: $(STAMP) ## SparseGPT on a block of width 4096: at most 1.1 times the paper's time, 3 times the block.
	$(RUN) -m tests.benchmarks.second_order sparsegpt

.PHONY: bar-wanda
bar-wanda: $(STAMP) ## Wanda on a block of width 4096: at most 1.1 times the paper's time, 3 times the block.
	$(RUN) -m tests.benchmarks.second_order wanda

.PHONY: bar-surgery
bar-surgery: $(STAMP) ## CPU time of trace, scores, plan and cut against Torch-Pruning: at most as much.
	$(RUN) -m tests.benchmarks.surgery

.PHONY: bar-surgery-memory
bar-surgery-memory: $(STAMP) ## Extra memory of the same: at most 1.2 times the weights.
	$(RUN) -m tests.benchmarks.surgery --memory

.PHONY: sweep
sweep: $(STAMP) ## Prune 161 architectures in structure and check each; writes docs/architectures.md (half an hour).
	$(RUN) -m tests.sweep

.PHONY: bar-recovery
bar-recovery: $(STAMP) ## A worker killed in round 3 of 5: the job goes on elsewhere within 45 seconds.
	$(RUN) -m tests.benchmarks.recovery

.PHONY: bar-soak
bar-soak: $(STAMP) ## 200 jobs while workers are killed: every one succeeds, exactly once.
	$(RUN) -m tests.benchmarks.soak

.PHONY: bar-demo
bar-demo: $(STAMP) ## The demo's iterative job at 80 % sparsity: at most one point of accuracy lost.
	$(RUN) -m tests.benchmarks.demo

.PHONY: tables
tables: $(STAMP) ## Measure the tables of the README through the service, row by row; what is measured stays.
	$(RUN) -m tests.tables

.PHONY: clean
clean: ## Remove the virtual environment and all caches; jobs and models in .secateur/ stay.
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build .secateur/demo
	find schemas service workers tests deploy -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "Python 3.11, 3.12 or 3.13 is needed, and $(PYTHON) is none of them." >&2; \
	  echo "Install one and run: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
