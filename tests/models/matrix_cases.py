"""The models of the matrix: what each is, what it learns from, and how it becomes ONNX."""

import tempfile
from dataclasses import dataclass, field
from typing import Any, Callable

import catboost
import lightgbm
import numpy as np
import onnx
import pandas as pd
import xgboost
from onnxmltools import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common import data_types as booster_types
from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm as lightgbm_operator
from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost as xgboost_operator
from skl2onnx import to_onnx, update_registered_converter
from skl2onnx.common import data_types, shape_calculator
from sklearn.base import is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.compose import ColumnTransformer
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import PCA, IncrementalPCA, KernelPCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import (
    ARDRegression,
    BayesianRidge,
    ElasticNet,
    GammaRegressor,
    HuberRegressor,
    Lasso,
    LassoLars,
    LinearRegression,
    LogisticRegression,
    MultiTaskLasso,
    Perceptron,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
    TweedieRegressor,
)
from sklearn.mixture import GaussianMixture
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import MultiOutputRegressor
from sklearn.naive_bayes import BernoulliNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR, NuSVC, NuSVR, OneClassSVM
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier

from common import SEED

FEW = {"max_iter": 60, "random_state": SEED}  # for networks
TASKS = ("binary", "three")
WORDS = {"labels": "words"}


@dataclass
class Case:
    """One model, not yet trained. make_matrix.py says what the values of task, kind and labels mean."""

    family: str
    name: str
    model: Any
    convert: Callable  # gets the case, the trained model and the rows that it was trained on
    task: str = "binary"
    kind: str = "normal"
    features: int = 10
    train_rows: int = 1000
    nan: float = 0.0  # the share of the values that is missing
    labels: str = "numbers"
    dtype: type = np.float32
    trees: bool = False  # the rows are such that a wrong comparison shows
    fit: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)  # of the conversion


CASES = []


def add(family, name, model, convert=None, **fields):
    own = {key: fields.pop(key) for key in list(fields) if key in Case.__dataclass_fields__}
    CASES.append(Case(family, f"{family}_{name}", model, convert or sklearn_onnx, options=fields, **own))


def tree(family, name, model, convert=None, **fields):
    add(family, name, model, convert, **{"trees": True, "kind": "mixed", **fields})


# Converters


def initial_types(case, x, types):
    if isinstance(x, pd.DataFrame):
        kinds = {"f": types.FloatTensorType, "i": types.Int64TensorType}
        return [(name, kinds.get(x[name].dtype.kind, types.StringTensorType)([None, 1])) for name in x.columns]
    kinds = {np.float32: types.FloatTensorType, np.float64: types.DoubleTensorType, np.int64: types.Int64TensorType}
    return [("X", kinds[case.dtype]([None, x.shape[1]]))]


def sklearn_onnx(case, model, x):
    options = {"opset": 17, "ml": 3, **case.options}
    opsets = {"": options.pop("opset"), "ai.onnx.ml": options.pop("ml")}
    if is_classifier(model) and not isinstance(model, LinearSVC):
        options.setdefault("zipmap", False)
    options = {id(model): options} if options else None
    types = initial_types(case, x, data_types)
    converted = to_onnx(model, initial_types=types, target_opset=opsets, name=case.name, options=options)
    if case.trees and case.dtype == np.float64:
        # The converter says that the outputs are doubles, too, but no tree of onnxruntime gives doubles.
        for output in converted.graph.output:
            if output.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE:
                output.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return converted


def lightgbm_onnx(case, model, x):
    options = {"target_opset": 15, "zipmap": False, **case.options}
    return convert_lightgbm(model, name=case.name, initial_types=initial_types(case, x, booster_types), **options)


def xgboost_onnx(case, model, x):
    options = {"target_opset": 15, **case.options}
    return convert_xgboost(model, name=case.name, initial_types=initial_types(case, x, booster_types), **options)


def catboost_onnx(case, model, x):
    with tempfile.TemporaryDirectory() as folder:
        model.save_model(f"{folder}/model", format="onnx")
        return onnx.load(f"{folder}/model")


def register_boosters():
    """So that skl2onnx converts boosters, too: as a step of a pipeline, or of doubles, which onnxmltools refuses."""
    classifier = shape_calculator.calculate_linear_classifier_output_shapes
    regressor = shape_calculator.calculate_linear_regressor_output_shapes
    options = {"nocl": [True, False], "zipmap": [True, False, "columns"]}
    for kind, shapes, operator, options in (
        (lightgbm.LGBMClassifier, classifier, lightgbm_operator, options),
        (lightgbm.LGBMRegressor, regressor, lightgbm_operator, {"split": None}),
        (xgboost.XGBClassifier, classifier, xgboost_operator, options),
        (xgboost.XGBRegressor, regressor, xgboost_operator, None),
    ):
        update_registered_converter(kind, kind.__name__, shapes, operator, options=options)


# Boosters


def lgb(trees, leaves, kind=lightgbm.LGBMClassifier, **more):
    fixed = {"random_state": SEED, "deterministic": True, "n_jobs": 1, "verbose": -1}
    return kind(n_estimators=trees, num_leaves=leaves, **fixed, **more)


def xgb(trees, depth, kind=xgboost.XGBClassifier, **more):
    return kind(n_estimators=trees, max_depth=depth, random_state=SEED, n_jobs=1, **more)


def cat(trees, depth, kind=catboost.CatBoostClassifier, **more):
    fixed = {"random_seed": SEED, "thread_count": 1, "verbose": False, "allow_writing_files": False}
    return kind(iterations=trees, depth=depth, **fixed, **more)


def boosters():
    """The same for each library; a size is leaves for LightGBM, depth for the others."""
    sizes = {
        "lightgbm": [(1, 2), (1, 31), (10, 7), (100, 31), (300, 15), (20, 255)],
        "xgboost": [(1, 1), (1, 6), (10, 3), (100, 6), (300, 4), (20, 12)],
        "catboost": [(1, 1), (1, 6), (10, 3), (100, 6), (300, 4)],
    }
    for family, make, regressor, convert in (
        ("lightgbm", lgb, lightgbm.LGBMRegressor, lightgbm_onnx),
        ("xgboost", xgb, xgboost.XGBRegressor, xgboost_onnx),
        ("catboost", cat, catboost.CatBoostRegressor, catboost_onnx),
    ):
        put = lambda name, model, **fields: tree(family, name, model, convert, **fields)
        for trees, size in sizes[family]:
            for task, kind in (("binary", {}), ("regression", {"kind": regressor})):
                put(f"{task}_{trees}x{size}", make(trees, size, **kind), task=task)
                put(f"{task}_{trees}x{size}_nan", make(trees, size, **kind), task=task, nan=0.15)
            if 1 < trees < 300:
                put(f"three_{trees}x{size}_nan", make(trees, size), task="three", nan=0.05)
        for features in (1, 2, 3, 100, 300):
            put(f"binary_30x6_{features}features", make(30, 6), features=features)
        put("ten_20x5", make(20, 5), task="ten", train_rows=2000)
        put("binary_1000x4", make(1000, 4), train_rows=2000)
        put("regression_1000x4", make(1000, 4, kind=regressor), task="regression")
        put("regression_50x8_counts", make(50, 8, kind=regressor), task="regression", kind="counts")
        put("binary_50x8_bits", make(50, 8), kind="bits")
        if family != "catboost":
            for opset in (9, 12, 13):
                put(f"three_20x5_opset{opset}", make(20, 5), task="three", target_opset=opset)
            put("binary_20x5_integers", make(20, 5), kind="counts", dtype=np.int64, trees=False)
            tree(family, "three_20x5_opset18", make(20, 5), task="three", nan=0.1, opset=18)
            for task in TASKS:
                tree(family, f"{task}_50x6_double", make(50, 6), task=task, dtype=np.float64, opset=15)
            model = make(50, 6, kind=regressor)
            tree(family, "regression_50x6_double", model, task="regression", dtype=np.float64, opset=15)
        if family != "xgboost":  # its labels are 0, 1, 2 always
            put("three_20x5_sparse_labels", make(20, 5), task="three", labels="sparse")
            for task in TASKS:
                put(f"{task}_20x5_words", make(20, 5), task=task, labels="words")


def lightgbms():
    put = lambda name, model, **fields: tree("lightgbm", name, model, lightgbm_onnx, **fields)
    regressor = lambda trees, leaves, **more: lgb(trees, leaves, kind=lightgbm.LGBMRegressor, **more)
    put("three_50x15_words_zipmap", lgb(50, 15), task="three", labels="words", zipmap=True)
    put("binary_50x15_zipmap", lgb(50, 15), zipmap=True)
    for rows in (100, 900):  # few leaves; a root only
        put(f"binary_5x31_{rows}_rows_a_leaf", lgb(5, 31, min_child_samples=rows))
        put(f"regression_5x31_{rows}_rows_a_leaf", regressor(5, 31, min_child_samples=rows), task="regression")
    put("binary_1000x31_nan", lgb(1000, 31), nan=0.1, features=30, train_rows=3000)
    model = regressor(100, 255, min_child_samples=3)
    put("regression_100x255_nan", model, task="regression", nan=0.1, features=30, train_rows=3000)
    put("regression_300x15_split", regressor(300, 15), task="regression", split=100)
    put("binary_20x400_deep", lgb(20, 400, min_child_samples=1), train_rows=3000)
    put("hundred_3x7", lgb(3, 7), task="hundred", train_rows=3000)
    put("binary_30x15_zero_as_missing", lgb(30, 15, zero_as_missing=True), nan=0.1)
    put("binary_30x15_no_missing", lgb(30, 15, use_missing=False), nan=0.1)
    for boosting, more in (("dart", {}), ("rf", {"subsample": 0.6, "subsample_freq": 1})):
        put(f"binary_100x15_{boosting}", lgb(100, 15, boosting_type=boosting, **more))
        put(f"regression_100x15_{boosting}", regressor(100, 15, boosting_type=boosting, **more), task="regression")
    for objective in ("regression_l1", "huber", "quantile", "poisson", "tweedie", "gamma"):
        put(f"{objective}_30x15", regressor(30, 15, objective=objective), task="positive")
    put("cross_entropy_30x15", lgb(30, 15, objective="cross_entropy"))
    put("one_vs_all_30x15", lgb(30, 15, objective="multiclassova"), task="three")

    categories = lambda name, model, **fields: put(
        f"{name}_categories", model, kind="categories", fit={"categorical_feature": [0, 2, 4, 6, 8]}, **fields
    )
    many = {"max_cat_to_onehot": 1, "cat_smooth": 1, "min_data_per_group": 5}
    for task in TASKS:
        categories(f"{task}_30x15", lgb(30, 15, **many), task=task, train_rows=2000)
    categories("binary_30x15_onehot", lgb(30, 15, max_cat_to_onehot=20), train_rows=2000)
    categories("binary_30x15_nan", lgb(30, 15, **many), train_rows=2000, nan=0.1)
    categories("regression_30x15", regressor(30, 15, **many), task="regression", train_rows=2000)


def xgboosts():
    put = lambda name, model, **fields: tree("xgboost", name, model, xgboost_onnx, **fields)
    regressor = lambda trees, depth, **more: xgb(trees, depth, kind=xgboost.XGBRegressor, **more)
    put("binary_50x4_base_score", xgb(50, 4, base_score=0.2))
    put("regression_50x4_base_score", regressor(50, 4, base_score=-3.5), task="regression")
    put("three_50x4_base_score", xgb(50, 4, base_score=0.2), task="three")
    put("binary_20x6_root_only", xgb(20, 6, gamma=1e9))
    put("regression_20x6_root_only", regressor(20, 6, gamma=1e9), task="regression")
    put("binary_1000x6_nan", xgb(1000, 6), nan=0.1, features=30, train_rows=3000)
    put("binary_10x20_deep", xgb(10, 20, min_child_weight=0, reg_lambda=0), train_rows=3000)
    put("binary_10x255_leaves", xgb(10, 0, max_leaves=255, grow_policy="lossguide", min_child_weight=0))
    put("binary_30x4_exact", xgb(30, 4, tree_method="exact"), nan=0.1)
    put("binary_30x4_hinge", xgb(30, 4, objective="binary:hinge"))
    put("binary_30x4_logitraw", xgb(30, 4, objective="binary:logitraw"))
    put("three_30x4_softmax", xgb(30, 4, objective="multi:softmax"), task="three")
    put("binary_30x4_dart", xgb(30, 4, booster="dart", rate_drop=0.2))
    put("two_30x4", regressor(30, 4), task="two")
    for task in TASKS:
        put(f"{task}_30x6_forest", xgb(30, 6, kind=xgboost.XGBRFClassifier), task=task)
    put("regression_30x6_forest", xgb(30, 6, kind=xgboost.XGBRFRegressor), task="regression")
    for objective in ("count:poisson", "reg:gamma", "reg:tweedie", "reg:absoluteerror", "reg:squaredlogerror"):
        put(f"{objective.split(':')[1]}_30x4", regressor(30, 4, objective=objective), task="positive")


def catboosts():
    put = lambda name, model, **fields: tree("catboost", name, model, catboost_onnx, **fields)
    regressor = lambda trees, depth, **more: cat(trees, depth, kind=catboost.CatBoostRegressor, **more)
    for policy in ("Depthwise", "Lossguide"):
        put(f"binary_30x6_{policy.lower()}", cat(30, 6, grow_policy=policy), nan=0.1)
    put("binary_30x6_nan_max", cat(30, 6, nan_mode="Max"), nan=0.1)
    put("binary_20x10", cat(20, 10))
    for loss in ("Poisson", "MAE", "Quantile:alpha=0.9"):
        put(f"{loss.split(':')[0].lower()}_30x4", regressor(30, 4, loss_function=loss), task="positive")
    put("two_30x4", regressor(30, 4, loss_function="MultiRMSE"), task="two")
    put("three_30x4_one_vs_all", cat(30, 4, loss_function="MultiClassOneVsAll"), task="three")


# Trees of scikit-learn


def forests():
    for family, classifier, regressor in (
        ("random_forest", RandomForestClassifier, RandomForestRegressor),
        ("extra_trees", ExtraTreesClassifier, ExtraTreesRegressor),
        ("gradient_boosting", GradientBoostingClassifier, GradientBoostingRegressor),
    ):
        make = lambda kind=classifier, trees=20, depth=5: kind(n_estimators=trees, max_depth=depth, random_state=SEED)
        put = lambda name, model, **fields: tree(family, name, model, **fields)
        for trees, depth in ((1, 1), (10, 4), (100, 6)):
            for task in TASKS:
                put(f"{task}_{trees}x{depth}", make(trees=trees, depth=depth), task=task)
            put(f"regression_{trees}x{depth}", make(regressor, trees, depth), task="regression")
        for features in (1, 2, 100, 300):
            put(f"binary_20x5_{features}features", make(), features=features)
        for task in TASKS:
            put(f"{task}_20x5_words", make(), task=task, labels="words")
            put(f"{task}_20x5_double", make(), task=task, dtype=np.float64)
        put("regression_20x5_double", make(regressor), task="regression", dtype=np.float64)
        put("binary_20x5_zipmap", make(), labels="words", zipmap=True)
        put("three_20x5_columns", make(), task="three", zipmap="columns")
        put("three_20x5_sparse_labels", make(), task="three", labels="sparse")
        for opset, ml in ((12, 1), (15, 2), (18, 3)):
            put(f"three_20x5_opset{opset}", make(), task="three", opset=opset, ml=ml)
            put(f"regression_20x5_opset{opset}", make(regressor), task="regression", opset=opset, ml=ml)
        if family == "gradient_boosting":
            for task in TASKS:
                put(f"{task}_20x5_raw", make(), task=task, raw_scores=True)
        else:
            put("binary_20x5_nan", make(), nan=0.1)
            put("two_20x5", make(regressor), task="two")
            put("binary_20x20", make(depth=20), train_rows=3000)
            put("ten_20x8", make(depth=8), task="ten")
            put("regression_5_to_the_end", make(regressor, 5, None), task="regression", train_rows=3000)
    tree("random_forest", "binary_1000x6", RandomForestClassifier(1000, max_depth=6, random_state=SEED))

    more = {"n_estimators": 30, "random_state": SEED}
    for loss in ("huber", "quantile", "absolute_error"):
        tree("gradient_boosting", f"{loss}_30x3", GradientBoostingRegressor(loss=loss, **more), task="regression")
    tree("gradient_boosting", "exponential_30x3", GradientBoostingClassifier(loss="exponential", **more))
    tree("gradient_boosting", "init_zero_30x3", GradientBoostingClassifier(init="zero", **more))


def hist_gradient_boosting():
    more = {"early_stopping": False, "random_state": SEED}
    for nan, suffix in ((0, ""), (0.1, "_nan")):
        put = lambda name, model, **fields: tree("hist_gradient_boosting", f"{name}{suffix}", model, nan=nan, **fields)
        for trees, leaves in ((1, 2), (20, 31), (100, 15), (20, 255)):
            size = {"max_iter": trees, "max_leaf_nodes": leaves, **more}
            for task in TASKS:
                put(f"{task}_{trees}x{leaves}", HistGradientBoostingClassifier(**size), task=task)
            put(f"regression_{trees}x{leaves}", HistGradientBoostingRegressor(**size), task="regression")
        size = {"max_iter": 20, **more}
        put("binary_20x31_double", HistGradientBoostingClassifier(**size), dtype=np.float64)
        put("poisson_20x31", HistGradientBoostingRegressor(loss="poisson", **size), task="positive")
        model = HistGradientBoostingClassifier(categorical_features=[0, 2, 4], **size)
        put("binary_categories", model, kind="categories")


def few_trees():
    family = "decision_tree"
    make = lambda depth, kind=DecisionTreeClassifier: kind(max_depth=depth, random_state=SEED)
    for depth in (1, 5, 20):
        tree(family, f"binary_depth{depth}", make(depth))
        tree(family, f"three_depth{depth}_words", make(depth), task="three", labels="words", train_rows=3000)
        model = make(depth, DecisionTreeRegressor)
        tree(family, f"regression_depth{depth}", model, task="regression", train_rows=3000)
    tree(family, "binary_depth8_nan", make(8), nan=0.1)
    tree(family, "binary_depth8_double", make(8), dtype=np.float64)
    tree(family, "binary_depth8_integers", make(8), kind="counts", dtype=np.int64, trees=False)
    tree(family, "two_depth8", make(8, DecisionTreeRegressor), task="two")
    tree(family, "extra_binary_depth8", make(8, ExtraTreeClassifier))

    more = {"n_estimators": 20, "random_state": SEED}
    for task in TASKS:
        for opset in (12, 15, 18):
            tree("ada_boost", f"{task}_20x3_opset{opset}", AdaBoostClassifier(make(3), **more), task=task, opset=opset)
    add("ada_boost", "binary_20_logistic", AdaBoostClassifier(LogisticRegression(), **more))
    model = AdaBoostRegressor(make(4, DecisionTreeRegressor), **more)
    tree("ada_boost", "regression_20x4", model, task="regression")
    for trees in (5, 50):
        tree("isolation_forest", f"{trees}", IsolationForest(n_estimators=trees, random_state=SEED), task="none")
    tree("isolation_forest", "20_contamination", IsolationForest(contamination=0.1, **more), task="none")
    tree("isolation_forest", "20_double", IsolationForest(**more), task="none", dtype=np.float64)
    tree("isolation_forest", "20_300features", IsolationForest(**more), task="none", features=300)

    members = [("tree", make(4)), ("line", LogisticRegression(max_iter=500))]
    for task in TASKS:
        tree("bagging", f"{task}_20x4", BaggingClassifier(make(4), **more), task=task)
        model = BaggingClassifier(LogisticRegression(), max_features=0.5, **more)
        add("bagging", f"{task}_20_logistic", model, task=task)
        for voting in ("soft", "hard"):
            model = VotingClassifier(members, voting=voting, flatten_transform=False)
            add("voting", f"{task}_{voting}", model, task=task)
        add("stacking", task, StackingClassifier(members, cv=3), task=task)
        add("stacking", f"{task}_passthrough", StackingClassifier(members, cv=3, passthrough=True), task=task)
    members = [("tree", make(4, DecisionTreeRegressor)), ("line", Ridge())]
    model = BaggingRegressor(make(4, DecisionTreeRegressor), **more)
    tree("bagging", "regression_20x4", model, task="regression")
    add("voting", "regression", VotingRegressor(members, weights=np.array([1, 3])), task="regression")
    add("stacking", "regression", StackingRegressor(members, cv=3), task="regression")


# Other models of scikit-learn


def logistic(**more):
    return LogisticRegression(max_iter=500, **more)


def linear():
    for features in (1, 2, 10, 100, 300):
        add("logistic", f"binary_{features}features", logistic(), features=features)
    for task in TASKS:
        for name, model, fields in (
            ("words", logistic(), WORDS),
            ("words_zipmap", logistic(), {"zipmap": True, **WORDS}),
            ("sparse_labels_zipmap", logistic(), {"labels": "sparse", "zipmap": True}),
            ("columns", logistic(), {"zipmap": "columns"}),
            ("raw", logistic(), {"raw_scores": True}),
            ("double", logistic(), {"dtype": np.float64}),
            ("integers", logistic(), {"kind": "counts", "dtype": np.int64}),
            ("opset12", logistic(), {"opset": 12, "ml": 1}),
            ("opset15", logistic(), {"opset": 15, "ml": 2}),
            ("opset18", logistic(), {"opset": 18}),
            ("no_intercept", logistic(fit_intercept=False), {}),
            ("l1", logistic(penalty="l1", solver="saga", C=0.1), {}),
            ("liblinear", logistic(solver="liblinear"), {}),
            ("one_vs_rest", OneVsRestClassifier(logistic()), {}),
            ("one_vs_one", OneVsOneClassifier(logistic()), {}),
        ):
            add("logistic", f"{task}_{name}", model, task=task, **fields)
        for name, model, fields in (
            ("ridge", RidgeClassifier(), {}),
            ("perceptron", Perceptron(random_state=SEED), {}),
            ("sgd_hinge", SGDClassifier(random_state=SEED), {}),
            ("sgd_log", SGDClassifier(loss="log_loss", random_state=SEED), {}),
            ("sgd_log_raw", SGDClassifier(loss="log_loss", random_state=SEED), {"raw_scores": True}),
            ("sgd_modified_huber", SGDClassifier(loss="modified_huber", random_state=SEED), {}),
            ("linear_svc", LinearSVC(random_state=SEED), {}),
            ("linear_svc_words", LinearSVC(random_state=SEED), WORDS),
            ("linear_svc_double", LinearSVC(random_state=SEED), {"dtype": np.float64}),
            ("lda", LinearDiscriminantAnalysis(), {}),
            ("lda_shrinkage", LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"), {}),
            ("qda", QuadraticDiscriminantAnalysis(), {}),
        ):
            add("linear_classifier", f"{task}_{name}", model, task=task, **fields)
    add("logistic", "ten", logistic(), task="ten", train_rows=3000)

    for name, model, fields in (
        ("ols", LinearRegression(), {}),
        ("ridge", Ridge(), {}),
        ("lasso", Lasso(0.1), {}),
        ("elastic_net", ElasticNet(0.1), {}),
        ("lasso_lars", LassoLars(0.1), {}),
        ("huber", HuberRegressor(), {}),
        ("bayesian_ridge", BayesianRidge(), {}),
        ("ard", ARDRegression(), {}),
        ("sgd", SGDRegressor(random_state=SEED), {}),
        ("svr", LinearSVR(random_state=SEED), {}),
        ("pls", PLSRegression(3), {}),
        ("double", LinearRegression(), {"dtype": np.float64}),
        ("integers", LinearRegression(), {"kind": "counts", "dtype": np.int64}),
        ("1features", LinearRegression(), {"features": 1}),
        ("300features", LinearRegression(), {"features": 300}),
        ("opset12", LinearRegression(), {"opset": 12, "ml": 1}),
        ("opset18", LinearRegression(), {"opset": 18}),
        ("poisson", PoissonRegressor(), {"task": "positive"}),
        ("gamma", GammaRegressor(), {"task": "positive"}),
        ("tweedie", TweedieRegressor(power=1.5), {"task": "positive"}),
        ("two", LinearRegression(), {"task": "two"}),
        ("two_double", Ridge(), {"task": "two", "dtype": np.float64}),
        ("two_lasso", MultiTaskLasso(0.1), {"task": "two"}),
        ("two_models", MultiOutputRegressor(Ridge()), {"task": "two"}),
    ):
        add("linear_regression", name, model, **{"task": "regression", **fields})


def vector_machines():
    put = lambda name, model, **fields: add("svm", name, model, train_rows=300, **fields)
    sure = {"probability": True, "random_state": SEED}
    for kernel in ("linear", "rbf", "poly", "sigmoid"):
        # Small weights: the sum of large ones, which cancel out, depends on its order.
        more = {"kernel": kernel, "coef0": 0.5, "gamma": 0.05, "C": 0.02 if kernel == "linear" else 1}
        for task in TASKS:
            put(f"svc_{task}_{kernel}", SVC(**more), task=task)
            put(f"svc_{task}_{kernel}_probability", SVC(**more, **sure), task=task)
        put(f"svr_{kernel}", SVR(**more), task="regression")
        put(f"one_class_{kernel}", OneClassSVM(kernel=kernel, nu=0.1), task="none", kind="counts")
    for name, model, fields in (
        ("svc_three_rbf_words", SVC(), {"task": "three", **WORDS}),
        ("svc_three_rbf_zipmap", SVC(**sure), {"task": "three", "zipmap": True}),
        ("svc_binary_rbf_words_zipmap", SVC(**sure), {"zipmap": True, **WORDS}),
        ("svc_binary_rbf_raw", SVC(**sure), {"raw_scores": True}),
        ("svc_binary_poly2", SVC(kernel="poly", degree=2, gamma=0.2, coef0=1), {}),
        ("svc_binary_rbf_100features", SVC(), {"features": 100}),
        ("svc_three_rbf_one_vs_one", SVC(decision_function_shape="ovo"), {"task": "three"}),
        ("svc_ten_rbf", SVC(), {"task": "ten"}),
        ("svc_binary_rbf_double", SVC(), {"dtype": np.float64}),
        ("svc_three_rbf_opset12", SVC(**sure), {"task": "three", "opset": 12, "ml": 1}),
        ("nu_svc_binary", NuSVC(nu=0.3), {}),
        ("nu_svc_three_probability", NuSVC(nu=0.3, **sure), {"task": "three"}),
        ("nu_svr", NuSVR(), {"task": "regression"}),
        ("svr_rbf_double", SVR(), {"task": "regression", "dtype": np.float64}),
    ):
        put(name, model, **fields)


def others():
    for task in TASKS:
        for name, model, fields in (
            ("gaussian", GaussianNB(), {}),
            ("gaussian_words_zipmap", GaussianNB(), {"zipmap": True, **WORDS}),
            ("gaussian_double", GaussianNB(), {"dtype": np.float64}),
            ("bernoulli", BernoulliNB(), {"kind": "bits"}),
            ("bernoulli_binarize", BernoulliNB(binarize=0.5), {}),
            ("multinomial", MultinomialNB(), {"kind": "counts"}),
            ("complement", ComplementNB(), {"kind": "counts"}),
        ):
            add("naive_bayes", f"{task}_{name}", model, task=task, **fields)
        for method in ("sigmoid", "isotonic"):
            for name, base in (("tree", DecisionTreeClassifier(max_depth=4)), ("linear_svc", LinearSVC())):
                model = CalibratedClassifierCV(base, method=method, cv=3)
                add("calibrated", f"{task}_{method}_{name}", model, task=task)

    for clusters in (2, 8):
        add("k_means", f"{clusters}", KMeans(clusters, random_state=SEED), task="none")
        add("k_means", f"{clusters}_mini_batch", MiniBatchKMeans(clusters, random_state=SEED), task="none")
    add("k_means", "8_double", KMeans(8, random_state=SEED), task="none", dtype=np.float64)
    add("k_means", "8_opset12", KMeans(8, random_state=SEED), task="none", opset=12, ml=1)
    add("mixture", "gaussian_3", GaussianMixture(3, random_state=SEED), task="none")

    for activation in ("relu", "tanh", "logistic", "identity"):
        add("mlp", f"three_{activation}", MLPClassifier((16, 8), activation=activation, **FEW), task="three")
    mlp = lambda kind=MLPClassifier: kind(hidden_layer_sizes=(16,), **FEW)
    add("mlp", "binary", mlp())
    add("mlp", "binary_words_zipmap", mlp(), labels="words", zipmap=True)
    add("mlp", "binary_double", mlp(), dtype=np.float64)
    add("mlp", "binary_300features", mlp(), features=300)
    add("mlp", "three_opset12", mlp(), task="three", opset=12, ml=1)
    add("mlp", "regression", mlp(MLPRegressor), task="regression")
    add("mlp", "regression_double", mlp(MLPRegressor), task="regression", dtype=np.float64)
    add("mlp", "two", mlp(MLPRegressor), task="two")

    small = {"features": 4, "train_rows": 200}
    for neighbors, weights in ((1, "uniform"), (5, "uniform"), (5, "distance")):
        for task in TASKS:
            model = KNeighborsClassifier(neighbors, weights=weights)
            add("knn", f"{task}_{neighbors}_{weights}", model, task=task, **small)
        model = KNeighborsRegressor(neighbors, weights=weights)
        add("knn", f"regression_{neighbors}_{weights}", model, task="regression", **small)
    model = GaussianProcessRegressor(alpha=0.5)
    add("gaussian_process", "regression_double", model, task="regression", dtype=np.float64, **small)


def preprocessing():
    for name, model, fields in (
        ("standard_scaler", StandardScaler(), {}),
        ("standard_scaler_no_mean", StandardScaler(with_mean=False), {}),
        ("min_max_scaler", MinMaxScaler((-1, 1)), {}),
        ("min_max_scaler_clip", MinMaxScaler(clip=True), {}),
        ("max_abs_scaler", MaxAbsScaler(), {}),
        ("robust_scaler", RobustScaler(), {}),
        ("normalizer_l1", Normalizer("l1"), {}),
        ("normalizer_l2", Normalizer("l2"), {}),
        ("normalizer_max", Normalizer("max"), {}),
        ("bins_onehot", KBinsDiscretizer(5, encode="onehot-dense", quantile_method="averaged_inverted_cdf"), {}),
        ("bins_ordinal", KBinsDiscretizer(5, encode="ordinal", strategy="uniform"), {}),
        ("polynomial_2", PolynomialFeatures(2), {"features": 6}),
        ("polynomial_3", PolynomialFeatures(3, interaction_only=True, include_bias=False), {"features": 5}),
        ("imputer_mean", SimpleImputer(), {"nan": 0.2}),
        ("imputer_median_double", SimpleImputer(strategy="median"), {"nan": 0.2, "dtype": np.float64}),
        ("imputer_constant", SimpleImputer(strategy="constant", fill_value=-1), {"nan": 0.2}),
        ("imputer_knn", KNNImputer(n_neighbors=3), {"nan": 0.1, "features": 6, "train_rows": 100, "opset": 18}),
        ("pca", PCA(4), {}),
        ("pca_whiten_double", PCA(4, whiten=True), {"dtype": np.float64}),
        ("incremental_pca", IncrementalPCA(4), {}),
        ("truncated_svd", TruncatedSVD(4, random_state=SEED), {}),
        ("power", PowerTransformer(), {}),
        ("quantile", QuantileTransformer(n_quantiles=50, random_state=SEED), {}),
        ("select_k_best", SelectKBest(k=4), {}),
        ("variance_threshold", VarianceThreshold(0.1), {}),
    ):
        add("transformer", name, model, **fields)
        add("pipeline", f"{name}_logistic", make_pipeline(model, logistic()), **fields)
    add("transformer", "binarizer", Binarizer(threshold=0.3))
    add("transformer", "imputer_indicator", SimpleImputer(add_indicator=True), nan=0.2)
    add("transformer", "kernel_pca_rbf", KernelPCA(4, kernel="rbf", random_state=SEED), train_rows=200)
    add("transformer", "union", FeatureUnion([("pca", PCA(3)), ("scaler", StandardScaler())]))
    for name, scaler in (("standard", StandardScaler()), ("robust", RobustScaler())):
        forest = RandomForestRegressor(20, max_depth=5, random_state=SEED)
        steps = make_pipeline(SimpleImputer(), scaler, forest)
        add("pipeline", f"{name}_forest_nan", steps, task="regression", nan=0.1)
        steps = make_pipeline(scaler, PCA(5), SVC(probability=True, random_state=SEED))
        add("pipeline", f"{name}_pca_svc", steps, train_rows=500)
        add("pipeline", f"{name}_mlp", make_pipeline(scaler, MLPClassifier((8,), **FEW)))


def people():
    """Numbers, words and integers, each a column."""
    numbers, words, integers = ["age", "income", "balance"], ["city", "plan"], ["region", "visits"]
    onehot_of = lambda columns: (OneHotEncoder(handle_unknown="ignore", sparse_output=False), columns)
    onehot = onehot_of([*words, "region"])
    ordinal = (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), words)
    target = (TargetEncoder(random_state=SEED), words)
    scaled = (make_pipeline(SimpleImputer(), StandardScaler()), numbers)
    # Not scaled for trees: a rounded number may lie on the other side of a threshold.
    filled = (SimpleImputer(strategy="median"), numbers)
    kept = ("passthrough", numbers)
    counts = (StandardScaler(), integers)
    steps = lambda *parts: ColumnTransformer([(f"part{i}", *part) for i, part in enumerate(parts)])

    fixed = {"n_estimators": 20, "random_state": SEED}
    forest = lambda: RandomForestClassifier(max_depth=6, **fixed)
    hist = HistGradientBoostingClassifier(max_iter=20, random_state=SEED)
    booster = {"opset": 15}
    regression = {"task": "regression"}
    for name, parts, last, fields in (
        ("onehot_logistic", (scaled, onehot), logistic(), {}),
        ("onehot_words_logistic", (scaled, onehot_of(words)), logistic(), {}),
        ("onehot_integers_logistic", (scaled, onehot_of(["region"])), logistic(), {}),
        ("onehot_counts_logistic", (scaled, onehot_of(words), counts), logistic(), {}),
        ("onehot_logistic_labels", (scaled, onehot), logistic(), WORDS),
        ("onehot_logistic_zipmap", (scaled, onehot), logistic(), WORDS | {"zipmap": True}),
        ("onehot_logistic_three", (scaled, onehot), logistic(), {"task": "three"}),
        ("onehot_logistic_opset12", (scaled, onehot), logistic(), {"opset": 12, "ml": 1}),
        ("onehot_logistic_opset18", (scaled, onehot), logistic(), {"opset": 18}),
        ("onehot_logistic_no_nan", (scaled, onehot), logistic(), {"nan": 0}),
        ("onehot_ridge", (scaled, onehot), Ridge(), regression),
        ("onehot_forest", (filled, onehot), forest(), {}),
        ("onehot_boosting", (filled, onehot), GradientBoostingClassifier(**fixed), {}),
        ("onehot_mlp", (scaled, onehot), MLPClassifier((16,), **FEW), {"task": "three"}),
        ("onehot_lightgbm", (filled, onehot), lgb(20, 31), booster),
        ("onehot_lightgbm_kept_nan", (kept, onehot), lgb(20, 31), booster),
        ("onehot_xgboost", (filled, onehot), xgb(20, 6), booster),
        ("onehot_hist_kept_nan", (kept, onehot), hist, {}),
        ("ordinal_logistic", (scaled, ordinal), logistic(), {}),
        ("ordinal_forest", (filled, ordinal), forest(), {}),
        ("ordinal_lightgbm", (filled, ordinal), lgb(20, 31), booster),
        ("ordinal_lightgbm_regression", (filled, ordinal), lgb(20, 31, lightgbm.LGBMRegressor), booster | regression),
        ("ordinal_xgboost_three", (filled, ordinal), xgb(20, 6), booster | {"task": "three"}),
        ("ordinal_xgboost_kept_nan", (kept, ordinal), xgb(20, 6), booster),
        ("target_logistic", (scaled, target), logistic(), {}),
    ):
        add("columns", name, make_pipeline(steps(*parts), last), **{"kind": "people", "nan": 0.1, **fields})
    add("columns", "onehot", steps(scaled, onehot), kind="people", nan=0.1)
    add("columns", "ordinal", steps(scaled, ordinal), kind="people", nan=0.1)


register_boosters()
for part in (
    (boosters, lightgbms, xgboosts, catboosts)
    + (forests, hist_gradient_boosting, few_trees)
    + (linear, vector_machines, others, preprocessing, people)
):
    part()
