# make demo and make test need only Rust, python3 with venv, a C++ compiler and make.
# Set LIBTORCH to use a libtorch 2.11.0 of your own; otherwise it is fetched into .libtorch once.

CARGO ?= cargo
PYTHON ?= python3
DEMO_ARGS ?=
# Idle OpenMP threads sleep instead of spinning, so that a busy machine stays usable.
export OMP_WAIT_POLICY ?= passive

.DEFAULT_GOAL := help
.PHONY: help libtorch build demo test kill-test parity parity-small parity-preprocess bench-peers miri fuzz fuzz-build check fmt lint doc torch-free deny

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

libtorch: ## Fetch libtorch into .libtorch (nothing to do where LIBTORCH is set)
	@$(PYTHON) scripts/libtorch.py

build: libtorch ## Build target/release/margay
	$(CARGO) build --release --locked

demo: build ## Compress the built-in generalist for a few species of a drawn camera-trap world
	target/release/margay demo --force $(DEMO_ARGS)

# The release profile is used on purpose: it shares one build of every dependency (torch-sys above all)
# with `make build`, and the numeric tests are many times faster than unoptimised ones.
test: build ## Run every test of the workspace
	$(CARGO) test --release --locked --workspace

KILL_ARGS ?=
kill-test: build ## Kill the commands at random moments, fill disks, and look at what is left (a quarter of an hour)
	$(PYTHON) scripts/kill_test.py $(KILL_ARGS)

# Where PYTHON has the libraries of scripts/parity-requirements.txt, no others are installed.
PARITY_ARGS ?=
parity: libtorch ## Compare with timm, torchvision, transformers and original releases (docs/parity.md)
	$(CARGO) build --release --locked --example parity
	python=$$($(PYTHON) scripts/parity_venv.py) && $$python scripts/parity.py $(PARITY_ARGS)

parity-small: ## The same with the small models only
	@$(MAKE) parity PARITY_ARGS="--small $(PARITY_ARGS)"

# .ci/run has tested already when it comes here.
MARGAY_TESTED ?=
check: fmt lint $(if $(MARGAY_TESTED),,test) doc torch-free fuzz-build deny ## Everything that CI runs

fmt: ## Check the formatting
	$(CARGO) fmt --all -- --check

lint: libtorch ## Clippy on all targets, warnings are errors
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings

doc: libtorch ## Build the API docs, warnings are errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --locked --no-deps --workspace

torch-free: ## Build and test the command without libtorch (target/torch-free/release/margay)
	$(CARGO) build --release --locked --no-default-features --target-dir target/torch-free
	$(CARGO) test --release --locked --no-default-features --target-dir target/torch-free --test it
	$(CARGO) check --release --locked -p margay-runtime --lib --no-default-features --target-dir target/torch-free
	@if ldd target/torch-free/release/margay | awk '{print $$1}' | grep -E '^lib(torch|c10)'; then \
		echo "error: the torch-free build links libtorch" >&2; exit 1; fi

PEERS_ARGS ?=
bench-peers: build ## Time other engines beside ours, rewrite the tables of docs/performance.md (needs a quiet core)
	$(CARGO) build --release --locked -p margay-runtime --example networks
	$(PYTHON) scripts/bench_peers.py $(PEERS_ARGS)

# Leaks: the threads of rayon's global pool outlive main. Crossbeam below it asks for the other two.
miri: export MIRIFLAGS ?= -Zmiri-tree-borrows -Zmiri-permissive-provenance -Zmiri-ignore-leaks
miri: ## Run the kernels' tests, portable code, under miri (needs a nightly toolchain with miri; a quarter of an hour)
	$(CARGO) +nightly miri test --locked -p margay-kernels --lib --test oracle

# The fuzz crate has a workspace and a nightly compiler of its own, so that it shares no build with the others.
FUZZ_TARGETS = adapter checkpoint configs folder_names journal labels model_file photo recipe safetensors tune_cache
FUZZ_DIR ?= target/fuzz
FUZZ_RUNS ?= 20000
fuzz-build: ## Build the fuzz targets (checks them only, where nightly or cargo-fuzz is missing)
	@if $(CARGO) +nightly fuzz --version >/dev/null 2>&1; then \
		$(CARGO) +nightly fuzz build --target-dir $(FUZZ_DIR); \
	else echo "nightly or cargo-fuzz is not installed: the fuzz targets are checked, but not built"; \
		$(CARGO) check --release --manifest-path fuzz/Cargo.toml --target-dir $(FUZZ_DIR); fi

# A run stops at the first panic, at 512 MB in one piece and at 2 GB in all.
fuzz: fuzz-build ## Feed each fuzz target FUZZ_RUNS inputs that grow from fuzz/seeds
	@set -e; for target in $(FUZZ_TARGETS); do \
		mkdir -p $(FUZZ_DIR)/corpus/$$target fuzz/seeds/$$target; \
		seeds="fuzz/seeds/$$target"; \
		case $$target in \
			checkpoint|safetensors) seeds="$$seeds tests/golden";; \
			photo) seeds="$$seeds crates/runtime/tests/golden";; \
		esac; \
		echo "== $$target"; \
		$(CARGO) +nightly fuzz run --target-dir $(FUZZ_DIR) $$target $(FUZZ_DIR)/corpus/$$target $$seeds -- \
			-runs=$(FUZZ_RUNS) -max_len=8192 -malloc_limit_mb=512 -rss_limit_mb=2048 -print_final_stats=1; \
	done

PHOTOS ?=
parity-preprocess: ## Compare presets with torchvision, timm and transformers (PYTHON= with all three; PHOTOS= more JPEGs)
	$(CARGO) build --release --locked --no-default-features --target-dir target/torch-free --example preprocess_pixels
	$(PYTHON) scripts/preprocess_parity.py target/torch-free/release/examples/preprocess_pixels $(PHOTOS)

deny: ## Check licences and advisories, where cargo-deny is installed
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny check; \
		else echo "cargo-deny is not installed: skipped"; fi
