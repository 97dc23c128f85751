# make study    the whole study on one data set          make test    the tests
# Both make their environment in .venv from requirements.lock the first time.

PYTHON ?= python3
BIN := .venv/bin

DATASET ?= scenes
SOURCE ?=
DATA ?= data
RUNS ?= runs
FIGURES ?= $(RUNS)/figures
NAME := $(basename $(notdir $(DATASET)))
COMMON := -p dataset "$(DATASET)" -p data "$(DATA)"
STAGE := $(COMMON) -p runs "$(RUNS)"
# More parameters of single notebooks, such as PREPARE='-p image_size 224' or STAGE1='-p epochs 2'.
PREPARE ?=
STAGE1 ?=
STAGE2 ?=
STAGE3 ?=
STAGE4 ?=
VIEW ?=

.PHONY: study test lab lint bench lock clean
.DEFAULT_GOAL := study

define notebook
$(BIN)/papermill --log-output --no-progress-bar notebooks/$(1).ipynb "$(RUNS)/$(NAME)/notebooks/$(1).ipynb" $(2)
endef

study: .venv/ready
	@mkdir -p "$(RUNS)/$(NAME)/notebooks"
	$(call notebook,00_prepare_data,$(COMMON) $(if $(SOURCE),-p source "$(SOURCE)") -p figures "$(FIGURES)" $(PREPARE))
	$(call notebook,01_train_stage1,$(STAGE) $(STAGE1))
	$(call notebook,02_train_stage2,$(STAGE) $(STAGE2))
	$(call notebook,03_train_stage3,$(STAGE) $(STAGE3))
	$(call notebook,04_train_stage4,$(STAGE) $(STAGE4))
	$(call notebook,09_attention_channels,$(STAGE) -p figures "$(FIGURES)" $(VIEW)) & other=$$!; \
	$(call notebook,11_predict,$(STAGE) -p out "$(RUNS)/$(NAME)/predictions" $(VIEW)); ended=$$?; \
	wait $$other && exit $$ended
	@echo "executed notebooks: $(RUNS)/$(NAME)/notebooks, figures: $(FIGURES)/$(NAME)"

test: .venv/ready
	$(BIN)/pytest

lab: .venv/ready
	$(BIN)/jupyter lab notebooks

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: .venv/ready
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.equal

lock: .venv/ready
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --generate-hashes --no-emit-index-url --no-header \
	  --python-version 3.11 --quiet --output-file requirements.lock

clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache

.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name one by make PYTHON=python3.12")'
	$(PYTHON) -m venv --clear .venv
	sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > .venv/uv.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.lock
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@
