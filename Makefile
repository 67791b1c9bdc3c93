# `make demo` and `make test` do all of their own set-up, in .venv from pinned versions.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo

.PHONY: demo test test-serve test-cluster lint bench bundle fuzz clean

demo: $(VENV)/installed
	$(BIN)/litmus demo --output $(DEMO)

test: lint
	$(BIN)/pytest

# A Ray cluster of several nodes and an S3 server on this machine; some 360 MB more in .venv.
test-cluster: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ray,s3,cluster-test]'
	$(BIN)/pytest -m cluster

lint: $(VENV)/installed
	$(BIN)/ruff check src tests benchmarks tools
	$(BIN)/ruff format --check src tests benchmarks tools
	$(BIN)/mypy

# Where LITMUS_DATA names a folder with CIFAR10 and MNIST, trainings on these are measured.
bench: $(VENV)/installed
	$(BIN)/python -m benchmarks.scan_bench -o results/benchmarks/scan.json
	$(BIN)/python -m benchmarks.zoo_bench $(if $(LITMUS_DATA),--data-recipe recipes/paper/cifar10.toml --epochs 2 --cost-models 6) \
		-o results/benchmarks/zoo.json
	$(BIN)/python -m benchmarks.plan_bench $(if $(LITMUS_DATA),--recipe recipes/jumbo/mnist.toml --models 22) \
		-o results/benchmarks/plan.json
	$(BIN)/python -m benchmarks.store_bench -o results/benchmarks/store.json
	$(BIN)/python -m benchmarks.fit_bench -o results/benchmarks/fit.json

# NAME=mnist makes src/litmus/bundled/mnist.litmus from recipes/bundled/mnist.toml; hours.
# ZOOS=DIR has or gets the zoo, WORKERS=N processes build it.
bundle: $(VENV)/installed
	$(BIN)/python -m tools.bundle $(NAME) $(if $(ZOOS),--zoos $(ZOOS)) \
		$(if $(WORKERS),--workers $(WORKERS))

# INPUTS=N inputs for each parser that is ours, SEED=N other ones, OUTPUT=FILE for the figures.
fuzz: $(VENV)/installed
	$(BIN)/python -m tests.fuzz $(if $(INPUTS),--inputs $(INPUTS)) $(if $(SEED),--seed $(SEED)) \
		$(if $(OUTPUT),-o $(OUTPUT))

# Served models, against a real MLServer in an environment of its own.
test-serve: $(VENV)/installed $(VENV)-serve/installed
	LITMUS_MLSERVER=$(VENV)-serve/bin/mlserver $(BIN)/pytest tests/serve

$(VENV)-serve/installed: tests/serve/constraints.txt
	$(PYTHON) -m venv $(VENV)-serve
	$(VENV)-serve/bin/pip install --quiet --disable-pip-version-check \
		-c tests/serve/constraints.txt mlserver onnxruntime
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-serve $(DEMO) build dist src/*.egg-info

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Litmus needs Python 3.11 or later: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,dev]'
	touch $@
