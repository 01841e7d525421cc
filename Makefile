# Two commands do everything from a bare checkout: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
# Compiled bytecode matters: without it every import of diffusers takes 17 s instead of 7.
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --constraint constraints.txt
STAMP = .venv/.installed-

.PHONY: demo test check notebooks browser-test format clean

demo: $(STAMP)demo
	$(BIN)/python -m nbloader demo

test: check
	$(BIN)/python -m pytest
	$(BIN)/python -m pytest --nbval notebooks

# Run the notebooks and store what they print; `make test` compares with that.
notebooks: $(STAMP)test
	$(BIN)/python -m tests.notebook_runs

# In JupyterLab; needs Chromium. The screenshots stay in pytest's temporary folder.
browser-test: $(STAMP)browser
	$(BIN)/python -m pytest -o tmp_path_retention_policy=all tests/browser

check: $(STAMP)test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(STAMP)test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(BIN)/uv:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv

$(STAMP)%: pyproject.toml constraints.txt | $(BIN)/uv
	$(INSTALL) --editable '.[$*]'
	touch $@

clean:
	rm -rf .venv demo .mypy_cache .pytest_cache .ruff_cache
