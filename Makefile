# make study: a study, from nothing to its results. make test: does the template keep its promises?
PYTHON ?= python3
PY := .venv/bin/python
UV = $(shell command -v uv || echo .venv/bin/uv)
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
export UV_COMPILE_BYTECODE ?= 1
JOBS ?= 2
TESTS ?= tests
STUDY := build/my_study

.PHONY: study test lint bench kit-noise lock
.venv/bin/cookiecutter: requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else \
	"make: $(PYTHON) is %d.%d; name one from 3.11 to 3.13: make PYTHON=python3.12 ..." % v)'
	$(PYTHON) -m venv .venv
	command -v uv >/dev/null || $(PY) -m pip install --quiet uv
	$(UV) pip install --quiet --python $(PY) --requirements requirements.lock
	touch $@

study: .venv/bin/cookiecutter  ## a study in build/, its environment, its results
	rm -rf $(STUDY)
	.venv/bin/cookiecutter --no-input --output-dir build "$(CURDIR)"
	$(MAKE) -C $(STUDY) repro
	cat $(STUDY)/results/table.md

test: .venv/bin/cookiecutter  ## by JOBS processes; TESTS="tests/test_kit.py" runs these files alone
	$(PY) -m pytest --numprocesses $(JOBS) --no-loadscope-reorder --durations 15 $(TESTS)

lint: .venv/bin/cookiecutter
	$(PY) -m black --check .
	$(PY) -m pylint study_answers.py hooks tests benchmarks
	$(PY) -m mypy

bench: .venv/bin/cookiecutter  ## ratios, each measured in one run on the same work
	test -d $(STUDY)/data/prepared || $(MAKE) study
	$(STUDY)/.venv/bin/python benchmarks/throughput.py
	$(STUDY)/.venv/bin/python benchmarks/records.py
	rm -rf build/text && .venv/bin/cookiecutter --no-input --output-dir build/text "$(CURDIR)" data=text
	cd build/text/my_study && export PYTHONPATH=src && $(CURDIR)/$(STUDY)/.venv/bin/python stages/prepare.py data=words \
		&& $(CURDIR)/$(STUDY)/.venv/bin/python $(CURDIR)/benchmarks/padding.py
	$(STUDY)/.venv/bin/python benchmarks/larger_than_memory.py
	$(PY) benchmarks/commands.py

kit-noise:  ## every check of a study's model test kit on models that are right, 30 seeds each: none may fail
	test -d $(STUDY)/.venv || $(MAKE) study
	cd tests/kit && ../../$(STUDY)/.venv/bin/python noise.py 30

lock:  ## renew requirements.lock, of the template's own tools
	$(UV) pip compile pyproject.toml --group dev --upgrade --universal --fork-strategy fewest --generate-hashes \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet --output-file requirements.lock
