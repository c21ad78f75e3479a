# Two commands on a fresh machine: `make demo`, `make test`. `make check` is what a change has to pass.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := facedex retrieval indexer api migrations tests benchmarks
# Your own pictures: make demo PHOTOS=dir
PHOTOS ?=
HOME_DIR ?= .facedex

.PHONY: demo test check format lock wheel clean
.DELETE_ON_ERROR:

demo: $(VENV)/installed
	$(BIN)/facedex --home "$(HOME_DIR)" demo $(if $(PHOTOS),"$(PHOTOS)")

# CI=true makes hypothesis repeat the same examples; other seeds are for the curious.
test: $(VENV)/installed
	CI=true $(BIN)/python -m pytest -n 2 --dist loadfile --randomly-seed=1

check: $(VENV)/installed
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) test

format: $(VENV)/installed
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

# The lock names hashes and no address; pip takes packages from wherever it is set up to.
$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV) || { apt-get update && apt-get install -y python3-venv && $(PYTHON) -m venv $(VENV); }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

lock:
	$(PYTHON) -m pip install --quiet uv
	$(PYTHON) -m uv pip compile pyproject.toml --extra dev --override requirements.override \
		--generate-hashes --no-header --python-version 3.11 -o requirements.lock

wheel: $(VENV)/installed
	$(BIN)/python -m build --wheel --no-isolation

clean:
	-$(BIN)/facedex --home "$(HOME_DIR)" stop
	rm -rf $(VENV) "$(HOME_DIR)" dist
