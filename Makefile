# Every command of the project. Each target sets up what it needs; `make help` lists them.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Two processes of one thread each: threads of several processes on few cores wait for each other.
PARALLEL := OMP_NUM_THREADS=1 pytest -n 2 --dist loadfile

# The programs of the environment come first; a folder of local wheels serves uv as well as pip.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export UV_FIND_LINKS := $(or $(UV_FIND_LINKS),$(PIP_FIND_LINKS))
export DVC_NO_ANALYTICS := true

.DEFAULT_GOAL := help

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 16

setup: $(READY)  ## create .venv and install the project with everything

$(READY): pyproject.toml requirements.lock
	@test -x $(BIN)/python || python3 -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c requirements.lock -e '.[all]'
	@touch $@

run: setup  ## from data to a promoted model: dvc repro, then where everything lies
	@dvc repro
	@scaled-yolov4 summary

retrain: setup  ## look at the data again and do what its change asks for: nothing, evaluate, fine-tune or train anew
	@dvc repro --force --single-item prepare
	@scaled-yolov4 retrain

test: setup  ## the tests, minutes
	@$(PARALLEL) -m 'not slow'

test-slow: setup  ## the long tests: overfitting, several workers, serving
	@pytest -m slow

check: setup  ## lint, types, import rule, current pipeline file and scorecard
	ruff check .
	ruff format --check .
	pyright
	lint-imports
	python -m pipelines.compile --check
	python -m components.scorecard --check

bench: setup  ## speed beside the peers', row by row; PEERS=FOLDER names their code (see bench-peers)
	python -m benchmarks

bench-peers: setup  ## fetch the peers' code into PEERS=FOLDER, outside the repository
	python -m benchmarks.peers.fetch $(PEERS)

format: setup  ## format the code
	ruff check --fix .
	ruff format .

pipeline: setup  ## compile the Kubeflow pipeline
	python -m pipelines.compile

scorecard: setup  ## write docs/scorecard.md: printed figures beside counted ones
	python -m components.scorecard

ui: setup  ## the MLflow pages of the local registry
	mlflow ui --backend-store-uri sqlite:///mlflow.db

lock: setup  ## resolve requirements.lock anew; TORCH=2.13.0 pins torch
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-emit-index-url --no-annotate \
		--no-header --upgrade $(if $(TORCH),--upgrade-package torch==$(TORCH)) pyproject.toml -o requirements.lock

.PHONY: help setup run retrain test test-slow check bench bench-peers format pipeline scorecard ui lock
