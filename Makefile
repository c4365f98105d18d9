# make serve   the demo over HTTP, on a real model: virtual environment, install, model, server
# make test    all tests          make lint    ruff, mypy, bandit, import-linter          make bench   the benchmarks
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: serve test soak lint bench screenshots model clean

serve: $(VENV)/installed model
	$(BIN)/demo-api serve

# Who brings a model of their own needs no other.
model: $(VENV)/installed
	@test -n "$$LLAMA_DIR$$HF_MODEL" || $(BIN)/demo-api model pull

# TEST_FLAGS=--cov also tells which lines and branches ran, in child processes too; that takes half as long again.
test: $(VENV)/installed-dev
	$(BIN)/demo-api model pull
	$(BIN)/python -m pytest --numprocesses 4 --dist loadfile $(TEST_FLAGS)

# What takes long or is left to chance: SOAK_SEED=N repeats the chances of an earlier time.
soak: $(VENV)/installed-dev
	$(BIN)/python -m pytest tests/soak -v

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml demo_api
	$(BIN)/lint-imports --no-cache

# Writes docs/performance.md. What cannot be installed here is not measured beside.
bench: $(VENV)/installed-dev
	-$(BIN)/pip install --disable-pip-version-check --constraint constraints.txt --editable '.[cpu,dev,bench]'
	$(BIN)/demo-api model pull
	$(BIN)/python benchmarks/all.py

# The pictures of the page in docs/images, taken of real servers by Debian's chromium.
screenshots: $(VENV)/installed-dev
	$(BIN)/demo-api model pull
	PYTHONPATH=tests $(BIN)/python -m support.screenshots docs/images

clean:
	rm -rf $(VENV) build *.egg-info

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: setup.cfg pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(BIN)/pip install --disable-pip-version-check --constraint constraints.txt --editable '.[cpu]'
	touch $@

# In an environment of its own: every pytest here would load its plugin, which takes 0.4 s, also the children's.
$(VENV)/schemathesis/installed: constraints.txt | $(VENV)/bin/pip
	$(PYTHON) -m venv $(VENV)/schemathesis
	$(VENV)/schemathesis/bin/pip install --disable-pip-version-check --constraint constraints.txt 'schemathesis>=4.32; python_version >= "3.11"'
	touch $@

$(VENV)/installed-dev: setup.cfg pyproject.toml constraints.txt $(VENV)/schemathesis/installed | $(VENV)/bin/pip
	$(BIN)/pip install --disable-pip-version-check --constraint constraints.txt --editable '.[cpu,dev]'
	touch $@ $(VENV)/installed
