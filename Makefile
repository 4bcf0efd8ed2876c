# Each target sets up what it needs. PYTHON chooses the interpreter, VENV the environment; UV=uv has uv set it up, which
# takes a tenth of the time.
PYTHON ?= python3
VENV ?= .venv
UV ?=
BIN = $(VENV)/bin
MAKE_VENV = $(if $(UV),$(UV) venv --quiet --clear --python $(PYTHON),$(PYTHON) -m venv)
INSTALL = $(if $(UV),$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python,$(BIN)/python -m pip install --quiet --disable-pip-version-check)
PYTEST_ARGS ?=

.PHONY: demo test campaign notebook lint schema docs bench clean

demo: $(VENV)/installed  ## run the first example
	mkdir -p run && cd run && ../$(BIN)/python ../examples/first.py

test: $(VENV)/installed-test  ## run all tests
	$(BIN)/python -X dev -W error -m pytest $(PYTEST_ARGS)

campaign: $(VENV)/installed-examples  ## run the Lennard-Jones campaign
	$(BIN)/python examples/lennard_jones/campaign.py --wd run/lennard_jones

# In a copy: what the notebook writes beside itself is not for the clone, only the notebook with its outputs is.
notebook: $(VENV)/installed-examples $(VENV)/installed-notebook  ## execute the notebook, and keep its outputs
	rm -rf run/notebook && mkdir -p run && cp -r examples/lennard_jones run/notebook
	$(BIN)/jupyter-execute --inplace run/notebook/isotherms.ipynb
	cp run/notebook/isotherms.ipynb examples/lennard_jones/

lint: $(VENV)/installed-lint  ## check style and types
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

clean:
	rm -rf $(VENV) run dist build

# An editable install compiles nothing, and where PYTHONDONTWRITEBYTECODE is set nothing else would: each start of a
# program would compile the package twice.
$(VENV)/installed: pyproject.toml
	$(MAKE_VENV) $(VENV)
	$(INSTALL) -e .
	$(BIN)/python -m compileall -q src
	touch $@

$(VENV)/installed-%: $(VENV)/installed
	$(INSTALL) -e '.[$*]'
	touch $@
