# make study    the whole study on one data set          make test    the tests
# make predict  labels on photographs, without training
# Each makes its environment in .venv from requirements.lock the first time.

PYTHON ?= python3
BIN := .venv/bin

DATASET ?= scenes
SEED ?= 0
SOURCE ?=
DATA ?= data
RUNS ?= runs
FIGURES ?= $(RUNS)/figures
# More parameters of single notebooks, such as PREPARE='-p image_size 224' or STAGE1='-p epochs 2'.
PREPARE ?=
# On scenes, half the epochs of the recorded runs.
HALF := $(filter scenes,$(DATASET))
STAGE1 ?= $(if $(HALF),-p epochs 5 -p lr_step 4)
STAGE2 ?= $(if $(HALF),-p epochs 2 -p lr_step 1)
STAGE3 ?= $(if $(HALF),-p epochs 2 -p lr_step 1)
STAGE4 ?= $(if $(HALF),-p epochs 1)
VIEW ?=

.PHONY: study report grid predict test coverage lab lint bench verify kills fuzz audit lock clean
.DEFAULT_GOAL := study

study: .venv/ready
	@PATH="$(CURDIR)/$(BIN):$$PATH" snakemake study --configfile grids/study.yaml --config datasets='["$(DATASET)"]' \
	  seeds='[$(SEED)]' source="$(SOURCE)" data="$(DATA)" runs="$(RUNS)" figures="$(FIGURES)" prepare="$(PREPARE)" \
	  stage1="$(STAGE1)" stage2="$(STAGE2)" stage3="$(STAGE3)" stage4="$(STAGE4)" view="$(VIEW)"

# What is recorded under results/, as one notebook with its outputs and one HTML file.
report: .venv/ready
	$(BIN)/jupyter nbconvert --config notebooks/html.json --to notebook --execute --inplace notebooks/12_report.ipynb
	$(BIN)/jupyter nbconvert --config notebooks/html.json --to html --output-dir $(RUNS) --output results.html notebooks/12_report.ipynb
	@echo "$(RUNS)/results.html"

# Every row, gate, control and seed of a grid file: make grid GRID=grids/voc2007.yaml ARGS=-n
GRID ?= grids/scenes.yaml
ARGS ?=
grid: .venv/ready
	@PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --configfile $(GRID) $(ARGS)

test: .venv/ready
	$(BIN)/pytest

# Labels photographs by trained heads, and draws where the network looks: make predict PHOTOS=path/to/folder
# ImageNet weights of the backbone are downloaded once, or are a file: make predict WEIGHTS=densenet121-a639ec97.pth
PHOTOS ?=
HEADS ?= data/heads/voc2007.npz
WEIGHTS ?= imagenet
predict: .venv/ready
	@$(BIN)/python -m attnsem.analysis.predict --heads "$(HEADS)" --weights "$(WEIGHTS)" $(if $(PHOTOS),--photos "$(PHOTOS)") $(ARGS)

# JupyterLab on the whole project, so that executed notebooks below runs can be opened: make lab ARGS=--no-browser
# Its own settings keep outputs out of git: profiles/jupyterlab.
lab: .venv/ready
	@if [ "$$(id -u)" = 0 ]; then echo "You are root: JupyterLab runs as root too."; fi
	@JUPYTER_CONFIG_PATH="$(CURDIR)/profiles/jupyterlab$${JUPYTER_CONFIG_PATH:+:$$JUPYTER_CONFIG_PATH}" \
	  $(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks $$([ "$$(id -u)" = 0 ] && echo --allow-root) $(ARGS)

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: .venv/ready
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.equal

# Lines and branches of attnsem that the tests pass through, those of their subprocesses among them.
coverage: .venv/ready
	rm -rf build/coverage
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --show-missing --skip-covered --precision=1 > benchmarks/robustness/coverage.txt
	cat benchmarks/robustness/coverage.txt

# What is recorded, link by link: make verify ARGS='--runs runs/voc2007-xception224 --data data'
verify: .venv/ready
	$(BIN)/python -m tests.verify $(ARGS)

# 200 kills at random moments of a tiny study; a quarter of an hour on two cores.
kills: .venv/ready
	rm -rf build/kills
	PYTHONPATH=. $(BIN)/python -m tests.kills build/kills

# Every parser under atheris (Linux, Python 3.11 to 3.13): make fuzz SECONDS=600
SECONDS ?= 600
fuzz: .venv/ready
	$(BIN)/uv pip install --quiet --python $(BIN)/python --target build/atheris --no-deps atheris==3.0.0
	PYTHONPATH=build/atheris $(BIN)/python -m tests.fuzz $(SECONDS)

# Known vulnerabilities of what the lock pins.
audit: .venv/ready
	$(BIN)/uv tool run pip-audit==2.9.0 --require-hashes --disable-pip -r requirements.lock

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
