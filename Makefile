# Each target sets up what it needs, from the lock in requirements/. PYTHON chooses the interpreter, VENV the environment,
# WORKERS how many tests run at a time; UV=uv has uv set it up, which takes a tenth of the time.
PYTHON ?= python3
VENV ?= .venv
UV ?=
WORKERS ?= auto
PYTEST_ARGS ?=
BIN = $(VENV)/bin
MAKE_VENV = $(if $(UV),$(UV) venv --quiet --clear --seed --python $(PYTHON),$(PYTHON) -m venv --clear)
PIP = $(if $(UV),$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python,$(BIN)/python -m pip install --quiet --disable-pip-version-check)
PYTEST = $(BIN)/python -X dev -W error -m pytest

.PHONY: demo test test-newest campaign notebook lint schema docs bench update clean

demo: $(VENV)/installed  ## run the first example
	mkdir -p run && cd run && ../$(BIN)/python ../examples/first.py

test: $(VENV)/installed-test  ## run all tests
	$(PYTEST) -n $(WORKERS) $(PYTEST_ARGS)

# The lock is left alone: what breaks with a new release of something is seen here, before users meet it.
test-newest: VENV = .venv-newest
test-newest:  ## run all tests with the newest releases of everything
	$(MAKE_VENV) $(VENV)
	$(PIP) -e '.[test]'
	$(BIN)/python tools/drift.py requirements/test.txt
	$(PYTEST) -n $(WORKERS) $(PYTEST_ARGS)

campaign: $(VENV)/installed-examples  ## run the Lennard-Jones campaign
	$(BIN)/python examples/lennard_jones/campaign.py --wd run/lennard_jones

# In a copy: what the notebook writes beside itself is not for the clone, only the notebook with its outputs is.
notebook: $(VENV)/installed-examples $(VENV)/installed-notebook  ## execute the notebook, and keep its outputs
	rm -rf run/notebook && mkdir -p run && cp -r examples/lennard_jones run/notebook
	$(BIN)/jupyter-execute --inplace run/notebook/isotherms.ipynb
	cp run/notebook/isotherms.ipynb examples/lennard_jones/

# mypy reads the types of what the tests install too
lint: $(VENV)/installed-test $(VENV)/installed-lint  ## check style and types; needs Python 3.10
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

schema: $(VENV)/installed  ## make the JSON Schema of templates from the types in jobs.py
	$(BIN)/python tools/job_schema.py > $(VENV)/job.schema.json
	mv $(VENV)/job.schema.json src/qcg/pilotjob/executor_api/job.schema.json

docs: $(VENV)/installed-docs  ## build the site, which then is in build/docs
	$(BIN)/sphinx-build -q -W --keep-going -b html docs build/docs

bench: $(VENV)/installed  ## compare with other executors, a quick look
	$(BIN)/python benchmarks/run.py --quick

update: $(VENV)/installed-uv  ## lock the newest releases that pyproject.toml allows
	PATH="$(CURDIR)/$(BIN):$$PATH" sh tools/lock.sh

clean:
	rm -rf $(VENV) .venv-newest run dist build

# The package itself is built with what is locked too. An editable install compiles nothing, and where
# PYTHONDONTWRITEBYTECODE is set nothing else would: each start of a program would compile the package twice.
$(VENV)/installed: pyproject.toml requirements/base.txt
	$(MAKE_VENV) $(VENV)
	$(PIP) --no-deps --require-hashes -r requirements/base.txt
	$(PIP) --no-deps --no-build-isolation -e .
	$(BIN)/python -m compileall -q src
	touch $@

$(VENV)/installed-%: requirements/%.txt $(VENV)/installed
	$(PIP) --no-deps --require-hashes -r $<
	touch $@
