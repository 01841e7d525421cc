# Two commands do everything from a bare checkout: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
# Compiled bytecode matters: without it every import of diffusers takes 17 s instead of 7.
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --constraint constraints.txt
STAMP = .venv/.installed-
# The tests start thousands of processes, and none should compile nbloader anew.
unexport PYTHONDONTWRITEBYTECODE
HUB_VERSIONS := $(basename $(notdir $(wildcard tests/hub_versions/*.txt)))
LIBRARIES := $(basename $(notdir $(wildcard tests/library_versions/*.txt)))
# Each has the versions of tests/compat/NAME.txt, and after a hyphen its Python.
ENVIRONMENTS := colab-3.12 colab-3.13 kaggle-3.12 oldest-3.11 newest-3.13

# Of `make test`. Each imports all libraries, which takes a gigabyte, and the tests of one file stay
# together: they share its servers and models. What holds a time to a limit runs alone, afterwards.
PROCESSES ?= 2

.PHONY: demo test test-browser test-cuda test-faults test-hostile test-models check notebooks screenshots \
  test-hub-versions test-library-versions test-compat bench-transfer bench-ready bench-gpu docs format clean

demo: $(STAMP)demo
	$(BIN)/python -m nbloader demo

test: check
	$(BIN)/python -m pytest -m "not timed" --numprocesses $(PROCESSES) --dist loadfile $(ARGS)
	$(BIN)/python -m pytest -m timed
	$(BIN)/python -m pytest --nbval notebooks

# Every fault of the network and the disk, on both routes: four minutes, mostly of waiting.
test-faults: $(STAMP)test
	$(BIN)/python -m pytest tests/faults

# Hubs, repositories and caches that mean harm, which `make test` tries as well: two minutes.
test-hostile: $(STAMP)test
	$(BIN)/python -m pytest tests/hostile

# All of the models that are compared with what the libraries themselves load; `make test` takes a
# tenth of them. Writes docs/compatibility.md, or compares with it: make test-models ARGS=--check
test-models: $(STAMP)test
	$(BIN)/python -m tests.differential $(ARGS)

# What only a GPU can show: every plan on the first one that torch sees. Without one each test is
# skipped, and says so.
test-cuda: $(STAMP)test
	$(BIN)/python -m pytest -rs tests/cuda

# Run the notebooks and store what they print; `make test` compares with that.
notebooks: $(STAMP)test
	$(BIN)/python -m tests.notebook_runs

# The same script in JupyterLab and in the classic notebook with Colab's versions, in a real browser.
# The screenshots are written to pytest's temporary folder, or to SCREENSHOTS.
test-browser: $(STAMP)browser .venv/classic/.installed | chromium
	$(BIN)/python -m pytest -o tmp_path_retention_policy=all tests/browser

# What the README and the guide show.
screenshots: $(STAMP)browser .venv/classic/.installed | chromium
	$(BIN)/python -m tests.browser.screenshots

.PHONY: chromium
chromium:
	@for name in chromium chromium-browser google-chrome; do \
	  command -v $$name >/dev/null && exit 0; \
	done; \
	echo "Chromium is missing: installing the Debian package chromium"; \
	apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium

# Its own packages come first, then those of the other environment: torch is not installed twice.
.venv/classic/.installed: tests/browser/classic.txt $(STAMP)browser
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(@D)
	$(BIN)/uv pip install --quiet --python $(@D)/bin/python --compile-bytecode --requirement $<
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	  > "$$($(@D)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/nbloader.pth"
	echo "$(CURDIR)" >> "$$($(@D)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/nbloader.pth"
	touch $@

# With the oldest and newest huggingface_hub that are met, each in a small environment of its own.
test-hub-versions: $(STAMP)test $(HUB_VERSIONS:%=.venv-hub/%/.installed)
	$(BIN)/python -m pytest tests/hub_versions

.venv-hub/%/.installed: tests/hub_versions/%.txt pyproject.toml | $(BIN)/uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-hub/$*
	$(BIN)/uv pip install --quiet --python .venv-hub/$*/bin/python --compile-bytecode \
	  --requirement $< --editable .
	touch $@

# What is read in the files of old and new diffusers, transformers and sentence-transformers, against
# what they say themselves. They are unpacked without what they require: 280 MB, three minutes.
# Then models are compared in an environment with the oldest versions that are allowed together.
test-library-versions: $(STAMP)test $(LIBRARIES:%=.venv/libraries/%/.installed) \
  .venv/compat/oldest-3.11/.installed
	$(BIN)/python -m pytest tests/library_versions
	.venv/compat/oldest-3.11/bin/python -m tests.differential --part oldest $(ARGS)

.venv/libraries/%/.installed: tests/library_versions/%.txt | $(BIN)/uv
	rm -rf $(@D)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --target $(@D) --requirement $<
	touch $@

# nbloader with the versions of Colab and Kaggle, the oldest that are allowed, and the newest. Writes
# docs/compatibility.md, or compares with it (ARGS=--check); one environment: ARGS="-- -k kaggle". uv
# looks for their Pythons on PATH; those of pyenv are there with PYENV_VERSION=3.12.1:3.13.0.
test-compat: $(STAMP)test $(ENVIRONMENTS:%=.venv/compat/%/.installed)
	$(BIN)/python -m tests.compat $(ARGS)

# What nbloader brings comes last, as where people install it. Files that environments have in common
# are on the disk once: uv links them to its cache.
.SECONDEXPANSION:
.venv/compat/%/.installed: tests/compat/$$(firstword $$(subst -, ,$$*)).txt tests/compat/tools.txt \
  pyproject.toml | $(BIN)/uv
	$(BIN)/uv venv --quiet --clear --python $(lastword $(subst -, ,$*)) $(@D)
	$(BIN)/uv pip install --quiet --python $(@D)/bin/python --compile-bytecode \
	  --requirement $< --requirement tests/compat/tools.txt
	$(BIN)/uv pip freeze --quiet --python $(@D)/bin/python > $(@D)/before.txt
	$(BIN)/uv pip install --quiet --python $(@D)/bin/python --compile-bytecode --editable .
	touch $@

# Side by side with the Hub's own downloader and aria2; takes some 25 minutes and 10 GB of disk in
# .bench. Options: make bench-transfer ARGS="--repeats 1".
bench-transfer: $(STAMP)bench
	@command -v aria2c >/dev/null || { \
	  echo "aria2c is missing: installing the Debian package aria2"; \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends aria2; \
	} || echo "aria2 could not be installed; its rows will be left out"
	$(BIN)/python -m benchmarks.transfer $(ARGS)

# Seconds until a model is ready, side by side with the libraries; takes some 40 minutes and 10 GB of
# disk in .bench. Options: make bench-ready ARGS="--repeats 3 --cases minilm".
bench-ready: $(STAMP)test $(STAMP)bench
	$(BIN)/python -m benchmarks.ready $(ARGS)

# How weights come from files to a GPU, by each way: under five minutes and 30 GB of disk. Without a
# GPU it only tries the script: make bench-gpu ARGS=--small
bench-gpu: $(STAMP)test
	$(BIN)/python -m benchmarks.gpu $(ARGS)

# The pages of docs/ as a site in site/; a warning, such as a link to nothing, is an error.
docs: $(STAMP)docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

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
	rm -rf .venv .venv-hub .bench demo site .mypy_cache .pytest_cache .ruff_cache
