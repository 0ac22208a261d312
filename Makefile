# make demo   the whole chain on a synthetic country, ends with pictures
# make test   the tests
# make check  formatting, lint, types, import contracts
# make faults everything attacked: kills, flipped bits, hostile files, full disks (SEED=n repeats a run)
# make bench  speed, as ratios in one run
# make gpu    the rates of one GPU in eight minutes; a sentence where there is none
#
# PYTHON=python3.12 chooses the interpreter that .venv is made with. LOCKED=1 installs the versions
# of .ci/requirements.txt, each checked by its hash, in place of the newest that are allowed.

USABLE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c '$(USABLE)' >/dev/null 2>&1 && echo "$$p" && break; done)
BIN := .venv/bin
OUT ?= demo

.PHONY: demo test check bench faults gpu clean

demo: .venv/installed
	$(BIN)/ecofm demo --out $(OUT)

# One process a core, each with one thread; a file's tests share what its fixtures made.
test: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses logical --dist loadfile

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

faults: .venv/installed
	$(BIN)/python -m tests.faults --report docs/reliability.md $(if $(SEED),--seed $(SEED)) $(KINDS)
	OMP_NUM_THREADS=1 $(BIN)/pytest --hypothesis-profile explore -q -m hypothesis tests/unit

bench: .venv/installed
	$(BIN)/python -m benchmarks.loader

gpu: .venv/installed
	$(BIN)/python -m benchmarks.gpu
	$(BIN)/python -m benchmarks.gpu.table

clean:
	rm -rf .venv demo

# The stamp is written last, so that an interrupted installation is taken up again.
.venv/installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "ecofm needs Python 3.11, 3.12 or 3.13; \
	give it as make PYTHON=/path/to/python"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
ifdef LOCKED
	$(BIN)/python -m pip install --quiet --require-hashes --requirement .ci/requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
else
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[cpu,app,dev]'
endif
	touch $@
