# Each target does its own set-up on a fresh machine; a second run sets up nothing again.
SHELL := /bin/bash -euo pipefail
UV := $(or $(shell command -v uv 2>/dev/null),.tools/uv/bin/uv)
PYTHON := .venv/bin/python
READY := .venv/.ready

.PHONY: quickstart test fuzz check bench bench-peers chaos-test soak docs launcher slurm-test clean
quickstart: $(READY)
	.venv/bin/apriel fetch recipes/quickstart.toml
	.venv/bin/apriel train recipes/quickstart.toml

test: $(READY)
	.venv/bin/apriel fetch recipes/quickstart.toml
	$(PYTHON) -m pytest --numprocesses 2 --dist loadgroup -m "not slurm"

fuzz: $(READY)
	APRIEL_FUZZ_INPUTS=100000 $(PYTHON) -m pytest tests/verify/test_fuzz.py -s --timeout 3600

check: $(READY)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright
	$(PYTHON) -m pytest tests/house

bench: $(READY)
	.venv/bin/apriel fetch recipes/quickstart.toml
	for name in sampler reshard fp8 publish verify step logprob parity convert checkpoint; do \
	  .venv/bin/apriel bench $$name --json bench-results/$$name.json; done

# Against others, each as its users run it: the whole loop against TRL (half an hour), the step against transformers,
# weights against gather and save, the sampler against the reference rule, judges against the libraries called plainly.
bench-peers: $(READY) .venv-peers/.ready
	.venv/bin/apriel fetch recipes/quickstart.toml
	for name in loop step reshard sampler verify; do \
	  .venv/bin/apriel bench $$name --json bench-results/$$name.json; done

# The environment of a login node: nemo-run and what reads recipes, without the engines.
launcher: .venv-launch/.ready

# Jobs on a SLURM of virtual nodes, which needs root and Debian's slurm-wlm and munge; skips and says so elsewhere.
slurm-test: $(READY) .venv-launch/.ready
	.venv/bin/apriel fetch recipes/quickstart_cluster.toml
	$(PYTHON) -m pytest -m slurm -rs --numprocesses 2 --dist loadgroup tests/slurm

docs: .venv-docs/.ready
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet
	@echo "site/ is written; to read it: python3 -m http.server --bind 127.0.0.1 --directory site"

# A dozen faults, each of another kind, on real runs of a small model.
chaos-test: $(READY)
	$(PYTHON) -m pytest -m chaos tests/bench/test_chaos.py

# 200 faults of every kind on real runs of a small model: half an hour.
soak: $(READY)
	.venv/bin/apriel bench chaos --faults 200 --seed $(or $(SEED),0) --json bench-results/chaos.json

clean:
	rm -rf site .venv-docs .venv-peers .venv-launch .venv .tools .pytest_cache .ruff_cache .hypothesis bench-results

$(READY): requirements/cpu-dev.txt pyproject.toml
	$(if $(wildcard $(UV)),,python3 -m pip install --quiet --target .tools/uv uv==0.13.9)
	test -x .venv/bin/python || $(UV) venv --quiet --python 3.12 .venv
	$(UV) pip sync --quiet --require-hashes --compile-bytecode --python .venv requirements/cpu-dev.txt
	$(UV) pip install --quiet --no-deps --python .venv --editable .
	touch $@

.venv-docs/.ready: requirements/docs.txt $(READY)
	test -x .venv-docs/bin/python || $(UV) venv --quiet --python 3.12 .venv-docs
	$(UV) pip sync --quiet --require-hashes --compile-bytecode --python .venv-docs requirements/docs.txt
	touch $@

.venv-peers/.ready: requirements/peers.txt $(READY)
	test -x .venv-peers/bin/python || $(UV) venv --quiet --python 3.12 .venv-peers
	$(UV) pip sync --quiet --require-hashes --compile-bytecode --python .venv-peers requirements/peers.txt
	touch $@

.venv-launch/.ready: requirements/launch.txt pyproject.toml
	$(if $(wildcard $(UV)),,python3 -m pip install --quiet --target .tools/uv uv==0.13.9)
	test -x .venv-launch/bin/python || $(UV) venv --quiet --python 3.12 .venv-launch
	$(UV) pip sync --quiet --require-hashes --compile-bytecode --python .venv-launch requirements/launch.txt
	$(UV) pip install --quiet --no-deps --python .venv-launch --editable .
	touch $@
