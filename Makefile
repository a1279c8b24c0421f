# make demo   trains a tanh network and an LSTM on two speakers, lets them write, and makes a page of all four
# make studies runs the studies of reading, gradients, parallel solution, clipping, memory, tying and speeches, two at a time (PRESET=smoke, cpu, cpu-long)
# make quality trains best-char, best-bpe and best-word on three collections with three seeds, two at a time; hours; goes on
#             where it was stopped: make quality SPEECHES=folder QUALITY=runs/quality
# make report makes a page of each study's table in runs/, and an index
# make test   lint, types and all tests but the slow ones; the same examples each time
# make fuzz   the tests that draw their examples, with others each time; make fuzz SEED=N draws those of a seed again
# make gpu-check   what only a CUDA GPU can prove, in minutes; results in runs/gpu-check; installs nothing
# make gpu-story STORY=1   what a quarter of an hour on a GPU should tell first; then STORY=2 and 3; results in runs/gpu-story
VENV ?= .venv
PYTHON ?= python3
PRESET ?= cpu
READY := $(VENV)/.ready
BIN := $(abspath $(VENV))/bin

.PHONY: demo report studies quality test test-all fuzz gpu-check gpu-story lint clean

demo: $(READY)
	@PATH="$(BIN):$$PATH" bash demo.sh

report: $(READY)
	@$(BIN)/reports build

# One thread a study, two studies at a time; each goes on where it was stopped.
studies: $(READY)
	@printf '%s\n' long_range gradient_flow clipping speeches weight_tying parallel reading | \
	  OMP_NUM_THREADS=1 xargs -P 2 -I NAME $(BIN)/studies run NAME --preset $(PRESET)

SPEECHES ?= speeches
QUALITY ?= runs/quality
quality: $(READY)
	@$(BIN)/studies quality --speeches "$(SPEECHES)" --out "$(QUALITY)"

# One thread a worker: two workers with two threads each would take turns on two cores. What Python compiles is kept: some
# hundred processes are started.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist worksteal

test: lint
	$(PYTEST) -m "not slow"

# The oldest Triton that must work: the kernels that it makes, executed and counted.
OLDEST := $(abspath $(VENV))/triton-3.6.0

test-all: lint $(OLDEST)
	$(PYTEST)
	TRITON_FOLDER=$(OLDEST) $(PYTEST) -m "not slow" tests/kernels/bench/test_ptx.py

$(OLDEST): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $@ triton==3.6.0

fuzz: $(READY)
	@seed=$${SEED:-$$($(BIN)/python -c "import secrets; print(secrets.randbelow(2**32))")}; \
	  echo "the seed is $$seed; the same examples again: make fuzz SEED=$$seed"; \
	  $(PYTEST) -m hypothesis --hypothesis-profile random --hypothesis-seed $$seed

# Where there is no .venv, PYTHON with torch 2.11 and Triton 3.6 or newer will do.
gpu-check:
	@$(if $(wildcard $(READY)),$(BIN)/python,$(PYTHON)) tests/gpu_check.py --out runs/gpu-check

STORY ?= 1
OUT ?= runs/gpu-story
gpu-story:
	@$(if $(wildcard $(READY)),$(BIN)/python,$(PYTHON)) tests/gpu_check.py --story $(STORY) --out $(OUT)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/lint_types.py

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed, and $(PYTHON) is older; name another: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "installing into $(VENV), once; this takes a minute or more"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
