# Two commands do everything: `make demo` and `make test`.

ONNXRUNTIME ?= 1.32.0
ONNX        := 1.18.0
DATA        := $(or $(XDG_DATA_HOME),$(HOME)/.local/share)/datafusion-predict
RUNTIME     := $(DATA)/runtime
CACHE       := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/datafusion-predict
SERVERS     := $(CACHE)/servers
WEBGPU      := $(CACHE)/webgpu
WEBGPU_RUNTIME := 1.27.0
BENCH       ?= $(CACHE)/bench
MATRIX      ?= $(CACHE)/matrix
FUZZ_SECONDS ?= 600
FEATURES    := --features proto
PIP         := python3 -m pip --disable-pip-version-check --quiet
export CARGO_TARGET_DIR ?= $(CURDIR)/target

.PHONY: demo test lint features runtime onnx servers webgpu matrix zoo onnx-backend frameworks texts images remembered jobs watching queries fuzz bench release dist clean

demo: runtime ## the main job, on data and models of this repository
	cargo build --workspace --bins --examples
	$(CARGO_TARGET_DIR)/debug/datafusion-predict --echo -f sql/scripts/demo.sql

test: lint runtime onnx servers webgpu ## all tests
	WEBGPU="$(WEBGPU)" cargo test --workspace $(FEATURES)

lint: ## format and lints
	cargo fmt --all --check
	cargo clippy --workspace --all-targets $(FEATURES) -- -D warnings

# The bare library, and three that reach further.
COMBINATIONS := none onnxruntime,text images,onnxruntime http,mlflow aws,azure,gcp,http,images,mlflow,onnxruntime,proto,text
OF_LIBRARY   := --package datafusion-predict --no-default-features --features

features: ## the native crate alone, and the library with five sets of features, and how many packages each has
	cargo clippy --package datafusion-predict-native --all-targets -- -D warnings
	! cargo tree --edges normal --prefix none --package datafusion-predict-native | grep '^datafusion '
	set -e; for features in $(COMBINATIONS); do \
	    cargo clippy --lib $(OF_LIBRARY) "$${features#none}" -- -D warnings; \
	    packages=$$(cargo tree --edges normal --prefix none $(OF_LIBRARY) "$${features#none}" | sed 's, (\*)$$,,' | sort -u); \
	    echo "features $$features: $$(echo "$$packages" | wc -l) packages"; \
	    if [ $$features = none ] && echo "$$packages" | grep -E '^(ort|ort-sys|reqwest|hyper|rustls|aws-[a-z]+) '; then exit 1; fi; \
	done

runtime: $(RUNTIME)/onnxruntime-$(ONNXRUNTIME) ## ONNX Runtime, where the library looks for it

$(RUNTIME)/onnxruntime-$(ONNXRUNTIME):
	$(PIP) install --no-deps --upgrade --target "$(RUNTIME)" onnxruntime==$(ONNXRUNTIME)
	touch "$@"

onnx: $(DATA)/onnx-$(ONNX)/onnx ## the package `onnx`, whose node tests our tests run

$(DATA)/onnx-$(ONNX)/onnx:
	$(PIP) install --no-deps --upgrade --target "$(DATA)/onnx-$(ONNX)" onnx==$(ONNX)

servers: ## the servers that our tests run: S3, MLflow
	cmp -s tests/servers/requirements.txt "$(SERVERS)/requirements.txt" || \
	    { rm -rf "$(SERVERS)" && $(PIP) install --no-warn-conflicts --target "$(SERVERS)" -r tests/servers/requirements.txt \
	      && cp tests/servers/requirements.txt "$(SERVERS)"; }

# Where a device can't be had, its tests are skipped, and say so.
webgpu: ## a device for tests: ONNX Runtime's WebGPU, and a software driver of Vulkan from Debian's package `chromium-common`
	test -f "$(WEBGPU)/ready-$(WEBGPU_RUNTIME)" || { rm -rf "$(WEBGPU)" && mkdir -p "$(WEBGPU)" && cd "$(WEBGPU)" && \
	    $(PIP) install --no-deps --target ort onnxruntime-webgpu==$(WEBGPU_RUNTIME) && apt-get -q download chromium-common && \
	    dpkg -x chromium-common_*.deb driver && rm chromium-common_*.deb && touch ready-$(WEBGPU_RUNTIME); } || \
	    echo "no WebGPU here: its tests are skipped"

matrix: runtime ## hundreds of models by the converters, against Python's onnxruntime
	. benches/environment.sh && environment models tests/models/requirements.txt
	cd tests/models && "$(CACHE)/venv-models/bin/python" make_matrix.py "$(MATRIX)"
	MATRIX="$(MATRIX)" cargo test --workspace $(FEATURES) --test equivalence -- --ignored --nocapture

jobs: servers ## jobs of which one process is killed in each run: 100 times in a folder, 20 times on S3
	JOB_KILLS=100 cargo test --workspace $(FEATURES) --test jobs -- --nocapture killed

texts: runtime ## real sentence encoders, against Python text by text, and how fast
	. benches/environment.sh && environment texts tests/texts/requirements.txt
	cargo build --workspace --release
	test -f "$(CACHE)/texts/minilm/model.onnx" || "$(CACHE)/venv-texts/bin/python" tests/texts/minilm.py "$(CACHE)/texts/minilm"
	"$(CACHE)/venv-texts/bin/python" -B tests/texts/check.py "$(CARGO_TARGET_DIR)/release/datafusion-predict" "$(CACHE)/texts/minilm"
	"$(CACHE)/venv-texts/bin/python" -B benches/texts.py "$(CARGO_TARGET_DIR)/release/datafusion-predict" "$(CACHE)/texts/minilm"

images: runtime ## real models of images, against Pillow and onnxruntime picture by picture, and how fast
	. benches/environment.sh && environment texts tests/texts/requirements.txt
	cargo build --workspace --release
	"$(CACHE)/venv-texts/bin/python" -B tests/images/check.py "$(CARGO_TARGET_DIR)/release/datafusion-predict"
	"$(CACHE)/venv-texts/bin/python" -B benches/images.py "$(CARGO_TARGET_DIR)/release/datafusion-predict" \
	    "$$("$(CACHE)/venv-texts/bin/python" -c 'import onnx, pathlib; print(pathlib.Path(onnx.__file__).parent / "backend/test/data/light/light_resnet50.onnx")')"

remembered: ## what is remembered, where 50 processes are killed while they write it
	REMEMBER_KILLS=50 cargo test --workspace $(FEATURES) --test remembered -- --nocapture

watching: ## metrics, dashboard, alerts and logs against a real Prometheus (Debian's package `prometheus`)
	cargo build --workspace
	python3 -B tests/watching/watching.py $(CARGO_TARGET_DIR)/debug/datafusion-predict

zoo: runtime ## real models inside published packages, against Python's onnxruntime row by row
	. benches/environment.sh && environment zoo tests/zoo/requirements.txt
	cargo build --workspace
	"$(CACHE)/venv-zoo/bin/python" -B tests/zoo/zoo.py "$(CACHE)/zoo"

onnx-backend: runtime ## the backend tests of the package `onnx` by rows, against Python's onnxruntime
	. benches/environment.sh && environment zoo tests/zoo/requirements.txt
	cargo build --workspace
	"$(CACHE)/venv-zoo/bin/python" -B tests/zoo/onnx_backend.py "$(CACHE)/onnx-backend"

OF_FRAMEWORKS := torch:frameworks keras:frameworks jax:frameworks spark:frameworks sklearn:models boosters:models

frameworks: runtime ## what PyTorch, Keras, JAX, Spark, scikit-learn, LightGBM, XGBoost and CatBoost export, against their own predict; takes 8 GB of disk
	. benches/environment.sh && export PIP_NO_CACHE_DIR=1 && environment models tests/models/requirements.txt && \
	    environment frameworks tests/frameworks/requirements.txt
	"$(CACHE)/venv-frameworks/bin/pip" uninstall --quiet --yes triton 2>/dev/null # 1 GB, which no export needs
	cargo build --workspace
	rm -rf "$(CACHE)/frameworks" && mkdir -p "$(CACHE)/frameworks"
	for part in $(OF_FRAMEWORKS); do \
	    name=$${part%:*}; log="$(CACHE)/frameworks/$$name.log"; \
	    "$(CACHE)/venv-$${part#*:}/bin/python" -B tests/frameworks/$${name}_models.py "$(CACHE)/frameworks" >"$$log" 2>&1 || \
	        { cat "$$log"; exit 1; }; \
	    tail -n 1 "$$log"; \
	done
	"$(CACHE)/venv-models/bin/python" -B tests/frameworks/compare.py "$(CACHE)/frameworks"

queries: runtime ## two thousand generated queries, with nodes, without them, and with arithmetic in place of the model
	cargo test --workspace $(FEATURES) --test generated_queries -- --ignored --nocapture

FUZZ := CARGO_TARGET_DIR="$(CACHE)/fuzz/target" cargo +nightly fuzz run --dev --fuzz-dir
FUZZ_LIMITS := -max_total_time=$(FUZZ_SECONDS) -max_len=65536 -timeout=20 -rss_limit_mb=4096

fuzz: ## the reader of graphs and the compiler, then all of CREATE MODEL, for FUZZ_SECONDS each; needs a nightly toolchain and `cargo install cargo-fuzz`
	mkdir -p "$(CACHE)/fuzz/corpus" && cp -n tests/models/operators/*.onnx tests/models/boosters/*.onnx tests/models/queries/*.onnx \
	    "$(CACHE)/fuzz/corpus"
	$(FUZZ) native/fuzz compile "$(CACHE)/fuzz/corpus" -- $(FUZZ_LIMITS)
	$(FUZZ) fuzz create_model "$(CACHE)/fuzz/corpus" -- $(FUZZ_LIMITS)

# On Linux on x86-64 the linker is LLD: functions that are the same are there once, and so are the places that are filled in.
ifeq ($(shell uname -sm),Linux x86_64)
SMALL := -C link-arg=-Wl,--icf=all -C link-arg=-Wl,-z,pack-relative-relocs
endif

dist: ## the binary to hand out: small, without symbols
	cargo rustc --profile dist --package datafusion-predict-cli --bin datafusion-predict -- $(SMALL)

release: runtime ## the fast binary
	cargo build --release --package datafusion-predict-cli

bench: release ## criterion benches, and whole jobs against the peers
	benches/peers/run.sh
	BENCH="$(BENCH)" cargo bench --workspace --bench overhead --bench catalog --bench engines --bench placement \
	    --bench row_groups --bench score --bench vectors

clean:
	cargo clean
