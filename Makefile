# Two commands to begin with: `make demo` and `make test`. Each makes an environment of its own.
PYTHON ?= python3
DEMO := .venv-demo
TEST := .venv-test
# An environment is made anew where pyproject.toml is newer than its stamp.
PIP_FLAGS := --quiet --disable-pip-version-check

.PHONY: help demo test test-slow test-all lint check docs clips census golden mini clean
.DEFAULT_GOAL := help

help:  ## show what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(DEMO)/.installed: pyproject.toml
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/python -m pip install $(PIP_FLAGS) --editable .
	@touch $@

# One command for everything that may pull torch: torch==2.13.0 is named in the `train` extra and
# here again, so that pip cannot settle on another build for peft or accelerate. The official
# SpeechTokenizer, a test oracle, comes without the many libraries that its trainer asks for.
$(TEST)/.installed: pyproject.toml
	$(PYTHON) -m venv $(TEST)
	$(TEST)/bin/python -m pip install $(PIP_FLAGS) torch==2.13.0 --editable '.[train,zh,serve,tts,dev]'
	$(TEST)/bin/python -m pip install $(PIP_FLAGS) --no-deps speechtokenizer==1.0.1
	@touch $@

demo: $(DEMO)/.installed  ## caption the example clips (installs the base package, no torch)
	@$(DEMO)/bin/aligncap caption examples/clips --evidence

test: $(TEST)/.installed  ## run all but the slow tests (installs torch and the test tools first)
	$(TEST)/bin/python -m pytest -m "not slow"

test-slow: $(TEST)/.installed  ## run the slow tests: several processes, processes killed, long runs
	$(TEST)/bin/python -m pytest -m slow

test-all: $(TEST)/.installed  ## run every test
	$(TEST)/bin/python -m pytest

lint: $(TEST)/.installed  ## ruff, mypy --strict and the architecture test
	$(TEST)/bin/ruff format --check .
	$(TEST)/bin/ruff check .
	$(TEST)/bin/mypy
	$(TEST)/bin/python -m pytest -q tests/test_architecture.py

check: lint test-all  ## everything CI checks

docs: $(TEST)/.installed  ## write docs/cli.md and the example output of the README again
	$(TEST)/bin/python docs/make_docs.py

clips: $(TEST)/.installed  ## make the example clips again (needs espeak-ng)
	$(TEST)/bin/python examples/make_clips.py

census: $(TEST)/.installed  ## print the package's structure in numbers (some minutes)
	@$(TEST)/bin/python benchmarks/census.py

golden: $(TEST)/.installed  ## store what is computed today as what tests/golden expects
	OMP_NUM_THREADS=1 CT2_FORCE_CPU_ISA=AVX2 ONEDNN_MAX_CPU_ISA=AVX2 PYTHONPATH=tests $(TEST)/bin/python tests/golden/make_golden.py

STAGES := encoder readout pace rows warmup kd
mini: $(TEST)/.installed  ## train the built-in model (docs/training-mini.md); goes on where it stopped
	$(TEST)/bin/python benchmarks/sounds.py runs/mini/sounds
	for stage in $(STAGES); do $(TEST)/bin/aligncap train recipes/mini/$$stage.toml -o runs/mini/$$stage --resume || exit; done
	$(TEST)/bin/aligncap export runs/mini/kd/model runs/mini/exported --overwrite

clean:  ## remove the environments and caches
	rm -rf $(DEMO) $(TEST) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
