"""scikit-learn's bundled data sets as columns of 32-bit floats, by their SQL names, and a target."""

import numpy as np
import pandas as pd
from sklearn import datasets

from common import SEED, sql_name


def iris():
    """The third value is the labels' names."""
    data = datasets.load_iris()
    return *columns_and_target(data), data.target_names.astype(object)


def wine():
    return columns_and_target(datasets.load_wine())


def breast_cancer():
    return columns_and_target(datasets.load_breast_cancer())


def diabetes():
    return columns_and_target(datasets.load_diabetes())


def digits():
    """One column of 64 pixels from 0 to 16."""
    data = datasets.load_digits()
    return {"pixels": data.data.astype(np.float32)}, data.target


def diabetes_people():
    """Numbers and words of the diabetes data, unscaled, some missing; whether the disease is worse than the median.

    The data names the sexes 1 and 2 only; which is which is made up here.
    """
    data = datasets.load_diabetes(scaled=False)
    raw = pd.DataFrame(data.data, columns=data.feature_names)
    people = raw[["age", "bmi", "bp"]].astype(np.float32)
    people["sex"] = np.where(raw["sex"] == 1, "female", "male").astype(object)
    people["glucose_band"] = np.select([raw["s6"] < 85, raw["s6"] < 98], ["low", "normal"], "high").astype(object)
    random = np.random.default_rng(SEED)
    for column, missing in (("age", np.nan), ("bmi", np.nan), ("glucose_band", "")):
        people.loc[random.random(len(people)) < 0.06, column] = missing
    return people, (data.target > np.median(data.target)).astype(np.int64)


def columns_and_target(data):
    names = [sql_name(name) for name in data.feature_names]
    return dict(zip(names, data.data.T.astype(np.float32))), data.target


def with_missing(columns, share=0.05):
    """The same with some values NaN."""
    random = np.random.default_rng(SEED)
    missing = lambda values: random.random(len(values)) < share
    return {name: np.where(missing(values), np.float32(np.nan), values) for name, values in columns.items()}
