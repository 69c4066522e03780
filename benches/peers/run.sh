#!/usr/bin/env bash
# The whole job, ours against the peers: makes the models, the data and two virtual environments, then runs run.py.
#   benches/peers/run.sh [options of run.py, such as --rounds 5 or --all]
set -euo pipefail
cd "$(dirname "$0")/../.."
cache="${XDG_CACHE_HOME:-$HOME/.cache}/datafusion-predict"
bench="${BENCH:-$cache/bench}"

environment() { # NAME REQUIREMENTS
    local folder="$cache/venv-$1"
    if ! cmp -s "$2" "$folder/requirements.txt"; then
        python3 -m venv --clear "$folder"
        "$folder/bin/pip" install --quiet --disable-pip-version-check -r "$2"
        cp "$2" "$folder/requirements.txt"
    fi
}

environment models tests/models/requirements.txt
environment peers benches/peers/requirements.txt
if [ ! -f "$bench/data.parquet" ]; then
    (cd tests/models && "$cache/venv-models/bin/python" make_bench.py "$bench")
fi
cargo build --release --workspace --bins --examples --benches
ours="${CARGO_TARGET_DIR:-$PWD/target}/release/datafusion-predict"
"$cache/venv-peers/bin/python" benches/peers/run.py "$bench/mlp.onnx" "$bench/trees.onnx" --data "$bench/data.parquet" \
    --ours "benches/peers/ours.sh $ours {model} {data} {out}" \
    --ours-scan "benches/peers/ours.sh $ours - {data} {out}" "$@"
