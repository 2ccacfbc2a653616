# `make demo` and `make test` are all a person needs; both make .venv the first time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet --constraint constraints.txt
DEMO_HOME := .demo
# A file's tests stay in one process, for they share what is made once for them; in the order of the folders, where the
# small ones come last and fill up the end. No more than four, for each process imports torch and all the rest.
PYTEST_OPTIONS := --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

define make_venv
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gritdesk needs Python 3.11 or newer, found " + sys.version.split()[0] + "; run: make PYTHON=python3.12 $(1)")'
$(PYTHON) -m venv $(VENV)
endef

.PHONY: demo test format screenshots clean
.DEFAULT_GOAL := demo

demo: $(VENV)/app.stamp
	$(BIN)/gritdesk --version
	GRITDESK_HOME=$(DEMO_HOME) $(BIN)/gritdesk index assets/sample
	@if [ -t 0 ] && [ -t 1 ]; then \
		GRITDESK_HOME=$(DEMO_HOME) $(BIN)/gritdesk; \
	else \
		GRITDESK_HOME=$(DEMO_HOME) $(BIN)/gritdesk search "how is the lamp kept clean" -n 3 && \
		GRITDESK_HOME=$(DEMO_HOME) $(BIN)/gritdesk ask "Where is the spare tower key kept?"; \
	fi

test: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest $(PYTEST_OPTIONS)

# draws the pictures of the README anew
screenshots: $(VENV)/app.stamp
	$(BIN)/python assets/screenshots.py

format: $(VENV)/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# the first install compiles llama.cpp, which takes some minutes
$(VENV)/app.stamp: pyproject.toml constraints.txt
	$(call make_venv,demo)
	$(INSTALL) --editable .
	@touch $@

# All at once, so that pip resolves and installs one time. pip would compile the 21,000 modules that this brings to
# bytecode on one core, a minute and a half; some of them are templates and no Python, which is no failure.
$(VENV)/dev.stamp: pyproject.toml constraints.txt
	$(call make_venv,test)
	$(INSTALL) --no-compile --editable '.[dev]'
	$(BIN)/python -m compileall -qq -j 0 $(VENV) || true
	@touch $(VENV)/app.stamp $@

clean:
	rm -rf $(VENV) $(DEMO_HOME) build dist
