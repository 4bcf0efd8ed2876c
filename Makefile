# Each target sets up what it needs. PYTHON chooses the interpreter, VENV the environment.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check
PYTEST_ARGS ?=

.PHONY: demo test campaign lint schema bench clean

demo: $(VENV)/installed  ## run the first example
	mkdir -p run && cd run && ../$(BIN)/python ../examples/first.py

test: $(VENV)/installed-test  ## run all tests
	$(BIN)/python -X dev -W error -m pytest $(PYTEST_ARGS)

campaign: $(VENV)/installed-examples  ## run the Lennard-Jones campaign
	$(BIN)/python examples/lennard_jones/campaign.py --wd run/lennard_jones

lint: $(VENV)/installed-lint  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

schema: $(VENV)/installed  ## make the JSON Schema of templates from the types in jobs.py
	$(BIN)/python tools/job_schema.py > $(VENV)/job.schema.json
	mv $(VENV)/job.schema.json src/qcg/pilotjob/executor_api/job.schema.json

bench: $(VENV)/installed  ## compare with other executors, a quick look
	$(BIN)/python benchmarks/run.py --quick

clean:
	rm -rf $(VENV) run dist

# An editable install compiles nothing, and where PYTHONDONTWRITEBYTECODE is set nothing else would: each start of a
# program would compile the package twice.
$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) -e .
	$(BIN)/python -m compileall -q src
	touch $@

$(VENV)/installed-%: $(VENV)/installed
	$(PIP_INSTALL) -e '.[$*]'
	touch $@
