"""LightGBM and XGBoost models, converted by onnxmltools.

Usage: python make_boosters.py     (writes boosters/)
"""

import lightgbm
import numpy as np
import xgboost
from onnxmltools import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType

from common import SEED, check_classifier, check_regressor, save_case
from data import breast_cancer, diabetes, iris, with_missing

KINDS = {"label": "label"}
REPEATABLE = {"random_state": SEED, "n_jobs": 1}
LIGHTGBM = {"n_estimators": 30, "num_leaves": 15, "deterministic": True, "verbose": -1, **REPEATABLE}
XGBOOST = {"n_estimators": 30, "max_depth": 4, **REPEATABLE}


def save_booster(name, model, columns, target, convert, **options):
    matrix = np.column_stack(list(columns.values()))
    model.fit(matrix, target)
    onnx_model = convert(
        model, name=name, initial_types=[("x", FloatTensorType([None, matrix.shape[1]]))], target_opset=15, **options
    )
    outputs = save_case(f"boosters/{name}", onnx_model, columns, "matrix", KINDS)
    if hasattr(model, "predict_proba"):
        check_classifier(name, outputs, model.predict(matrix), model.predict_proba(matrix))
    else:
        check_regressor(name, outputs, model.predict(matrix))


def main():
    columns, target, _ = iris()
    save_booster("lightgbm_iris_zipmap", lightgbm.LGBMClassifier(**LIGHTGBM), columns, target, convert_lightgbm)
    save_booster(
        "lightgbm_iris", lightgbm.LGBMClassifier(**LIGHTGBM), columns, target, convert_lightgbm, zipmap=False
    )
    columns, target = diabetes()
    save_booster("lightgbm_diabetes", lightgbm.LGBMRegressor(**LIGHTGBM), columns, target, convert_lightgbm)
    save_booster("xgboost_diabetes", xgboost.XGBRegressor(**XGBOOST), columns, target, convert_xgboost)
    columns, target = breast_cancer()
    columns = with_missing(columns)
    save_booster(
        "lightgbm_breast_cancer", lightgbm.LGBMClassifier(**LIGHTGBM), columns, target, convert_lightgbm, zipmap=False
    )
    save_booster("xgboost_breast_cancer", xgboost.XGBClassifier(**XGBOOST), columns, target, convert_xgboost)


if __name__ == "__main__":
    main()
