# Every command of the project; `make help` lists them. Targets install what they need.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# One process more than cores, up to eight, because some tests wait; one thread each, because more wait for each other.
TESTERS = $(shell python3 -c 'import os; print(min(os.cpu_count() + 1, 8))')
# Bytecode is kept whatever the environment says: the tests start a hundred processes that would compile all code again.
PARALLEL = PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 pytest -n $(TESTERS) --dist loadfile --no-loadscope-reorder --max-worker-restart=0

KUBERAY := https://raw.githubusercontent.com/ray-project/kuberay/master
KFP := https://raw.githubusercontent.com/kubeflow/pipelines/master

# The environment's programs take precedence; uv uses the same folder of local wheels as pip.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export UV_FIND_LINKS := $(or $(UV_FIND_LINKS),$(PIP_FIND_LINKS))
export DVC_NO_ANALYTICS := true

# The image: DEVICE is cuda or cpu; IMAGE may start with a registry; the tag holds version, commit and device.
# TORCH_INDEX and PACKAGES are passed to the Dockerfile.
DEVICE := cuda
IMAGE := scaled-yolov4
TAG = $(VERSION)-$(REVISION)-$(DEVICE)
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
REVISION = $(shell git rev-parse --short HEAD)

# terraform fmt's formatter, and checkov in its own environment: it pins older versions of our dependencies.
TERRAFORM := infra/terraform
FORMATTER := infra/checks/node_modules/.package-lock.json
CHECKOV := uv tool run --quiet --from checkov --constraints infra/checks/checkov.lock checkov

.DEFAULT_GOAL := help

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 16

setup: $(READY)  ## create .venv and install the project with all its extras

$(READY): pyproject.toml requirements.lock
	@test -x $(BIN)/python || python3 -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c requirements.lock -e '.[all]'
	@touch $@

run: setup  ## from data to a promoted model: dvc repro, then a summary
	@dvc repro
	@scaled-yolov4 summary

retrain: setup  ## prepare the data again and act on what changed
	@dvc repro --force --single-item prepare
	@scaled-yolov4 retrain

test: setup  ## run the quick tests (a few minutes)
	@$(PARALLEL) -m 'not full and not slow'

test-full: setup  ## run these, whole stages and the whole pipeline: what CI runs
	@$(PARALLEL) -m 'not slow'

# A process per folder: the models of one would keep gigabytes through the next.
test-slow: setup  ## run the slow tests: every model of the zoo, overfitting, several workers, serving
	@failed=; for folder in tests/*/; do \
		pytest -m slow $$folder || [ $$? = 5 ] || failed="$$failed $$folder"; \
	done; [ -z "$$failed" ] || { echo "failed in$$failed"; exit 1; }

drills: setup  ## inject faults into real stages, measure the cost; ONLY=NAME
	@OMP_NUM_THREADS=1 python -m tests.drills $(foreach name,$(ONLY),--only $(name))

check: setup  ## lint, types, import rule, compiled pipeline, scorecard
	ruff check .
	ruff format --check .
	hadolint Dockerfile
	pyright
	lint-imports
	python -m components.stage_files --check
	python -m pipelines.graph.compile --check
	python -m yolo_core.scorecard --check

check-infra: setup $(FORMATTER)  ## check the Terraform configuration (needs node)
	node infra/checks/format.mjs --check $(TERRAFORM)
	$(CHECKOV) --directory $(TERRAFORM) --framework terraform --quiet --compact --skip-download

bench: setup  ## compare speed with other projects, whose code is in PEERS=
	python -m benchmarks

bench-peers: setup  ## fetch the code of those projects into PEERS=FOLDER
	python -m benchmarks.peers.fetch $(PEERS)

format: setup  ## format the code
	ruff check --fix .
	ruff format .

format-infra: setup $(FORMATTER)  ## format the Terraform configuration and its READMEs
	node infra/checks/format.mjs $(TERRAFORM)
	python -m infra.checks.module_docs

$(FORMATTER): infra/checks/package-lock.json
	npm ci --silent --prefix infra/checks

image:  ## build the container image; DEVICE=cuda|cpu IMAGE=NAME
	docker build --build-arg DEVICE=$(DEVICE) --build-arg TORCH_INDEX=$(TORCH_INDEX) --build-arg 'PACKAGES=$(PACKAGES)' \
		--build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) --tag $(IMAGE):$(TAG) --tag $(IMAGE):latest .
	@echo $(IMAGE):$(TAG)

generated: setup  ## write the files that follow from the code: dvc.yaml, docs, pipeline
	python -m components.stage_files
	python -m pipelines.graph.compile
	python -m yolo_core.scorecard

pipeline: setup  ## compile the Kubeflow pipeline
	python -m pipelines.graph.compile

schemas:  ## fetch the KubeRay and Kubeflow schemas that tests use
	@mkdir -p .schemas
	curl -fsSL -o .schemas/ray.io_rayjobs.yaml $(KUBERAY)/ray-operator/config/crd/bases/ray.io_rayjobs.yaml
	curl -fsSL -o .schemas/kfp_api_v2beta1.swagger.json $(KFP)/backend/api/v2beta1/swagger/kfp_api_single_file.swagger.json

scorecard: setup  ## write docs/scorecard.md: published and counted figures
	python -m yolo_core.scorecard

ui: setup  ## serve the MLflow UI of the local registry
	mlflow ui --backend-store-uri sqlite:///mlflow.db

services-up: setup  ## start an S3 store and an MLflow server on this machine
	@python -m infra.local.services up --database $(or $(DATABASE),postgresql)

services-status: setup  ## show which of these services are running
	@python -m infra.local.services status --database $(or $(DATABASE),postgresql)

services-down: setup  ## stop these services; their data stays in .services
	@python -m infra.local.services down --database $(or $(DATABASE),postgresql)

two-nodes: setup  ## run the stages on two Ray nodes, S3 and PostgreSQL, locally
	@OMP_NUM_THREADS=1 python -m infra.local.two_nodes

lock: setup  ## upgrade requirements.lock; TORCH=2.13.0 pins torch
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-emit-index-url --no-annotate \
		--no-header --upgrade $(if $(TORCH),--upgrade-package torch==$(TORCH)) pyproject.toml -o requirements.lock

.PHONY: generated help setup run retrain test test-full test-slow drills check check-infra bench bench-peers format format-infra image pipeline schemas scorecard ui lock \
	services-up services-status services-down two-nodes
