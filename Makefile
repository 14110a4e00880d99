# Every target sets itself up: a virtual environment in .venv with all extras. Needs Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PYTHONUNBUFFERED := 1

.PHONY: train test test-slow test-gpu lint check hooks lab docs gallery export readme clean
.DEFAULT_GOAL := train

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "xar_lab needs Python 3.11 or newer; choose one with make PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing xar_lab and what it needs into $(VENV) (a few minutes, once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,docs]'
	@touch $@

train: $(READY)  ## train on handwritten digits, draw and judge samples; about 3 minutes on 2 cores
	@mkdir -p runs/digits-default
	@$(BIN)/papermill nbs/train.ipynb runs/digits-default/train.ipynb --engine xar_lab --no-progress-bar </dev/null
	@echo "run                  runs/digits-default/ (weights in checkpoints/, the executed notebook in train.ipynb)"

lint: $(READY)  ## bugs and import order (ruff), types (pyright), and the house rules of tests/gates.py
	@$(BIN)/ruff check --quiet xar_lab tests
	@$(BIN)/python tests/gates.py
	@said=$$($(BIN)/basedpyright --level error) || { echo "$$said" | tail -n 30; exit 1; }

check: $(READY)  ## after a change in one notebook: make check NB=06_model exports, cleans, lints and tests it
	@test -n "$(NB)" || { echo "which notebook? make check NB=06_model"; exit 1; }
	@$(BIN)/nbdev_export && touch $(READY)
	@$(BIN)/nbdev_clean --fname "$$($(BIN)/python tests/gates.py --path $(NB))"
	@$(BIN)/ruff check --quiet xar_lab
	@$(BIN)/python tests/gates.py $(NB)
	@$(BIN)/nbdev_test --path "$$($(BIN)/python tests/gates.py --path $(NB))" --n_workers 0

hooks: $(READY)  ## git hooks that clean notebooks and modules, and merge notebooks cell by cell
	@$(BIN)/nbdev_install_hooks

test: $(READY)  ## notebooks, then command lines and everything else that cannot live in a notebook
	@$(MAKE) --no-print-directory lint
	@OMP_NUM_THREADS=1 $(BIN)/nbdev_test --n_workers 2 --timing
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test-slow: $(READY)
	@$(BIN)/nbdev_test --n_workers 1 --flags slow --timing
	@$(BIN)/python -m pytest -m slow
	@$(BIN)/python tests/kill_often.py 200
	@OMP_NUM_THREADS=1 $(BIN)/python tests/mutants.py

test-gpu: $(READY)  ## what only a GPU can show; two minutes
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 0 -m gpu -s tests/test_gpu.py

lab: $(READY)
	@$(BIN)/jupyter lab --ServerApp.root_dir="$(CURDIR)" nbs/explore.ipynb

docs: $(READY)  ## all notebooks and papers as a static site in _docs/
	@$(BIN)/python -m xar_lab.docs

gallery: $(READY)  ## the page of pictures, nbs/gallery.ipynb, of the model that comes with the library
	@$(BIN)/papermill nbs/gallery.ipynb nbs/gallery.ipynb
	@$(BIN)/python -c "import json, pathlib; p = pathlib.Path('nbs/gallery.ipynb'); nb = json.loads(p.read_text()); nb['metadata'].pop('widgets', None); p.write_text(json.dumps(nb, ensure_ascii=False))"  # the state of widgets: 10 MB
	@$(BIN)/nbdev_clean --fname nbs/gallery.ipynb

export: $(READY)  ## after editing notebooks: modules, clean notebooks, README
	@$(BIN)/nbdev_export && touch $(READY)  # nbdev_export rewrites pyproject.toml as it was
	@$(BIN)/nbdev_clean
	@$(MAKE) --no-print-directory readme

readme: $(READY)  ## README.md from nbs/index.ipynb
	@$(BIN)/jupyter nbconvert --log-level WARN --to markdown --output-dir . --output README nbs/index.ipynb
	@$(BIN)/python -c "import re, pathlib; p = pathlib.Path('README.md'); p.write_text(re.sub(r'\]\((?=images/|\w[\w./]*\.ipynb)', '](nbs/', p.read_text()).replace('](../', ']('))"

clean:
	rm -rf _proc _docs build dist *.egg-info .pytest_cache nbs/.ipynb_checkpoints
