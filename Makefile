# `make demo` and `make test` install everything else themselves. They need Python 3.11+, Go, make and openssl.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := PYTHONPATH=operator:tests $(BIN)/python
COVERAGE_FLOOR := 93
SEQUENCES ?= 1-2000
IMAGE ?= ghcr.io/rescheduler-dev/rescheduler:0.1.0
# The archive with the image that real nodes run. `make image` writes the default.
IMAGE_ARCHIVE ?= build/image/image.tar

.PHONY: demo test test-alerts test-crash sequences chaos test-versions test-manifests test-real catalogue lint bench \
	docs manifests plugin dist image image-base image-table audit cluster cluster-down binaries lock release \
	release-check clean

demo: $(VENV)/ready
	@$(RUN) -m harness.demo $(if $(KEEP),--keep)

# The order of collection stays: files with few, long tests come first, so that small files fill the gaps. Tests on a
# control plane mostly wait, so two cores run four processes. At the end, `harness coverage` compares the coverage with
# its floor, and `harness rights` lists rights that no test used.
test: $(VENV)/ready binaries
	@rm -rf build/rights && mkdir -p build
	@RIGHTS_USED=$(CURDIR)/build/rights $(BIN)/python -W "ignore:Unable to activate:RuntimeWarning" -m slipcover \
		-m pytest -n 4 --dist loadfile --no-loadscope-reorder
	@$(RUN) -m harness coverage build/coverage.json --floor $(COVERAGE_FLOOR)
	@$(RUN) -m harness rights build/rights

test-alerts: $(VENV)/ready
	@$(RUN) -m harness.alerts

test-crash: $(VENV)/ready binaries
	CRASH_AT_EVERY_WRITE=1 $(BIN)/pytest tests/e2e/test_crash.py

# The first run on a version builds its API server, controllers and scheduler. Then the results go into the support
# matrix. VERSIONS="1.33 1.34" runs only these.
test-versions: $(VENV)/ready binaries
	@$(RUN) -m harness.version_matrix $(VERSIONS); code=$$?; $(RUN) -m harness.reference; exit $$code

# Short random sequences of faults in simulated time, on all cores; `make test` runs the first 100.
sequences: $(VENV)/ready
	$(RUN) -m simulation --sequences --jobs $$(getconf _NPROCESSORS_ONLN) $(SEQUENCES)

# ONLY=… selects scenarios, as in ONLY=tests/real/test_service.py; without it, the results are written to bench/.
test-real: $(VENV)/ready $(IMAGE_ARCHIVE)
	IMAGE_ARCHIVE=$(abspath $(IMAGE_ARCHIVE)) PYTHONPATH=operator:tests \
		$(BIN)/python -m harness.real $(BIN)/pytest $(or $(ONLY),tests/real)
	$(if $(ONLY),,PYTHONPATH=operator:tests:. $(BIN)/python -m bench.real)

build/image/image.tar: Dockerfile requirements/runtime.txt $(wildcard operator/*/*.py operator/*/*/*.py operator/*/*/*/*.py)
	$(MAKE) image

# All faults on a control plane, some of them at random, and 50,000 sequences with new seeds; some two hours. It prints
# the seed, and CHAOS_SEED=… repeats a run. The clocks need libfaketime (apt-get install faketime).
CHAOS_SEED ?= $(shell date +%s)
chaos: $(VENV)/ready binaries
	CHAOS_SEED=$(CHAOS_SEED) $(BIN)/pytest tests/chaos
	$(MAKE) --no-print-directory sequences SEQUENCES=$(CHAOS_SEED)-$$(($(CHAOS_SEED) + 49999))

catalogue: $(VENV)/ready binaries
	$(RUN) -m catalogue $(if $(PEER),--peer $(PEER)) $(ONLY)

# Drain each node under real applications: a subfolder or a file of FOLDER is one. Simulated nodes: NODES=4.
test-manifests: $(VENV)/ready binaries
	$(RUN) -m applications $(FOLDER) $(ONLY) $(if $(NODES),--nodes $(NODES))

lint: $(VENV)/ready binaries
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=operator $(BIN)/lint-imports
	$(RUN) -m rescheduler.api.crds --check manifests/crds manifests/chart/templates/crds
	$(RUN) -m harness.state_diagram --check
	$(RUN) -m harness.values_reference --check
	$(RUN) -m harness.reference --check
	$(RUN) -m harness.dashboard --check
	$(RUN) -m harness.language
	HELM=$$($(RUN) -m harness binaries)/helm $(RUN) manifests/render.py --check
	go -C tests/harness/actionlint tool actionlint -shellcheck= -pyflakes= $(CURDIR)/.github/workflows/*.yaml

bench: $(VENV)/bench-ready binaries
	PYTHONPATH=operator:tests:. $(BIN)/python -m bench.run $(ONLY)

# A broken link or anchor fails. The site needs no other host: python3 -m http.server -d build/docs/html
docs: $(VENV)/docs-ready
	@$(RUN) -m harness.site build/docs
	@cd build/docs && $(CURDIR)/$(BIN)/zensical build --strict

manifests: $(VENV)/ready binaries
	$(RUN) -m rescheduler.api.crds manifests/crds manifests/chart/templates/crds
	$(RUN) -m harness.state_diagram
	$(RUN) -m harness.values_reference
	$(RUN) -m harness.reference
	$(RUN) -m harness.dashboard
	HELM=$$($(RUN) -m harness binaries)/helm $(RUN) manifests/render.py

# One file for each platform: linux-amd64, linux-arm64, darwin-amd64, darwin-arm64. Default: that of this machine.
plugin: $(VENV)/ready
	$(BIN)/python manifests/plugin.py dist $(PLATFORMS)

# One manifest, the packaged chart, and checksums of all files in dist.
dist: $(VENV)/ready binaries
	HELM=$$($(RUN) -m harness binaries)/helm $(RUN) manifests/render.py --dist dist

# With docker, podman or buildah. BASE=… and BUILD_BASE=… take local images if no registry can be reached:
# `make image-base` makes both from Debian packages. build/image then has an archive and a list of contents (SPDX).
image: $(VENV)/ready
	@$(RUN) -m harness.image build $(IMAGE) $(if $(BASE),--base $(BASE)) $(if $(BUILD_BASE),--build-base $(BUILD_BASE))

image-base: $(VENV)/ready
	@$(RUN) -m harness.image base

# Write what each package of the last `make image` weighs into the docs.
image-table: $(VENV)/ready
	@$(RUN) -m harness.image table

# Known vulnerabilities of the packages in the image. It asks PyPI; a package without an answer fails (--strict).
audit: $(VENV)/audit-ready
	@$(BIN)/pip-audit --strict --require-hashes --disable-pip --requirement requirements/runtime.txt

cluster: $(VENV)/ready
	@$(RUN) -m harness up

cluster-down: $(VENV)/ready
	@$(RUN) -m harness down

binaries: $(VENV)/ready
	@$(RUN) -m harness binaries >/dev/null

# Lock the newest versions that pyproject.toml allows, with their hashes. Needs uv.
LOCK := uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate
lock:
	$(LOCK) pyproject.toml -o requirements/runtime.txt
	$(LOCK) pyproject.toml --group dev -o requirements/dev.txt
	$(LOCK) --group plugin --constraint requirements/runtime.txt -o requirements/plugin.txt
	set -e; for group in audit bench build docs; do \
		$(LOCK) --group $$group --constraint requirements/dev.txt -o requirements/$$group.txt; done

# Write VERSION into every file that names it. The commit, the tag and the push stay with you: it prints the commands.
release: $(VENV)/ready binaries
	@git diff --quiet HEAD || { echo "commit or stash your changes first" >&2; exit 1; }
	@$(RUN) -m harness.release prepare $(VERSION)
	@$(MAKE) --no-print-directory manifests
	@$(RUN) -m harness.release steps

# Build the files of a release into build/release, and test them. TAG=v… also checks that this tag may be published.
release-check: lint dist plugin
	@$(RUN) -m harness.release check --include dist

$(VENV)/ready: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: set PYTHON=")'
	@echo "Setting up $(VENV) (once, about 20 s) …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/bench-ready: requirements/bench.txt $(VENV)/ready
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bench.txt
	@touch $@

$(VENV)/audit-ready: requirements/audit.txt $(VENV)/ready
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/audit.txt
	@touch $@

$(VENV)/docs-ready: requirements/docs.txt $(VENV)/ready
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/docs.txt
	@touch $@

clean: cluster-down
	rm -rf $(VENV) dist build
