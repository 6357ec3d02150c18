# Thin targets: each line is a command that you can also type yourself; see README.md.
PYTHON ?= python3
RUN = .venv/bin/python

.PHONY: help setup book test lab assignments grade fresh results bench sync screenshots clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' Makefile

setup:  ## make .venv with everything that the book and the tests need
	$(PYTHON) tools/setup.py book test

book:  ## run the notebooks (profile lite) and build the HTML book in _build/html
	$(PYTHON) tools/setup.py book
	$(RUN) tools/build_book.py --profile lite

test:  ## run every test, those in a browser too (they use the book that MMVAE_BOOK names, else build one)
	$(PYTHON) tools/setup.py book test coursework
	$(RUN) tools/run_tests.py

lab:  ## open JupyterLab on the notebooks
	$(PYTHON) tools/setup.py book
	MMVAE_DATA="$${MMVAE_DATA:+$$(cd "$$MMVAE_DATA" && pwd)}" $(RUN) -m jupyterlab notebooks

assignments:  ## the student version and the autograder of every assignment, under build/assignments
	$(PYTHON) tools/setup.py book coursework
	$(RUN) tools/assignments.py build

grade:  ## grade the notebooks in SUBMISSIONS=folder into a CSV file (it runs them: no protection from hostile code)
	$(if $(SUBMISSIONS),,$(error name the folder of the notebooks: make grade SUBMISSIONS=folder))
	$(RUN) tools/assignments.py grade "$(SUBMISSIONS)"

fresh:  ## clone into an empty folder, run both commands there, and time them
	$(PYTHON) tools/fresh.py

results:  ## run the notebooks and record what they measure in book/results
	$(PYTHON) tools/setup.py book
	$(RUN) tools/build_book.py --profile lite --record --force

bench:  ## compare speed and memory with MultiVae, into benchmarks/results
	$(PYTHON) tools/setup.py book test bench
	OMP_WAIT_POLICY=PASSIVE $(RUN) benchmarks/run.py
	$(RUN) benchmarks/table.py

sync:  ## bring NAME.py and NAME.ipynb in line after an edit of either
	$(RUN) tools/sync.py

screenshots:  ## photograph every page, phone and desktop, light and dark, into build/screenshots
	$(PYTHON) tools/setup.py book test
	$(RUN) tools/screenshots.py

clean:  ## remove what was built; .venv stays
	rm -rf build _build
