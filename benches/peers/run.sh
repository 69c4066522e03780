#!/usr/bin/env bash
# The whole job, ours against the peers: makes the models, the data and two virtual environments, then runs run.py.
#   benches/peers/run.sh [options of run.py, such as --rounds 5 or --all]
set -euo pipefail
cd "$(dirname "$0")/../.."
cache="${XDG_CACHE_HOME:-$HOME/.cache}/datafusion-predict"
bench="${BENCH:-$cache/bench}"
. benches/environment.sh

environment models tests/models/requirements.txt
environment peers benches/peers/requirements.txt
if [ ! -f "$bench/onehot_text.onnx" ]; then
    (cd tests/models && "$cache/venv-models/bin/python" make_bench.py "$bench")
fi
cargo build --release --workspace --bins --benches
ours="${CARGO_TARGET_DIR:-$PWD/target}/release/datafusion-predict"
"$cache/venv-peers/bin/python" benches/peers/run.py "$bench/mlp.onnx" "$bench/trees.onnx" --data "$bench/data.parquet" \
    --ours "benches/peers/ours.sh $ours {model} {data} {out}" \
    --ours-scan "benches/peers/ours.sh $ours - {data} {out}" "$@"

echo
echo "From one to two partitions, whole processes:"
for partitions in 1 2 1 2; do
    start=$(date +%s%N)
    PARTITIONS=$partitions benches/peers/ours.sh "$ours" "$bench/mlp.onnx" "$bench/data.parquet" "$bench/scaling.parquet"
    echo "  $partitions: $((($(date +%s%N) - start) / 1000000)) ms"
done
rm -f "$bench/scaling.parquet"
echo
python3 benches/memory.py "$ours" "$bench"
