#!/usr/bin/env bash
# Our side of the job: ours.sh BINARY MODEL.onnx|- DATA.parquet OUT.parquet; "-" is the same scan and write without a model.
set -euo pipefail
binary=$1 model=$2 data=$3 out=$4
features=$(printf 'f%s, ' {0..27})
features=${features%, }
settings="SET datafusion.execution.parquet.compression = 'snappy'; SET datafusion.execution.target_partitions = ${PARTITIONS:-2};"
case "$model" in
    -) score=$(printf '%s' "$features" | sed 's/, / + /g') create= ;;
    *trees*) score="predict('m', $features)" create="CREATE MODEL m FROM '$model' OPTIONS (output 'probabilities', class '1');" ;;
    *) score="predict('m', $features)" create="CREATE MODEL m FROM '$model';" ;;
esac
exec "$binary" --quiet -c "$settings $create COPY (SELECT id, CAST($score AS FLOAT) AS score FROM '$data') TO '$out' STORED AS PARQUET" > /dev/null
