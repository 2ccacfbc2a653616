# `make demo` and `make test` are all a person needs; both make .venv the first time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_HOME := .demo

.PHONY: demo test format clean
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
	$(BIN)/pytest

format: $(VENV)/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# the first install compiles llama.cpp, which takes some minutes
$(VENV)/app.stamp: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gritdesk needs Python 3.11 or newer, found " + sys.version.split()[0] + "; run: make PYTHON=python3.12 " + "demo")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/app.stamp
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) $(DEMO_HOME) build dist
