"""Spark ML by onnxmltools: pipelines over a table of numbers and texts.

Usage: python spark_models.py OUT [--only SUBSTRING]
"""

import shutil
import sys

import numpy as np
import pandas as pd
import pyarrow as pa

from cases import ROWS, SEED, Suite, random

if not shutil.which("java"):
    print("spark: skipped, since there is no java: apt-get install openjdk-17-jre-headless, or a newer one")
    sys.exit(0)

from onnxmltools import convert_sparkml
from onnxmltools.convert.common.data_types import FloatTensorType, StringTensorType
from pyspark.ml import Pipeline
from pyspark.ml import classification as c
from pyspark.ml import clustering as k
from pyspark.ml import feature as f
from pyspark.ml import regression as r
from pyspark.sql import SparkSession

NUMBERS, TEXTS = ["age", "income", "visits"], ["city", "plan", "review"]


def people():
    data = random()
    frame = pd.DataFrame(
        {
            "age": data.uniform(18, 90, 300).round(1),
            "income": data.lognormal(3, 0.7, 300).round(2),
            "visits": data.poisson(4, 300).astype(float),
            "city": data.choice(["Oslo", "Rome", "Wien", "東京"], 300),
            "plan": data.choice(["free", "basic", "pro"], 300),
            "review": data.choice(
                ["good value", "late and broken", "works well", "never again", "good and cheap"], 300
            ),
        }
    )
    score = frame["age"] / 50 + (frame["plan"] == "pro") + data.normal(0, 0.4, 300)
    frame["churn"] = (score > 1.6).astype(float)
    frame["level"] = np.digitize(score, [1.2, 2.0]).astype(float)
    frame["spent"] = 3 * frame["age"] + frame["income"] + data.normal(0, 1, 300)
    return frame


def assembled(*columns):
    return f.VectorAssembler(inputCols=list(columns), outputCol="features")


def numeric(last):
    return [assembled(*NUMBERS), last]


def indexed(**options):
    return [f.StringIndexer(inputCols=TEXTS[:2], outputCols=["city_index", "plan_index"], **options)]


def hot(last, **options):
    """Of the codes of each text a column for each, and none is left out, since onnxmltools wants it so."""
    options = options or {"dropLast": False}
    encoder = f.OneHotEncoder(inputCols=["city_index", "plan_index"], outputCols=["city_hot", "plan_hot"], **options)
    invalid = {key: value for key, value in options.items() if key == "handleInvalid"}
    return [*indexed(**invalid), encoder, assembled(*NUMBERS, "city_hot", "plan_hot"), last]


def coded(last):
    return [*indexed(), assembled(*NUMBERS, "city_index", "plan_index"), last]


CHURN, LEVEL, SPENT = {"labelCol": "churn"}, {"labelCol": "level"}, {"labelCol": "spent"}
SCORES = ["prediction", "probability"]


def pipelines():
    """The steps, and the columns of Spark's that the model has to give. Spark must run already."""
    return {
        "linear_regression": (numeric(r.LinearRegression(**SPENT)), ["prediction"]),
        "linear_regression_hot": (hot(r.LinearRegression(regParam=0.1, **SPENT)), ["prediction"]),
        "generalized_linear": (numeric(r.GeneralizedLinearRegression(family="gaussian", **SPENT)), ["prediction"]),
        "generalized_poisson": (
            numeric(r.GeneralizedLinearRegression(family="poisson", link="log", **SPENT)),
            ["prediction"],
        ),
        "tree_regressor": (numeric(r.DecisionTreeRegressor(**SPENT)), ["prediction"]),
        "forest_regressor": (numeric(r.RandomForestRegressor(numTrees=5, seed=SEED, **SPENT)), ["prediction"]),
        "forest_regressor_hot": (hot(r.RandomForestRegressor(numTrees=5, seed=SEED, **SPENT)), ["prediction"]),
        "boosted_regressor": (numeric(r.GBTRegressor(maxIter=5, seed=SEED, **SPENT)), ["prediction"]),
        "factorization_regressor": (numeric(r.FMRegressor(seed=SEED, **SPENT)), ["prediction"]),
        "isotonic": ([assembled("age"), r.IsotonicRegression(**SPENT)], ["prediction"]),
        "logistic": (numeric(c.LogisticRegression(**CHURN)), SCORES),
        "logistic_hot": (hot(c.LogisticRegression(**CHURN)), SCORES),
        "logistic_hot_kept": (hot(c.LogisticRegression(**CHURN), handleInvalid="keep"), SCORES),
        "logistic_hot_dropped": (hot(c.LogisticRegression(**CHURN), dropLast=True), SCORES),
        "logistic_of_three": (hot(c.LogisticRegression(**LEVEL)), SCORES),
        "logistic_of_three_label": (hot(c.LogisticRegression(**LEVEL)), ["prediction"]),
        "tree": (numeric(c.DecisionTreeClassifier(**CHURN)), SCORES),
        "tree_of_codes": (coded(c.DecisionTreeClassifier(**CHURN)), SCORES),
        "tree_of_three": (numeric(c.DecisionTreeClassifier(**LEVEL)), SCORES),
        "forest": (numeric(c.RandomForestClassifier(numTrees=5, seed=SEED, **CHURN)), SCORES),
        "forest_hot": (hot(c.RandomForestClassifier(numTrees=5, seed=SEED, **LEVEL)), SCORES),
        "boosted": (numeric(c.GBTClassifier(maxIter=5, seed=SEED, **CHURN)), SCORES),
        "boosted_hot": (hot(c.GBTClassifier(maxIter=5, seed=SEED, **CHURN)), SCORES),
        "linear_svc": (numeric(c.LinearSVC(**CHURN)), ["prediction"]),
        "naive_bayes": (numeric(c.NaiveBayes(**LEVEL)), SCORES),
        "naive_bayes_bernoulli": (
            [
                f.Binarizer(threshold=40.0, inputCol="age", outputCol="old"),
                assembled("old"),
                c.NaiveBayes(modelType="bernoulli", **CHURN),
            ],
            SCORES,
        ),
        "perceptron": (
            numeric(c.MultilayerPerceptronClassifier(layers=[3, 5, 3], seed=SEED, maxIter=20, **LEVEL)),
            SCORES,
        ),
        "one_vs_rest": (numeric(c.OneVsRest(classifier=c.LogisticRegression(), **LEVEL)), ["prediction"]),
        "k_means": (numeric(k.KMeans(k=3, seed=SEED)), ["prediction"]),
        "scaled": (
            [assembled(*NUMBERS), f.StandardScaler(withMean=True, inputCol="features", outputCol="scaled")],
            ["scaled"],
        ),
        "scaled_logistic": (
            [
                assembled(*NUMBERS),
                f.StandardScaler(inputCol="features", outputCol="scaled"),
                c.LogisticRegression(featuresCol="scaled", **CHURN),
            ],
            SCORES,
        ),
        "min_max": ([assembled(*NUMBERS), f.MinMaxScaler(inputCol="features", outputCol="scaled")], ["scaled"]),
        "max_abs": ([assembled(*NUMBERS), f.MaxAbsScaler(inputCol="features", outputCol="scaled")], ["scaled"]),
        "robust": ([assembled(*NUMBERS), f.RobustScaler(inputCol="features", outputCol="scaled")], ["scaled"]),
        "normalizer": ([assembled(*NUMBERS), f.Normalizer(inputCol="features", outputCol="scaled")], ["scaled"]),
        "pca": ([assembled(*NUMBERS), f.PCA(k=2, inputCol="features", outputCol="parts")], ["parts"]),
        "polynomial": (
            [assembled(*NUMBERS), f.PolynomialExpansion(degree=2, inputCol="features", outputCol="powers")],
            ["powers"],
        ),
        "vector_indexer": (
            [assembled(*NUMBERS), f.VectorIndexer(maxCategories=15, inputCol="features", outputCol="indexed")],
            ["indexed"],
        ),
        "chosen_by_chi": (
            [assembled(*NUMBERS), f.ChiSqSelector(numTopFeatures=2, outputCol="chosen", **CHURN)],
            ["chosen"],
        ),
        "imputed": (
            [
                f.Imputer(inputCols=["age", "income"], outputCols=["age_filled", "income_filled"]),
                assembled("age_filled", "income_filled", "visits"),
                c.LogisticRegression(**CHURN),
            ],
            SCORES,
        ),
        "buckets": (
            [
                f.Bucketizer(splits=[-float("inf"), 30.0, 60.0, float("inf")], inputCol="age", outputCol="decade"),
                assembled("decade", "income"),
                r.LinearRegression(**SPENT),
            ],
            ["prediction"],
        ),
        "label_of_words": (
            [
                f.StringIndexer(inputCol="plan", outputCol="label"),
                assembled(*NUMBERS),
                c.LogisticRegression(labelCol="label"),
            ],
            SCORES,
        ),
        "words_counted": (
            [
                f.Tokenizer(inputCol="review", outputCol="words"),
                f.CountVectorizer(inputCol="words", outputCol="features"),
                c.LogisticRegression(**CHURN),
            ],
            SCORES,
        ),
        "words_hashed": (
            [
                f.Tokenizer(inputCol="review", outputCol="words"),
                f.HashingTF(numFeatures=32, inputCol="words", outputCol="features"),
                c.LogisticRegression(**CHURN),
            ],
            SCORES,
        ),
        "words_embedded": (
            [
                f.Tokenizer(inputCol="review", outputCol="words"),
                f.Word2Vec(vectorSize=4, minCount=0, seed=SEED, inputCol="words", outputCol="features"),
                c.LogisticRegression(**CHURN),
            ],
            SCORES,
        ),
    }


def used(steps, frame):
    """The columns of the table that the steps read."""
    read = set()
    for step in steps:
        for name in ("inputCol", "inputCols"):
            if step.hasParam(name) and step.isDefined(name):
                value = step.getOrDefault(name)
                read |= {value} if isinstance(value, str) else set(value)
    return [name for name in frame.columns if name in read]


def plain(value):
    return value.toArray() if hasattr(value, "toArray") else value


def feeds_of(rows, columns):
    return {column: rows[[column]].to_numpy().astype(object if column in TEXTS else np.float32) for column in columns}


def table_of(rows, columns):
    return pa.Table.from_pandas(rows[columns], preserve_index=False)


def convert(model, columns, spark):
    types = [(column, (StringTensorType if column in TEXTS else FloatTensorType)([None, 1])) for column in columns]
    return lambda path: path.write_bytes(
        convert_sparkml(model, path.stem, types, spark_session=spark).SerializeToString()
    )


def main():
    suite = Suite("spark")
    builder = (
        SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", 1)
    )
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("OFF")
    frame = people()
    data = spark.createDataFrame(frame).repartition(1).cache()
    rows = frame[:ROWS]
    for name, (steps, outputs) in pipelines().items():
        if not suite.wants(name):
            continue
        model = Pipeline(stages=steps).fit(data)
        scored = model.transform(spark.createDataFrame(rows)).select(outputs).toPandas()
        expected = {output: np.array([plain(value) for value in scored[output]]) for output in outputs}
        # A label is no feature.
        columns = [column for column in used(steps, rows) if name != "label_of_words" or column != "plan"]
        options = {"output": "prediction"} if name == "logistic_of_three_label" else {}
        export = convert(model, columns, spark)
        suite.add(name, export, feeds_of(rows, columns), expected, table=table_of(rows, columns), options=options)
    suite.close()
    spark.stop()


if __name__ == "__main__":
    main()
