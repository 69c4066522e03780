# Two commands do everything: `make demo` and `make test`.

ONNXRUNTIME ?= 1.32.0
DATA        := $(or $(XDG_DATA_HOME),$(HOME)/.local/share)/datafusion-predict
RUNTIME     := $(DATA)/runtime
VENV        ?= $(HOME)/.cache/datafusion-predict/venv
BENCH       ?= $(HOME)/.cache/datafusion-predict/bench
PIP         := python3 -m pip --disable-pip-version-check --quiet
export CARGO_TARGET_DIR ?= $(CURDIR)/target

.PHONY: demo test lint runtime bench release clean

demo: runtime ## the main job, on data and models of this repository
	cargo build --workspace --bins --examples
	$(CARGO_TARGET_DIR)/debug/datafusion-predict --echo -f sql/scripts/demo.sql

test: lint runtime ## all tests
	cargo test --workspace

lint: ## format and lints
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

runtime: $(RUNTIME)/onnxruntime-$(ONNXRUNTIME) ## ONNX Runtime, where the library looks for it

$(RUNTIME)/onnxruntime-$(ONNXRUNTIME):
	$(PIP) install --no-deps --upgrade --target "$(RUNTIME)" onnxruntime==$(ONNXRUNTIME)
	touch "$@"

release: runtime ## the fast binary
	cargo build --release --package datafusion-predict-cli

bench: release ## criterion benches, and whole jobs against the peers
	cargo bench --workspace --bench overhead
	benches/peers/run.sh

clean:
	cargo clean
