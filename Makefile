# Each target makes and reuses an environment by itself: .venv, with exactly what constraints.txt pins.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEVELOPED := $(VENV)/.developed
LOCK := constraints.txt
EXPERIMENT ?= stdlib
ARGS ?=
# The finished run whose report and card are photographed.
RUN ?= runs/stdlib/main
# What `make lock` keeps: the newest torch of which this project has measured figures, all on a CPU.
TORCH ?= 2.13.0
# What an image's torch is for, and where it comes from.
DEVICE ?= cpu
TORCH_INDEX_cpu := https://download.pytorch.org/whl/cpu
TORCH_INDEX_cuda := https://pypi.org/simple

# titanflow/__init__.py refuses other systems, too, and says why not; here nothing is installed yet.
ifneq ($(shell uname -s),Linux)
$(error titanflow runs on Linux only: use a Linux machine or container, or WSL2 on Windows)
endif

.PHONY: run plan report screenshots docs bench test test-fast test-newest test-oldest survival cluster cluster-run cluster-stop cluster-test cluster-matrix team-test image image-test lint format serve lock clean
.DEFAULT_GOAL := run
# Two installations at once would spoil one environment.
.NOTPARALLEL:

run: $(INSTALLED)
	@$(BIN)/titanflow run $(EXPERIMENT) $(ARGS)

plan: $(INSTALLED)
	@$(BIN)/titanflow plan $(EXPERIMENT) $(ARGS)

report: $(INSTALLED)
	@$(BIN)/titanflow report $(EXPERIMENT) $(ARGS)

serve: $(INSTALLED)
	@$(BIN)/titanflow serve $(ARGS)

screenshots: $(DEVELOPED)
	@$(BIN)/python docs/live_picture.py $(RUN)
	@$(BIN)/python docs/screenshots.py $(RUN)

# The site of these pages, in site/; any web server shows it: python3 -m http.server -d site
docs: $(DEVELOPED)
	@$(BIN)/python docs/site_pages.py $(ARGS)

# Speed and memory beside peers, in turns; writes docs/performance.md. ARGS names questions: make bench ARGS="sft chain".
bench: $(DEVELOPED)
	$(BIN)/python benchmarks/bench.py $(ARGS) --page

test: $(DEVELOPED)
	$(BIN)/python -m pytest $(ARGS)

test-fast: $(DEVELOPED)
	$(BIN)/python -m pytest --fast -n 2 $(ARGS)

survival: $(DEVELOPED)
	$(BIN)/python -m pytest tests/survival tests/kubernetes --survival -n 0 -q $(ARGS)

# A Slurm of two nodes on this machine; needs root and Debian's packages (docs/clusters.md).
cluster: $(DEVELOPED)
	$(BIN)/python tests/cluster/local_slurm.py start

cluster-run: $(DEVELOPED)
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/cluster/local_slurm.py run $(ARGS)

cluster-stop: $(DEVELOPED)
	$(BIN)/python tests/cluster/local_slurm.py stop

cluster-test: $(DEVELOPED)
	$(BIN)/python -m pytest tests/cluster --cluster -n 0 -q $(ARGS)

# By hand: every event that may befall a job, and random kills.
cluster-matrix: $(DEVELOPED)
	$(BIN)/python -m pytest tests/cluster --cluster-matrix -n 0 -q $(ARGS)

# A Prefect server on PostgreSQL with three workers; needs root and Debian's postgresql (docs/prefect.md).
team-test: $(DEVELOPED)
	$(BIN)/python -m pytest tests/team --team -n 0 -q $(ARGS)

# By whichever builder there is; DEVICE=cuda takes CUDA's torch (docs/containers.md).
image:
	@test -n "$(TORCH_INDEX_$(DEVICE))" || { echo "DEVICE=$(DEVICE) is none of: cpu cuda" >&2; exit 1; }
	@for builder in docker podman buildah; do $$builder info >/dev/null 2>&1 && break || builder=; done; \
	test -n "$$builder" || { echo "an image needs docker, podman or buildah, and none answers here" >&2; exit 1; }; \
	set -x; $$builder build --file deployments/Dockerfile --tag titanflow:$(DEVICE) \
		--build-arg TORCH_INDEX=$(TORCH_INDEX_$(DEVICE)) \
		--build-arg VERSION=$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' titanflow/__init__.py) \
		--build-arg REVISION=$$(git describe --always --abbrev=40 --match= --dirty=+ 2>/dev/null) $(ARGS) .

# Builds it from this machine's Debian, with pip configured as here (root, and Debian's buildah and debootstrap).
image-test: $(DEVELOPED)
	$(BIN)/python -m pytest tests/deployments/test_image.py --image=$(TORCH_INDEX_cpu) -n 0 -q $(ARGS)

lint: $(DEVELOPED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint deployments/Dockerfile

format: $(DEVELOPED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Both ends of pyproject.toml's ranges, each in an environment made anew.
test-newest: python-is-new-enough
	rm -rf .venv-newest
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	.venv-newest/bin/python -m pip list --disable-pip-version-check
	.venv-newest/bin/python -m pytest $(ARGS)

test-oldest: python-is-new-enough
	rm -rf .venv-oldest
	$(PYTHON) -m venv .venv-oldest
	$(call install,.venv-oldest,$(LOCK),uv)
	.venv-oldest/bin/uv pip compile --quiet --python .venv-oldest --resolution lowest-direct --extra dev --output-file .venv-oldest/$(LOCK) pyproject.toml
	$(call install,.venv-oldest,.venv-oldest/$(LOCK),--editable '.[dev]')
	.venv-oldest/bin/python -m pip list --disable-pip-version-check
	.venv-oldest/bin/python -m pytest $(ARGS)

# Keeps what is pinned and still fits; `make lock ARGS=--upgrade` takes the newest of everything but torch.
lock: $(BIN)/uv
	echo torch==$(TORCH) | $(BIN)/uv pip compile --quiet --universal --extra dev --constraint - --custom-compile-command 'make lock' --output-file $(LOCK) pyproject.toml $(ARGS)

clean:
	rm -rf $(VENV) .venv-newest .venv-oldest .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The arguments: an environment, its pins, what is installed. pip reads the pins of what builds a package from the
# environment: older releases from the first name, newer ones from the second.
define install
	@PIP_CONSTRAINT=$(2) PIP_BUILD_CONSTRAINT=$(2) $(1)/bin/python -m pip install --quiet --disable-pip-version-check $(3)
endef

.PHONY: python-is-new-enough
python-is-new-enough:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, $(PYTHON) is {sys.version.split()[0]}: make PYTHON=python3.12 …")'

# PYTHON chooses the interpreter of a new environment, and changes none that is there.
.PHONY: python-is-the-same
python-is-the-same:
ifeq ($(origin PYTHON),command line)
	@test ! -f $(VENV)/pyvenv.cfg || grep -q "^version = $$($(PYTHON) -c 'import platform; print(platform.python_version())')" $(VENV)/pyvenv.cfg || { echo "$(VENV) has another Python than $(PYTHON): make clean first" >&2; exit 1; }
endif

# Half an environment, or one whose interpreter is gone, is made anew.
$(BIN)/python: | python-is-new-enough python-is-the-same
	@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }

# The lock is made before what it pins can be installed.
$(BIN)/uv: | $(BIN)/python
	$(call install,$(VENV),$(LOCK),uv)

$(INSTALLED): pyproject.toml $(LOCK) $(BIN)/python
	@echo "installing into $(VENV) …"
	$(call install,$(VENV),$(LOCK),--editable .)
	@touch $@

$(DEVELOPED): pyproject.toml $(LOCK) $(BIN)/python
	@echo "installing what tests need into $(VENV) …"
	$(call install,$(VENV),$(LOCK),--editable '.[dev]')
	@touch $(INSTALLED) $@
