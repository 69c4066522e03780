"""LightGBM, XGBoost and CatBoost, by onnxmltools and by CatBoost itself; alone, and as the last step of scikit-learn's pipelines.

Usage: python boosters_models.py OUT [--only SUBSTRING]
"""

import numpy as np
import pandas as pd
import pyarrow as pa
from catboost import CatBoostClassifier, CatBoostRegressor
from lightgbm import LGBMClassifier, LGBMRanker, LGBMRegressor
from onnxmltools import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm as of_lightgbm
from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost as of_xgboost
from skl2onnx import to_onnx, update_registered_converter
from skl2onnx.common.shape_calculator import (
    calculate_linear_classifier_output_shapes,
    calculate_linear_regressor_output_shapes,
)
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from xgboost import XGBClassifier, XGBRanker, XGBRegressor, XGBRFRegressor

from cases import ROWS, SEED, Suite, random

# Other rows than the models were fitted on, whose numbers are the trees' thresholds.
HELD_OUT = slice(-ROWS, None)

LIGHT = {"n_estimators": 20, "num_leaves": 7, "min_child_samples": 5, "random_state": SEED, "n_jobs": 1, "verbose": -1}
EXTREME = {"n_estimators": 20, "max_depth": 3, "random_state": SEED, "n_jobs": 1}
CAT = {
    "iterations": 20,
    "depth": 3,
    "random_seed": SEED,
    "thread_count": 1,
    "verbose": False,
    "allow_writing_files": False,
}
NAMES = ["a", "b", "c", "d"]


def numbers(gaps):
    """Four columns, the last of codes."""
    x = random().normal(size=(300 + ROWS, 4)).astype(np.float32)
    x[:, 3] = random().integers(0, 6, len(x))
    if gaps:
        x[random().random(x.shape) < 0.1] = np.nan
    return x


def targets(x):
    z = np.nan_to_num(x) @ [1.0, -2.0, 0.5, 0.3] + random().normal(0, 0.3, len(x))
    return {
        "number": z,
        "count": np.exp(z / 3),
        "two": (z > 0).astype(int),
        "three": np.digitize(z, [-1, 1]),
        "rank": np.digitize(z, [-1, 0, 1]),
    }


GROUPS = {"group": [30] * 10}
# A model, its target, whether values are missing, and what else fit gets.
MODELS = {
    "lightgbm_two": (LGBMClassifier(**LIGHT), "two", False, {}),
    "lightgbm_three": (LGBMClassifier(**LIGHT), "three", True, {}),
    "lightgbm_categories": (
        LGBMClassifier(**LIGHT, min_data_per_group=1, cat_smooth=1),
        "two",
        False,
        {"categorical_feature": [3]},
    ),
    "lightgbm_regressor": (LGBMRegressor(**LIGHT), "number", True, {}),
    "lightgbm_poisson": (LGBMRegressor(objective="poisson", **LIGHT), "count", False, {}),
    "lightgbm_tweedie": (LGBMRegressor(objective="tweedie", **LIGHT), "count", False, {}),
    "lightgbm_quantile": (LGBMRegressor(objective="quantile", alpha=0.8, **LIGHT), "number", False, {}),
    "lightgbm_ranker": (LGBMRanker(**LIGHT), "rank", False, GROUPS),
    "lightgbm_forest": (
        LGBMClassifier(boosting_type="rf", bagging_freq=1, bagging_fraction=0.6, **LIGHT),
        "two",
        False,
        {},
    ),
    "lightgbm_dart": (LGBMRegressor(boosting_type="dart", **LIGHT), "number", False, {}),
    "xgboost_two": (XGBClassifier(**EXTREME), "two", True, {}),
    "xgboost_three": (XGBClassifier(**EXTREME), "three", False, {}),
    "xgboost_regressor": (XGBRegressor(**EXTREME), "number", True, {}),
    "xgboost_poisson": (XGBRegressor(objective="count:poisson", **EXTREME), "count", False, {}),
    "xgboost_tweedie": (XGBRegressor(objective="reg:tweedie", **EXTREME), "count", False, {}),
    "xgboost_quantile": (
        XGBRegressor(objective="reg:quantileerror", quantile_alpha=0.8, **EXTREME),
        "number",
        False,
        {},
    ),
    "xgboost_ranker": (XGBRanker(**EXTREME), "rank", False, GROUPS),
    "xgboost_forest": (XGBRFRegressor(**EXTREME), "number", False, {}),
    "xgboost_linear": (XGBRegressor(booster="gblinear", n_estimators=20, random_state=SEED), "number", False, {}),
    "xgboost_dart": (XGBRegressor(booster="dart", rate_drop=0.1, **EXTREME), "number", False, {}),
    "catboost_two": (CatBoostClassifier(**CAT), "two", True, {}),
    "catboost_three": (CatBoostClassifier(**CAT), "three", False, {}),
    "catboost_regressor": (CatBoostRegressor(**CAT), "number", True, {}),
    "catboost_poisson": (CatBoostRegressor(loss_function="Poisson", **CAT), "count", False, {}),
}


def export(name, model):
    """As docs/models.md does."""
    if name.startswith("catboost"):
        return lambda path: model.save_model(str(path), format="onnx")
    types = [("features", FloatTensorType([None, 4]))]
    if name.startswith("xgboost"):
        return lambda path: write(convert_xgboost(model, initial_types=types), path)
    return lambda path: write(convert_lightgbm(model, initial_types=types, zipmap=False), path)


def write(onnx_model, path):
    path.write_bytes(onnx_model.SerializeToString())


def alone(suite):
    for name, (model, target, gaps, others) in MODELS.items():
        if not suite.wants(name):
            continue
        x = numbers(gaps)
        y = targets(x)[target]
        model.fit(x[:300], y[:300], **others)
        rows = x[HELD_OUT]
        expected = [model.predict(rows).reshape(ROWS)]
        if hasattr(model, "predict_proba"):
            scores = model.predict_proba(rows)
            # CatBoost has no option for a matrix.
            expected.append(
                [dict(enumerate(row)) for row in scores.tolist()] if name.startswith("catboost") else scores
            )
        table = pa.table({column: pa.array(rows[:, place], from_pandas=True) for place, column in enumerate(NAMES)})
        # CatBoost's trees do not say in their file that values may be missing.
        options = {"on_null": "nan"} if name.startswith("catboost") and gaps else {}
        suite.add(
            name,
            export(name, model),
            {"features": rows},
            expected,
            features={"features": NAMES},
            table=table,
            options=options,
        )


def register():
    classifier, regressor = calculate_linear_classifier_output_shapes, calculate_linear_regressor_output_shapes
    options = {"nocl": [True, False], "zipmap": [True, False, "columns"]}
    update_registered_converter(LGBMClassifier, "LightGbmLGBMClassifier", classifier, of_lightgbm, options=options)
    update_registered_converter(XGBClassifier, "XGBoostXGBClassifier", classifier, of_xgboost, options=options)
    update_registered_converter(LGBMRegressor, "LightGbmLGBMRegressor", regressor, of_lightgbm, options={"split": None})
    update_registered_converter(XGBRegressor, "XGBoostXGBRegressor", regressor, of_xgboost)


def in_pipelines(suite):
    """The last step of a pipeline over a data frame."""
    register()
    x = numbers(False)
    frame = pd.DataFrame(x[:, :3], columns=["age", "income", "visits"])
    frame["plan"] = pd.Series(np.array(["free", "basic", "pro"], dtype=object)[x[:, 3].astype(int) % 3], dtype=object)
    y = targets(x)
    rows = frame[HELD_OUT]
    for name, encoder, model, target in (
        ("pipeline_lightgbm", OneHotEncoder(), LGBMClassifier(**LIGHT), "two"),
        ("pipeline_lightgbm_regressor", OrdinalEncoder(), LGBMRegressor(**LIGHT), "number"),
        ("pipeline_xgboost", OneHotEncoder(), XGBClassifier(**EXTREME), "three"),
        ("pipeline_xgboost_regressor", OrdinalEncoder(), XGBRegressor(**EXTREME), "number"),
    ):
        parts = [("n", StandardScaler(), ["age", "income", "visits"]), ("t", encoder, ["plan"])]
        pipeline = make_pipeline(ColumnTransformer(parts, sparse_threshold=0), model).fit(frame[:300], y[target][:300])
        is_classifier = hasattr(model, "predict_proba")
        expected = [pipeline.predict(rows)] + ([pipeline.predict_proba(rows)] if is_classifier else [])
        options = {id(model): {"zipmap": False}} if is_classifier else None
        feeds = {column: rows[[column]].to_numpy() for column in frame}
        table = pa.Table.from_pandas(rows, preserve_index=False)
        suite.add(name, export_pipeline(pipeline, frame[:1], options), feeds, expected, table=table)


def export_pipeline(pipeline, sample, options):
    # skl2onnx wants to know how far the converters of others go.
    opsets = {"": 15, "ai.onnx.ml": 3}
    return lambda path: write(to_onnx(pipeline, sample, target_opset=opsets, options=options), path)


def main():
    suite = Suite("boosters")
    alone(suite)
    in_pipelines(suite)
    suite.close()


if __name__ == "__main__":
    main()
