# make test: set up and run every check.   make demo: set up and go from raw files to a report.
# make bench: set up and measure; about twenty minutes.
PYTHON ?= python3
BIN := .venv/bin
SETUP := .venv/.ready

.PHONY: setup test lint demo bench clean

setup: $(SETUP)

$(SETUP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt setuptools
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	touch $@

lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest --numprocesses auto --maxprocesses 8 --dist loadfile

# Every benchmark, one after another: no other work should run on the machine.
bench: $(SETUP)
	$(BIN)/python -m benchmarks.parse
	$(BIN)/python -m benchmarks.write
	$(BIN)/python -m benchmarks.read
	$(BIN)/python -m benchmarks.views
	$(BIN)/python -m benchmarks.feed
	$(BIN)/python -m benchmarks.preprocess
	$(BIN)/python -m benchmarks.whole
	$(BIN)/python -m benchmarks.train_step

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# A small data set in NTU's raw format, from files to a report. Three to eight minutes on two cores, set-up included.
demo: $(SETUP)
	rm -rf demo && mkdir demo
	cd demo && ../$(BIN)/python ../cli.py synthesize ntu60 raw --samples 360 --oddities 0.05
	cd demo && ../$(BIN)/python ../cli.py preprocess ntu60 raw
	cd demo && ../$(BIN)/python ../cli.py train --shards --set epochs=8 --set finetune.epochs=10
	cd demo && ../$(BIN)/python ../cli.py eval --label-fraction 0.5
	cd demo && ../$(BIN)/python ../cli.py draw shards/ntu60 views.png
	cd demo && ../$(BIN)/python ../cli.py report ntu60-001
	@echo "Open demo/runs/ntu60-001/report.html in a browser."
