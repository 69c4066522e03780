"""scikit-learn models on the data sets that it bundles, converted by skl2onnx.

Usage: python make_sklearn.py     (writes sklearn/)
"""

import numpy as np
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from common import MAX_ROWS, SEED, check_classifier, check_regressor, save_case
from data import breast_cancer, diabetes, diabetes_people, digits, iris, wine

OPSETS = {"": 17, "ai.onnx.ml": 3}
KINDS = {"label": "label", "output_label": "label"}


def save_classifier(name, model, columns, target, zipmap=False, input_form="matrix"):
    matrix = np.column_stack(list(columns.values()))
    model.fit(matrix, target)
    matrix, columns = matrix[:MAX_ROWS], {column: values[:MAX_ROWS] for column, values in columns.items()}
    outputs = save_case(f"sklearn/{name}", convert(name, model, matrix, zipmap), columns, input_form, KINDS)
    check_classifier(name, outputs, model.predict(matrix), model.predict_proba(matrix))


def save_regressor(name, model, columns, target):
    matrix = np.column_stack(list(columns.values()))
    model.fit(matrix, target)
    onnx_model = to_onnx(model, matrix[:1], target_opset=OPSETS, name=name)
    outputs = save_case(f"sklearn/{name}", onnx_model, columns, "matrix")
    check_regressor(name, outputs, model.predict(matrix))


def convert(name, model, matrix, zipmap):
    """The converter's default is a ZipMap."""
    options = {} if zipmap else {id(model): {"zipmap": False}}
    return to_onnx(model, matrix[:1], target_opset=OPSETS, name=name, options=options)


def save_pipelines():
    """Numbers and text, one input for each column; NaN and '' are missing values."""
    numbers, words = ["age", "bmi", "bp"], ["sex", "glucose_band"]
    people, target = diabetes_people()
    preprocess = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), numbers),
            (
                "words",
                make_pipeline(
                    SimpleImputer(missing_values="", strategy="most_frequent"),
                    OneHotEncoder(handle_unknown="ignore", sparse_output=False),
                ),
                words,
            ),
        ]
    )
    pipeline = make_pipeline(preprocess, LogisticRegression(max_iter=1000))
    pipeline.fit(people, target)

    people.loc[[5, 50, 150], "sex"] = "unknown"
    people.loc[[7, 70, 150], "glucose_band"] = "Very High"
    columns = {name: people[name].to_numpy() for name in people.columns}
    types = [(name, FloatTensorType([None, 1])) for name in numbers]
    types += [(name, StringTensorType([None, 1])) for name in words]
    for name, options in (("diabetes_pipeline", {"zipmap": False}), ("diabetes_pipeline_zipmap", {})):
        onnx_model = to_onnx(
            pipeline, initial_types=types, target_opset=OPSETS, name=name, options={id(pipeline): options}
        )
        outputs = save_case(f"sklearn/{name}", onnx_model, columns, "columns", KINDS)
        check_classifier(name, outputs, pipeline.predict(people), pipeline.predict_proba(people))


def main():
    logistic = lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    forest = lambda: RandomForestClassifier(20, max_depth=6, random_state=SEED)
    boosting = lambda: GradientBoostingClassifier(n_estimators=30, random_state=SEED)

    columns, target, words = iris()
    save_classifier("iris_logistic_zipmap", logistic(), columns, words[target], zipmap=True)
    save_classifier("iris_logistic", logistic(), columns, target)
    save_classifier("iris_forest", forest(), columns, words[target])
    columns, target = wine()
    save_classifier("wine_boosting", boosting(), columns, target)
    save_classifier("wine_forest_zipmap", forest(), columns, target, zipmap=True)
    columns, target = breast_cancer()
    save_classifier("breast_cancer_logistic", logistic(), columns, target)
    save_classifier("breast_cancer_boosting", boosting(), columns, target)
    columns, target = diabetes()
    save_regressor("diabetes_linear", LinearRegression(), columns, target)
    save_regressor("diabetes_forest", RandomForestRegressor(20, max_depth=6, random_state=SEED), columns, target)
    save_regressor("diabetes_boosting", GradientBoostingRegressor(n_estimators=50, random_state=SEED), columns, target)
    columns, target = digits()
    network = MLPClassifier((32,), max_iter=300, alpha=0.01, random_state=SEED)
    save_classifier("digits_mlp", network, columns, target, input_form="list")
    save_pipelines()


if __name__ == "__main__":
    main()
