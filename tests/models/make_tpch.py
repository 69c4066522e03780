"""A model on TPC-H: will a customer return the item? LightGBM, from lineitem's numbers.

Usage: cargo run --example tpch_data -- 0.01 /tmp/lineitem.parquet
       python make_tpch.py /tmp/lineitem.parquet     (writes tpch/returned.onnx and tpch/expected.parquet)

expected.parquet has what onnxruntime gives for the whole table at that scale factor: for each ship mode the number of
rows, the number with a probability above one half, and the sum of the probabilities.
"""

import sys

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

from common import ROOT, SEED, check, open_session, write_model

FEATURES = ["l_quantity", "l_extendedprice", "l_discount", "l_tax", "l_linenumber", "ship_day", "receipt_days"]


def features(table):
    columns = [pc.cast(table[name], pa.float32()) for name in FEATURES[:5]]
    ship = pc.cast(table["l_shipdate"], pa.int32())
    receipt = pc.cast(table["l_receiptdate"], pa.int32())
    columns += [pc.cast(ship, pa.float32()), pc.cast(pc.subtract(receipt, ship), pa.float32())]
    return np.column_stack([column.to_numpy() for column in columns])


def main():
    table = pq.read_table(sys.argv[1])
    matrix = features(table)
    returned = pc.equal(pc.cast(table["l_returnflag"], pa.string()), "R").to_numpy()
    model = lightgbm.LGBMClassifier(
        n_estimators=30, num_leaves=15, deterministic=True, verbose=-1, random_state=SEED, n_jobs=1
    )
    model.fit(matrix, returned.astype(np.int64))
    onnx_model = convert_lightgbm(
        model, name="returned", initial_types=[("x", FloatTensorType([None, len(FEATURES)]))], target_opset=15, zipmap=False
    )
    folder = ROOT / "tpch"
    folder.mkdir(exist_ok=True)
    write_model(onnx_model, folder / "returned.onnx")
    scores = open_session(folder / "returned.onnx").run(["probabilities"], {"x": matrix})[0][:, 1]
    check("returned", scores, model.predict_proba(matrix)[:, 1])
    scored = pa.table({"l_shipmode": pc.cast(table["l_shipmode"], pa.string()), "score": scores.astype(np.float64), "above": scores > 0.5})
    grouped = scored.group_by("l_shipmode").aggregate([("score", "count"), ("above", "sum"), ("score", "sum")])
    pq.write_table(grouped.sort_by("l_shipmode"), folder / "expected.parquet")


if __name__ == "__main__":
    main()
