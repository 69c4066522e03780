"""scikit-learn by skl2onnx: estimators on its bundled data, and pipelines over tables of numbers and texts.

Usage: python sklearn_models.py OUT [--only SUBSTRING]
"""

import re

import numpy as np
import pandas as pd
import pyarrow as pa
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn import datasets
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_selector
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import PCA, IncrementalPCA, KernelPCA, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    AdaBoostRegressor,
    BaggingClassifier,
    BaggingRegressor,
    ExtraTreesClassifier,
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
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.feature_selection import RFE, SelectKBest, VarianceThreshold
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, DotProduct, Matern, WhiteKernel
from sklearn.impute import KNNImputer, MissingIndicator, SimpleImputer
from sklearn.linear_model import (
    BayesianRidge,
    ElasticNet,
    GammaRegressor,
    HuberRegressor,
    Lasso,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    Perceptron,
    PoissonRegressor,
    QuantileRegressor,
    RANSACRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    TheilSenRegressor,
    TweedieRegressor,
)
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, MultiOutputRegressor, RegressorChain
from sklearn.naive_bayes import BernoulliNB, CategoricalNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.neighbors import (
    KNeighborsClassifier,
    KNeighborsRegressor,
    LocalOutlierFactor,
    NearestCentroid,
    RadiusNeighborsRegressor,
)
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    LabelBinarizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC, SVR, LinearSVC, NuSVC, OneClassSVM
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from cases import ROWS, SEED, Suite, random

PICK = random().permutation(150)[:ROWS]


# Estimators of one matrix of numbers


def scaled(estimator):
    return make_pipeline(StandardScaler(), estimator)


def small_forest(**options):
    return RandomForestClassifier(10, max_depth=4, random_state=SEED, **options)


def voting(**options):
    return VotingClassifier([("f", small_forest()), ("l", scaled(LogisticRegression()))], **options)


CLASSIFIERS = {
    "logistic": scaled(LogisticRegression()),
    "logistic_cv": scaled(LogisticRegressionCV(cv=3)),
    "sgd": scaled(SGDClassifier(loss="log_loss", random_state=SEED)),
    "ridge_classifier": scaled(RidgeClassifier()),
    "perceptron": scaled(Perceptron(random_state=SEED)),
    "linear_svc": scaled(LinearSVC()),
    "linear_svc_with_zipmap": scaled(LinearSVC()),
    "svc": scaled(SVC()),
    "svc_probability": scaled(SVC(probability=True, random_state=SEED)),
    "svc_polynomial": scaled(SVC(kernel="poly", probability=True, random_state=SEED)),
    "nu_svc": scaled(NuSVC(probability=True, random_state=SEED)),
    "knn": KNeighborsClassifier(5),
    "knn_manhattan": scaled(KNeighborsClassifier(5, metric="manhattan")),
    "knn_by_distance": scaled(KNeighborsClassifier(5, weights="distance", metric="manhattan")),
    "nearest_centroid": NearestCentroid(),
    "tree": DecisionTreeClassifier(max_depth=4, random_state=SEED),
    "forest": small_forest(),
    "extra_trees": ExtraTreesClassifier(10, max_depth=4, random_state=SEED),
    "gradient_boosting": GradientBoostingClassifier(n_estimators=10, random_state=SEED),
    "hist_gradient_boosting": HistGradientBoostingClassifier(max_iter=10, random_state=SEED),
    "ada_boost": AdaBoostClassifier(
        DecisionTreeClassifier(max_depth=2, random_state=SEED), n_estimators=10, random_state=SEED
    ),
    "bagging": BaggingClassifier(LogisticRegression(max_iter=500), 5, max_features=0.8, random_state=SEED),
    "gaussian_nb": GaussianNB(),
    "multinomial_nb": MultinomialNB(),
    "complement_nb": ComplementNB(),
    "bernoulli_nb": BernoulliNB(binarize=3.0),
    "categorical_nb": make_pipeline(KBinsDiscretizer(4, encode="ordinal"), CategoricalNB(min_categories=4)),
    "linear_discriminant": LinearDiscriminantAnalysis(),
    "quadratic_discriminant": QuadraticDiscriminantAnalysis(),
    "mlp": scaled(MLPClassifier((8,), max_iter=300, random_state=SEED)),
    "voting_soft": voting(voting="soft", flatten_transform=False),
    "voting_hard": voting(flatten_transform=False),
    "voting_flattened": voting(voting="soft"),
    "stacking": StackingClassifier(
        [("f", small_forest()), ("k", KNeighborsClassifier(3)), ("l", scaled(LogisticRegression()))]
    ),
    "stacking_passthrough": StackingClassifier([("f", small_forest())], passthrough=True),
    "calibrated_sigmoid": scaled(CalibratedClassifierCV(LinearSVC(), cv=3)),
    "calibrated_pipeline": CalibratedClassifierCV(scaled(LinearSVC()), cv=3),
    "calibrated_isotonic": CalibratedClassifierCV(small_forest(), method="isotonic", cv=3),
    "one_vs_rest": OneVsRestClassifier(scaled(LogisticRegression())),
    "one_vs_one": OneVsOneClassifier(LogisticRegression(max_iter=500)),
    "one_vs_one_of_words": OneVsOneClassifier(LogisticRegression(max_iter=500)),
    "calibrated_forest": CalibratedClassifierCV(small_forest(), cv=3),
    "gaussian_process": scaled(GaussianProcessClassifier(1.0 * RBF(1.0), random_state=SEED)),
    "gaussian_process_of_three": scaled(GaussianProcessClassifier(1.0 * RBF(1.0), random_state=SEED)),
    "grid_search": GridSearchCV(scaled(SVC(probability=True, random_state=SEED)), {"svc__C": [0.5, 1]}, cv=3),
    "best_of_features": make_pipeline(PolynomialFeatures(2), SelectKBest(k=6), StandardScaler(), LogisticRegression()),
    "union": make_pipeline(FeatureUnion([("p", PCA(2)), ("s", StandardScaler())]), LogisticRegression()),
}

REGRESSORS = {
    "linear": LinearRegression(),
    "ridge": scaled(Ridge()),
    "lasso": scaled(Lasso(1.0)),
    "elastic_net": scaled(ElasticNet(0.1)),
    "huber": scaled(HuberRegressor(max_iter=1000)),
    "ransac": RANSACRegressor(LinearRegression(), random_state=SEED),
    "theil_sen": TheilSenRegressor(random_state=SEED),
    "bayesian_ridge": scaled(BayesianRidge()),
    "poisson": scaled(PoissonRegressor()),
    "gamma": scaled(GammaRegressor()),
    "tweedie": scaled(TweedieRegressor(power=1.5)),
    "quantile_regressor": scaled(QuantileRegressor(quantile=0.8, alpha=0.01)),
    "svr": scaled(SVR(C=10)),
    "knn_regressor": scaled(KNeighborsRegressor(5)),
    "knn_regressor_by_distance": scaled(KNeighborsRegressor(5, weights="distance")),
    "radius_neighbours": scaled(RadiusNeighborsRegressor(4.0)),
    "tree_regressor": DecisionTreeRegressor(max_depth=5, random_state=SEED),
    "forest_regressor": RandomForestRegressor(10, max_depth=5, random_state=SEED),
    "gradient_boosting_regressor": GradientBoostingRegressor(n_estimators=20, random_state=SEED),
    "hist_gradient_boosting_regressor": HistGradientBoostingRegressor(max_iter=20, random_state=SEED),
    "hist_gradient_boosting_quantile": HistGradientBoostingRegressor(
        loss="quantile", quantile=0.8, max_iter=20, random_state=SEED
    ),
    "hist_gradient_boosting_poisson": HistGradientBoostingRegressor(loss="poisson", max_iter=20, random_state=SEED),
    "ada_boost_regressor": AdaBoostRegressor(n_estimators=10, random_state=SEED),
    "bagging_regressor": BaggingRegressor(n_estimators=5, random_state=SEED),
    "voting_regressor": VotingRegressor(
        [("l", LinearRegression()), ("f", RandomForestRegressor(5, max_depth=4, random_state=SEED))]
    ),
    "stacking_regressor": StackingRegressor(
        [("l", scaled(Ridge())), ("f", RandomForestRegressor(5, max_depth=4, random_state=SEED))]
    ),
    "mlp_regressor": scaled(MLPRegressor(hidden_layer_sizes=(16,), max_iter=400, random_state=SEED)),
    "gaussian_process_regressor": scaled(GaussianProcessRegressor(Matern(2.0) + WhiteKernel(1.0), normalize_y=True)),
    "gaussian_process_dot": scaled(GaussianProcessRegressor(DotProduct() + WhiteKernel(1.0))),
    "partial_least_squares": PLSRegression(3),
    "transformed_target": TransformedTargetRegressor(scaled(Ridge()), func=np.log1p, inverse_func=np.expm1),
    "polynomial_regression": make_pipeline(StandardScaler(), PolynomialFeatures(2), Ridge()),
    "spline_regression": make_pipeline(SplineTransformer(), Ridge()),
    "eliminated_features": make_pipeline(StandardScaler(), RFE(Ridge(), n_features_to_select=4), Ridge()),
}

TRANSFORMERS = {
    "min_max": MinMaxScaler(),
    "max_abs": MaxAbsScaler(),
    "robust": RobustScaler(),
    "normalizer": Normalizer(),
    "binarizer": Binarizer(threshold=3.0),
    "power": PowerTransformer(),
    "quantile": QuantileTransformer(n_quantiles=20),
    "bins": KBinsDiscretizer(5, encode="ordinal"),
    "polynomial": PolynomialFeatures(2, interaction_only=True),
    "pca": scaled(PCA(2)),
    "whitened": scaled(PCA(2, whiten=True)),
    "incremental_pca": scaled(IncrementalPCA(2)),
    "kernel_pca": scaled(KernelPCA(2, kernel="rbf", gamma=0.1)),
    "svd": TruncatedSVD(2, random_state=SEED),
    "threshold": VarianceThreshold(0.3),
    "function": FunctionTransformer(),
}

# Their answer is 1 or -1, and how far within.
OUTLIERS = {
    "isolation_forest": IsolationForest(n_estimators=20, random_state=SEED),
    "outlier_factor": LocalOutlierFactor(novelty=True),
    "one_class_svm": scaled(OneClassSVM(nu=0.1)),
}

CLUSTERS = {
    "k_means": scaled(KMeans(3, random_state=SEED, n_init=1)),
    "k_means_in_batches": scaled(MiniBatchKMeans(3, random_state=SEED, n_init=1)),
    "mixture": scaled(GaussianMixture(3, random_state=SEED)),
    "bayesian_mixture": scaled(BayesianGaussianMixture(n_components=3, random_state=SEED)),
}

IRIS = ["sepal_length", "sepal_width", "petal_length", "petal_width"]


# Probabilities as a matrix.
NO_MAP = {"zipmap": False}
# What README.md does not do: with it there is no file.
OPTIONS = {"linear_svc": {LinearSVC: {}}, "tfidf_svc": {LinearSVC: {}}}
# Outputs with their rows second: one label of [1, N].
AXES = {"quadratic_discriminant": {0: 1}}
LABELS = {"gaussian_process": lambda codes, words: words == "virginica", "one_vs_one": lambda codes, words: codes}


def write(onnx_model, path):
    path.write_bytes(onnx_model.SerializeToString())


def convert(model, sample, options=None):
    """As README.md does."""
    # The newest of ai.onnx.ml that an IsolationForest allows.
    opsets = {"": 18, "ai.onnx.ml": 3} if isinstance(model, IsolationForest) else None
    return lambda path: write(to_onnx(model, sample[:1], options=options, target_opset=opsets), path)


def matrices(suite):
    x, codes, words = iris()
    rows, features = x[PICK], {"X": IRIS}
    for name, model in CLASSIFIERS.items():
        if suite.wants(name):
            model.fit(x, LABELS[name](codes, words) if name in LABELS else words)
            scores = next((method for method in ("predict_proba", "decision_function") if hasattr(model, method)), "")
            expected = [model.predict(rows), getattr(model, scores)(rows) if scores else None]
            export = convert(model, x, OPTIONS.get(name, NO_MAP))
            suite.add(name, export, {"X": rows}, expected, features=features, axes=AXES.get(name))
    for name, model in TRANSFORMERS.items():
        if suite.wants(name):
            model.fit(x, codes)
            suite.add(name, convert(model, x), {"X": rows}, [model.transform(rows)], features=features)
    for name, model in OUTLIERS.items():
        if suite.wants(name):
            model.fit(x)
            expected = [model.predict(rows), model.decision_function(rows)]
            suite.add(name, convert(model, x), {"X": rows}, expected, features=features)
    for name, model in CLUSTERS.items():
        if suite.wants(name):
            model.fit(x)
            scores = model.predict_proba if "mixture" in name else model.transform
            suite.add(name, convert(model, x), {"X": rows}, [model.predict(rows), scores(rows)], features=features)
    doubles = x.astype(float)
    model = LocalOutlierFactor(novelty=True).fit(doubles)
    expected = [model.predict(doubles[PICK]), model.decision_function(doubles[PICK])]
    suite.add("outlier_factor_of_doubles", convert(model, doubles), {"X": doubles[PICK]}, expected, features=features)
    data = datasets.load_diabetes(scaled=False)
    x, target, names = data.data.astype(np.float32), data.target, data.feature_names
    for name, model in REGRESSORS.items():
        if suite.wants(name):
            model.fit(x, target)
            suite.add(name, convert(model, x), {"X": x[PICK]}, [model.predict(x[PICK])], features={"X": names})


def iris():
    data = datasets.load_iris()
    return data.data.astype(np.float32), data.target, data.target_names.astype(object)[data.target]


# What gives several answers, or maps


def several_answers(suite):
    x, codes, words = iris()
    rows = x[PICK]
    features = {"features": {"X": IRIS}}
    both = np.column_stack([codes, np.digitize(x[:, 0], [5.4, 6.3])])
    forest = small_forest().fit(x, both)
    # A matrix for each label: the rows are second.
    expected = [forest.predict(rows), np.stack(forest.predict_proba(rows), axis=1)]
    suite.add("two_labels_forest", convert(forest, x, NO_MAP), {"X": rows}, expected, axes={1: 1}, **features)
    for name, multiple in (
        ("multi_output_classifier", MultiOutputClassifier(LogisticRegression(max_iter=500))),
        ("multi_output_forest", MultiOutputClassifier(small_forest())),
        ("multi_output_pipeline", MultiOutputClassifier(scaled(LogisticRegression()))),
    ):
        multiple.fit(x, np.column_stack([codes, codes > 0]))
        # For each label a list of its classes' probabilities.
        expected = [multiple.predict(rows), multiple.predict_proba(rows)]
        suite.add(name, convert(multiple, x, NO_MAP), {"X": rows}, expected, **features)
    hot = np.eye(3, dtype=int)[codes]
    for name, model in (
        ("multilabel_mlp", scaled(MLPClassifier((8,), max_iter=300, random_state=SEED))),
        ("multilabel_knn", KNeighborsClassifier(3)),
        ("multilabel_one_vs_rest", OneVsRestClassifier(LogisticRegression())),
        ("classifier_chain", ClassifierChain(LogisticRegression(max_iter=500))),
    ):
        model.fit(x, hot)
        scores = model.predict_proba(rows)
        by_label = isinstance(scores, list)
        expected = [model.predict(rows), np.stack(scores, axis=1) if by_label else scores]
        suite.add(name, convert(model, x, NO_MAP), {"X": rows}, expected, axes={1: 1} if by_label else {}, **features)
    targets = np.column_stack([x[:, 3], x[:, 2] * 2])
    for name, model in (
        ("multi_output_regressor", MultiOutputRegressor(Ridge())),
        ("regressor_chain", RegressorChain(Ridge())),
        ("two_numbers_forest", RandomForestRegressor(5, random_state=SEED)),
        (
            "two_numbers_mlp_each",
            MultiOutputRegressor(MLPRegressor(hidden_layer_sizes=(8,), max_iter=300, random_state=SEED)),
        ),
        ("two_numbers_mlp", MLPRegressor(hidden_layer_sizes=(8,), max_iter=300, random_state=SEED)),
    ):
        model.fit(x[:, :2], targets)
        suite.add(
            name, convert(model, x[:, :2]), {"X": rows[:, :2]}, [model.predict(rows[:, :2])], features={"X": IRIS[:2]}
        )
    for name, labels in (("map_of_words", words), ("map_of_numbers", codes)):
        model = small_forest().fit(x, labels)
        maps = [dict(zip(model.classes_.tolist(), row.tolist())) for row in model.predict_proba(rows)]
        suite.add(name, convert(model, x), {"X": rows}, [model.predict(rows), maps], **features)
    columns = LogisticRegression(max_iter=500).fit(x, words)
    expected = [columns.predict(rows), *columns.predict_proba(rows).T]
    suite.add("column_for_each_class", convert(columns, x, {"zipmap": "columns"}), {"X": rows}, expected, **features)
    process = GaussianProcessRegressor(RBF() + WhiteKernel()).fit(x[:, :2].astype(float), x[:, 3])
    expected = [*process.predict(rows[:, :2].astype(float), return_std=True)]
    suite.add(
        "gaussian_process_deviation",
        convert(process, x[:, :2].astype(float), {"return_std": True}),
        {"X": rows[:, :2].astype(float)},
        expected,
        features={"X": IRIS[:2]},
    )
    forest = IsolationForest(n_estimators=10, random_state=SEED).fit(x)
    expected = [forest.predict(rows), forest.decision_function(rows), forest.score_samples(rows)]
    suite.add(
        "isolation_forest_samples", convert(forest, x, {"score_samples": True}), {"X": rows}, expected, **features
    )
    digits = datasets.load_digits()
    pixels = digits.data.astype(np.float32)
    model = MLPClassifier((16,), max_iter=100, random_state=SEED).fit(pixels, digits.target)
    expected = [model.predict(pixels[PICK]), model.predict_proba(pixels[PICK])]
    suite.add("list_of_pixels", convert(model, pixels, NO_MAP), {"X": pixels[PICK]}, expected)


# Missing values


def missing_values(suite):
    x, _, words = iris()
    # No two distances are the same: of neighbours that are equally far skl2onnx takes others.
    x = x + random().normal(0, 0.05, x.shape).astype(np.float32)
    x[random().random(x.shape) < 0.1] = np.nan
    rows = x[PICK]
    # A missing value is NULL in the table.
    table = pa.table({column: pa.array(rows[:, place], from_pandas=True) for place, column in enumerate(IRIS)})
    for name, model in (
        ("missing_hist_gradient_boosting", boosted()),
        ("missing_forest", small_forest()),
        ("missing_tree", DecisionTreeClassifier(max_depth=4, random_state=SEED)),
        ("missing_mean", make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())),
        ("missing_median", make_pipeline(SimpleImputer(strategy="median"), small_forest())),
        ("missing_indicated", make_pipeline(SimpleImputer(add_indicator=True), LogisticRegression(max_iter=500))),
        (
            "missing_union",
            make_pipeline(
                FeatureUnion([("v", SimpleImputer()), ("m", MissingIndicator(features="all"))]), small_forest()
            ),
        ),
        ("missing_neighbours", make_pipeline(KNNImputer(n_neighbors=3), StandardScaler(), LogisticRegression())),
    ):
        model.fit(x, words)
        # Without the imputer a forest's file does not say that it knows what to do with NULL.
        options = {"on_null": "nan"} if name in ("missing_forest", "missing_tree") else {}
        expected = [model.predict(rows), model.predict_proba(rows)]
        export = convert(model, x, NO_MAP)
        suite.add(name, export, {"X": rows}, expected, features={"X": IRIS}, table=table, options=options)


# Tables of numbers and texts


def people(rows=300):
    """Numbers are 32-bit floats, as most converters want them, and one of integers."""
    data = random()
    pick = lambda words: data.choice(np.array(words, dtype=object), rows)
    frame = pd.DataFrame(
        {
            "age": data.uniform(18, 90, rows).astype(np.float32),
            "income": data.lognormal(10, 0.7, rows).astype(np.float32),
            "visits": data.poisson(4, rows),
            "city": pd.Series(pick(["Oslo", "Rome", "Wien", "Zürich", "東京"]), dtype=object),
            "plan": pd.Series(pick(["free", "basic", "pro"]), dtype=object),
        }
    )
    churn = (frame["age"] / 50 + (frame["plan"] == "pro") + data.normal(0, 0.5, rows) > 1.6).astype(int)
    return frame, churn


NUMBERS, TEXTS = ["age", "income", "visits"], ["city", "plan"]


def with_numbers(encoder, last, numbers=None):
    return make_pipeline(ColumnTransformer([("n", numbers or StandardScaler(), NUMBERS), ("t", encoder, TEXTS)]), last)


def logistic():
    return LogisticRegression(max_iter=1000)


def boosted():
    return HistGradientBoostingClassifier(max_iter=10, random_state=SEED)


TABLES = {
    "one_hot": with_numbers(OneHotEncoder(handle_unknown="ignore"), logistic()),
    "one_hot_dropped": with_numbers(OneHotEncoder(drop="first"), logistic()),
    "one_hot_rare": with_numbers(OneHotEncoder(min_frequency=58, handle_unknown="infrequent_if_exist"), logistic()),
    "ordinal": with_numbers(OrdinalEncoder(), small_forest()),
    "ordinal_unknown": with_numbers(OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), boosted()),
    "target_encoder": with_numbers(TargetEncoder(random_state=SEED), logistic()),
    "table_calibrated": with_numbers(OneHotEncoder(), CalibratedClassifierCV(small_forest(), cv=3)),
    "table_calibrated_outside": CalibratedClassifierCV(with_numbers(OneHotEncoder(), small_forest()), cv=3),
    "table_voting": with_numbers(
        OneHotEncoder(),
        VotingClassifier([("l", logistic()), ("f", small_forest())], voting="soft", flatten_transform=False),
    ),
    "table_stacking": with_numbers(
        OneHotEncoder(sparse_output=False), StackingClassifier([("l", logistic()), ("f", small_forest())])
    ),
    "table_svc": with_numbers(OneHotEncoder(), SVC(probability=True, random_state=SEED)),
    "table_mlp": with_numbers(OneHotEncoder(), MLPClassifier((8,), max_iter=200, random_state=SEED)),
    "table_knn": with_numbers(OneHotEncoder(), KNeighborsClassifier(5)),
    "table_pca": make_pipeline(with_numbers(OneHotEncoder(sparse_output=False), PCA(4)), logistic()),
    "table_passed_through": make_pipeline(
        ColumnTransformer([("t", OneHotEncoder(), TEXTS)], remainder="passthrough"), small_forest()
    ),
    "table_selected": make_pipeline(
        ColumnTransformer(
            [
                ("n", MinMaxScaler(), make_column_selector(dtype_include="number")),
                ("t", OneHotEncoder(), make_column_selector(dtype_exclude="number")),
            ]
        ),
        logistic(),
    ),
    "table_binned": make_pipeline(
        ColumnTransformer(
            [
                ("b", KBinsDiscretizer(4, encode="ordinal"), ["age"]),
                ("n", RobustScaler(), ["income", "visits"]),
                ("t", OneHotEncoder(), TEXTS),
            ]
        ),
        logistic(),
    ),
    "table_logarithms": make_pipeline(
        ColumnTransformer(
            [
                ("l", FunctionTransformer(np.log1p), ["income"]),
                ("n", StandardScaler(), ["age", "visits"]),
                ("t", OneHotEncoder(), TEXTS),
            ]
        ),
        logistic(),
    ),
}


def add_table(suite, name, model, frame, target, options=NO_MAP, **about):
    if not suite.wants(name):
        return
    model.fit(frame, target)
    rows = frame[:ROWS]
    expected = [model.predict(rows)] + ([model.predict_proba(rows)] if hasattr(model, "predict_proba") else [])
    # skl2onnx makes identifiers of the names.
    feeds = {re.sub("[^A-Za-z0-9_]", "_", column): rows[[column]].to_numpy() for column in frame.columns}
    table = pa.Table.from_pandas(rows, preserve_index=False)
    suite.add(name, convert(model, frame, options), feeds, expected, table=table, **about)


def tables(suite):
    frame, churn = people()
    for name, model in TABLES.items():
        add_table(suite, name, model, frame, churn)
    forest = RandomForestRegressor(10, max_depth=5, random_state=SEED)
    spent = frame["income"] / 10 + frame["visits"]
    add_table(suite, "table_regressor", with_numbers(OneHotEncoder(), forest), frame, spent, None)
    texts = frame.astype({name: "str" for name in TEXTS})
    add_table(suite, "texts_of_pandas", with_numbers(OneHotEncoder(), logistic()), texts, churn)
    # Names as a spreadsheet has them.
    wide = frame.rename(columns={"age": "Age (years)", "income": "Income (USD)", "plan": "Plan"})
    chosen = [
        ("n", StandardScaler(), ["Age (years)", "Income (USD)", "visits"]),
        ("t", OneHotEncoder(), ["city", "Plan"]),
    ]
    add_table(suite, "names_of_a_spreadsheet", make_pipeline(ColumnTransformer(chosen), logistic()), wide, churn)
    # As pandas reads numbers: doubles.
    doubles = frame.astype({"age": float, "income": float})
    add_table(suite, "doubles_logistic", with_numbers(OneHotEncoder(), logistic()), doubles, churn)
    add_table(suite, "doubles_forest", with_numbers(OneHotEncoder(), small_forest()), doubles, churn)
    add_table(suite, "doubles_hist", with_numbers(OneHotEncoder(sparse_output=False), boosted()), doubles, churn)
    add_table(suite, "doubles_regressor", with_numbers(OneHotEncoder(), forest), doubles, spent, None)
    types_by_hand(suite, doubles, churn)
    gaps(suite, frame, churn)


def types_by_hand(suite, frame, churn):
    """One way to make floats of a data frame's doubles."""
    model = with_numbers(OneHotEncoder(), small_forest()).fit(frame, churn)
    types = [(name, FloatTensorType([None, 1])) for name in NUMBERS] + [
        (name, StringTensorType([None, 1])) for name in TEXTS
    ]
    rows = frame[:ROWS]
    feeds = {name: rows[[name]].to_numpy().astype(np.float32 if name in NUMBERS else object) for name in rows}
    export = lambda path: write(to_onnx(model, initial_types=types, options=NO_MAP), path)
    table = pa.Table.from_pandas(rows, preserve_index=False)
    suite.add("types_by_hand", export, feeds, [model.predict(rows), model.predict_proba(rows)], table=table)


def gaps(suite, frame, churn):
    """Missing numbers are NaN, missing texts ''."""
    frame = frame.copy()
    # Never both numbers of a row, which would leave many neighbours equally far.
    part = random().random(len(frame))
    frame.loc[part < 0.05, "age"] = np.nan
    frame.loc[(part > 0.05) & (part < 0.1), "income"] = np.nan
    frame.loc[(part > 0.03) & (part < 0.2), "city"] = ""
    words = make_pipeline(
        SimpleImputer(missing_values="", strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")
    )
    for name, imputer in (
        ("mean", SimpleImputer()),
        ("constant", SimpleImputer(strategy="constant", fill_value=-1)),
        ("indicated", SimpleImputer(strategy="median", add_indicator=True)),
        ("neighbours", make_pipeline(StandardScaler(), KNNImputer(n_neighbors=3))),
        ("neighbours_unscaled", KNNImputer(n_neighbors=3)),
    ):
        model = with_numbers(words, logistic(), make_pipeline(imputer, StandardScaler()))
        add_table(suite, f"gaps_{name}", model, frame, churn)
    doubles = frame.astype({"age": float, "income": float})
    add_table(
        suite,
        "gaps_of_doubles",
        with_numbers(words, logistic(), make_pipeline(SimpleImputer(), StandardScaler())),
        doubles,
        churn,
    )
    # Nothing for missing numbers but the trees.
    add_table(suite, "gaps_for_trees", with_numbers(OrdinalEncoder(), boosted(), "passthrough"), frame, churn)


# Texts

SENTENCES = (
    "the delivery was late and the box was broken|great price, will buy again|it stopped working after two days|"
    "Fast delivery! Very happy with it|I want my money back|works as described, thank you|"
    "the worst service I have ever had|good value for the money|arrived broken, no answer from the service|"
    "my kids love it|not what I ordered|easy to use and well made"
).split("|")
GOOD = np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1])

TEXT_PIPELINES = {
    "tfidf": make_pipeline(TfidfVectorizer(), logistic()),
    "tfidf_rare": make_pipeline(TfidfVectorizer(min_df=2, max_df=0.5, max_features=20), logistic()),
    "tfidf_pattern": make_pipeline(TfidfVectorizer(token_pattern="[a-zA-Z]+"), logistic()),
    "tfidf_pairs": make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), logistic()),
    "tfidf_pairs_of_all_words": make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), token_pattern="[a-zA-Z0-9_]+"), logistic()
    ),
    "tfidf_sublinear": make_pipeline(TfidfVectorizer(sublinear_tf=True), logistic()),
    "tfidf_accents": make_pipeline(TfidfVectorizer(), logistic()),
    "tfidf_stop_words": make_pipeline(TfidfVectorizer(stop_words="english"), logistic()),
    "tfidf_characters": make_pipeline(TfidfVectorizer(analyzer="char", ngram_range=(2, 3)), logistic()),
    "tfidf_svc": make_pipeline(TfidfVectorizer(), LinearSVC()),
    "tfidf_svc_with_zipmap": make_pipeline(TfidfVectorizer(), LinearSVC()),
    "tfidf_forest": make_pipeline(TfidfVectorizer(), small_forest()),
    "tfidf_calibrated": make_pipeline(TfidfVectorizer(), CalibratedClassifierCV(LinearSVC(), cv=2)),
    "tfidf_svd": make_pipeline(TfidfVectorizer(), TruncatedSVD(3, random_state=SEED), logistic()),
    "count": make_pipeline(CountVectorizer(), MultinomialNB()),
    "count_binary": make_pipeline(CountVectorizer(binary=True, lowercase=False), BernoulliNB()),
    "hashing": make_pipeline(HashingVectorizer(n_features=64), logistic()),
}


def texts(suite):
    sentences = np.array(
        [SENTENCES[place % 12] + ["", " again", " really"][place % 3] for place in range(120)], dtype=object
    )
    good = GOOD[np.arange(120) % 12]
    umlauts = np.array([text.replace("good", "größer").replace("late", "spät") for text in sentences], dtype=object)
    for name, model in TEXT_PIPELINES.items():
        if suite.wants(name):
            texts = umlauts if name == "tfidf_accents" else sentences
            model.fit(texts, good)
            scores = model.predict_proba if hasattr(model, "predict_proba") else model.decision_function
            expected = [model.predict(texts[:ROWS]), scores(texts[:ROWS])]
            export = convert_text(model, OPTIONS.get(name, NO_MAP))
            suite.add(name, export, {"review": texts[:ROWS]}, expected, table=pa.table({"review": texts[:ROWS]}))
    frame = pd.DataFrame(
        {"review": sentences, "stars": np.arange(120) % 5, "country": np.array(["NO", "IT", "AT"])[np.arange(120) % 3]}
    )
    parts = [
        ("r", TfidfVectorizer(), "review"),
        ("n", StandardScaler(), ["stars"]),
        ("c", OneHotEncoder(), ["country"]),
    ]
    frame = frame.astype({"review": object, "country": object})
    add_table(suite, "tfidf_in_table", make_pipeline(ColumnTransformer(parts), logistic()), frame, good)


def convert_text(model, options):
    types = [("review", StringTensorType([None]))]
    return lambda path: write(to_onnx(model, initial_types=types, options=options), path)


def labels(suite):
    _, _, words = iris()
    model = LabelBinarizer().fit(words)
    rows = words[PICK].astype(object)
    types = [("species", StringTensorType([None, 1]))]
    export = lambda path: write(to_onnx(model, initial_types=types), path)
    suite.add("label_binarizer", export, {"species": rows.reshape(-1, 1)}, [model.transform(rows)])


def main():
    suite = Suite("sklearn")
    for part in (matrices, several_answers, missing_values, tables, texts, labels):
        part(suite)
    suite.close()


if __name__ == "__main__":
    main()
