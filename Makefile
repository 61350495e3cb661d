# Two commands: `make demo` and `make test`. Each does its own set-up into .venv; later calls find it done.
PYTHON ?= python3
BIN := .venv/bin
# On a terminal a progress display; elsewhere, as in CI or a file, Snakemake's own lines.
PROGRESS := $(shell test -t 2 && echo --logger rich)
SNAKEMAKE := $(strip $(BIN)/snakemake $(PROGRESS) --profile profiles/local)
INSTALLED := .venv/.installed

.PHONY: install slurm-profile demo test test-slurm check location bench bench-gpu status provenance docs lock

install: $(INSTALLED) slurm-profile

# Its commands name their place: in a checkout that was moved or copied they are installed anew.
ifeq ($(shell grep -sF "$$(pwd -P)/.venv/" $(BIN)/snakemake),)
.PHONY: $(INSTALLED)
endif
$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("error: Python 3.11 or newer is needed; set PYTHON=")'
	@$(PYTHON) -c 'import os, re, sys; re.search(r"(?![\w@%+=:,./~-])[\x00-\x7f]", os.getcwd()) and sys.exit( \
	  f"error: {os.getcwd()}: Snakemake starts no job from a path with spaces or quotes; move the checkout")'
	@test ! -L .venv || { echo "error: .venv is a link, and what it leads to would be emptied; remove the link" >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# Snakemake looks for `--profile slurm` in the user's profile folder. A profile of that name that is somebody's own stays,
# a link that leads nowhere does not.
slurm-profile:
	@slurm="$${XDG_CONFIG_HOME:-$${HOME:-/dev/null}/.config}/snakemake/slurm"; \
	test -e "$$slurm" || { mkdir -p "$${slurm%/*}" && ln -sfn "$$(pwd -P)/profiles/slurm" "$$slurm"; } 2> /dev/null; \
	test "$$slurm" -ef profiles/slurm || echo "note: $$slurm is not this repository's; use --profile profiles/slurm"

demo: $(INSTALLED)
	$(SNAKEMAKE) demo --quiet rules
	@cat results/demo/summary.txt
	@echo 'All of it, with figures: results/demo/report.html'

test: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slurm" -n 2 --dist loadfile --no-loadscope-reorder

# On a real SLURM cluster, brought up on this machine (Debian: slurm-wlm slurmdbd munge mariadb-server); 8 to 14 minutes.
test-slurm: $(INSTALLED)
	$(BIN)/python -m pytest -m slurm tests/slurm

# Lint, format and type checks.
check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/mypy

# The Location data set: every attack over three seeds; results in results/location.
location: $(INSTALLED)
	$(SNAKEMAKE) all --quiet rules --config 'datasets=[location]' 'defenses=[]' \
	  transfer=none controls=none 'seeds=[7, 8, 9]' results_dir=results/location
	@cat results/location/summary.txt
	@echo 'All of it, with figures: results/location/report.html'

# A plain baseline beside ours, on one full cell: some minutes on digits; DATASET=location, whose archive is to lie in
# data/location, takes tens of minutes. Writes benchmarks/bench_cpu_{dataset}.md.
bench: DATASET ?= digits
bench: $(INSTALLED)
	$(BIN)/python benchmarks/bench.py --dataset $(DATASET) --recipes fast paper

# On one GPU, with cifar10/resnet18 if data/cifar10 is there. DEVICE=cpu only shows that it runs.
bench-gpu: DEVICE ?= cuda
bench-gpu: $(INSTALLED)
	$(BIN)/python benchmarks/bench.py --gpu --device $(DEVICE) --baseline-epochs 2 \
	  $(if $(and $(filter cuda,$(DEVICE)),$(wildcard data/cifar10/*)),--dataset cifar10 --model resnet18,--model cnn)

# What is done, running, failed and missing, and the time left, of the grid or of the demo (OF=demo). WITH takes the
# run's own --directory, --configfile and --config: make status WITH="--configfile mine.yaml --config 'seeds=[7, 8]'"
status: OF ?= all
status: $(INSTALLED)
	@$(BIN)/python workflow/status.py $(OF) $(WITH)

# Snakemake's own report of what has been run: what is made of what, by which code, in how much time. The demo's in
# results/demo/provenance.html, or with OF=all results/provenance.html. WITH as above.
provenance: OF ?= demo
provenance: $(INSTALLED)
	$(SNAKEMAKE) $(OF) --report "$$($(BIN)/python workflow/status.py $(OF) --report-file $(WITH))" $(WITH)

# The documentation, into site/index.html: a page or a link that is wrong is an error (not with --quiet).
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "site/index.html"

# Resolve requirements.lock anew (needs uv).
lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --extra workflow --extra dev --extra docs \
	  pyproject.toml --output-file requirements.lock
