"""What exporters get wrong themselves: there is no file, or Python's onnxruntime does not give what the framework gives.

By framework the reason, with the way round it if there is one, and the cases that show it.
"""

REASONS = {
    "torch": {
        "no sequences of several lengths in one batch: take the step at lengths - 1 of all": [
            "packed_lengths_new",
            "packed_lengths_old",
        ],
        "no quantized layers: quantize the file, by onnxruntime.quantization": [
            "dynamic_quantization_new",
            "dynamic_quantization_old",
        ],
    },
    "keras": {
        "from_keras takes no Sequential: keras.Model(model.inputs, model.outputs)": ["sequential_regressor_tf2onnx"],
        "what Normalization has learned becomes inputs: tf2onnx.convert.from_keras": [
            "normalized_function",
            "normalized_keras",
        ],
        "gelu becomes Erfc, which ONNX does not have: approximate=True": [
            "gelu_tf2onnx",
            "gelu_function",
            "gelu_keras",
        ],
        "Discretization becomes Bucketize, which ONNX does not have: sum comparisons": [
            "discretized_tf2onnx",
            "discretized_function",
            "discretized_keras",
        ],
        "StringLookup becomes an operator that ONNX does not have: tf2onnx.convert.from_keras": [
            "words_looked_up_function",
            "words_looked_up_keras",
        ],
    },
    "jax": {
        "nnx.RNN can't be traced: call its cell in a loop of Python": ["lstm_of_flax"],
        "the arguments of nnx.max_pool need their names": ["conv2d_by_position"],
    },
    "spark": {
        "the link of a generalized linear model is left out: take exp() of a logarithm's": ["generalized_poisson"],
        "GBTRegressor becomes a classifier": ["boosted_regressor"],
        "splits by category, as those of one-hot columns are, go the wrong way: give trees numbers alone": [
            "forest_regressor_hot",
            "boosted_hot",
        ],
        "probabilities of three classes by LOGISTIC in place of SOFTMAX: the predictions are right": [
            "logistic_of_three"
        ],
        "OneHotEncoder's defaults are not converted: dropLast=False, or handleInvalid='keep'": ["logistic_hot_dropped"],
        "the codes of a StringIndexer are not cast, so that no assembler puts them beside floats: one-hot them": [
            "tree_of_codes"
        ],
        "the categories of a VectorIndexer become other codes": ["vector_indexer"],
        "the label's StringIndexer wants an input: fit it apart": ["label_of_words"],
        "no words: Tokenizer with what counts, hashes or embeds them": [
            "words_counted",
            "words_hashed",
            "words_embedded",
        ],
        "no converter": ["factorization_regressor", "isotonic", "robust"],
    },
    "sklearn": {
        "LinearSVC in a pipeline fails whatever the option zipmap is: options={LinearSVC: {}}": [
            "linear_svc_with_zipmap",
            "tfidf_svc_with_zipmap",
        ],
        "a pipeline within: scale before": ["calibrated_pipeline", "multi_output_pipeline"],
        "a pipeline of columns within: calibrate its last step": ["table_calibrated_outside"],
        "voting: flatten_transform=False": ["voting_flattened"],
        "neighbours weighted by distance are weighted otherwise: weights='uniform'": [
            "knn_by_distance",
            "knn_regressor_by_distance",
        ],
        "a row with fewer neighbours than others fails": ["radius_neighbours"],
        "steps of isotonic calibration are 32-bit floats: method='sigmoid'": ["calibrated_isotonic"],
        "one against one of texts is no valid model: labels as numbers": ["one_vs_one_of_words"],
        "Gaussian processes for classes: com.microsoft.Solve, which onnxruntime does not have, or not written": [
            "gaussian_process",
            "gaussian_process_of_three",
        ],
        "32-bit floats are too coarse for rows that were fitted: fit and convert doubles": ["outlier_factor"],
        "the logarithm of the loss is not undone: exp() of the prediction for 'poisson' and 'gamma'": [
            "hist_gradient_boosting_poisson"
        ],
        "trees of several labels: MultiOutputClassifier": ["two_labels_forest"],
        "the numbers of all rows are one column: MultiOutputRegressor": ["two_numbers_mlp"],
        "trees that were fitted on missing values forget which way these go: HistGradientBoosting, or an imputer": [
            "missing_forest",
            "missing_tree",
        ],
        "SimpleImputer(add_indicator=True) forgets the indicators": ["missing_indicated", "gaps_indicated"],
        "KNNImputer computes distances of large numbers in 32-bit floats: scale before": ["gaps_neighbours_unscaled"],
        "trees and imputers of doubles are no valid model: a data frame of float32, or initial_types": [
            "doubles_hist",
            "doubles_regressor",
            "gaps_of_doubles",
        ],
        "words of one letter separate pairs of words, where scikit-learn leaves them out: token_pattern='[a-zA-Z0-9_]+'": [
            "tfidf_pairs"
        ],
        "sublinear_tf: 1 + log of the count is computed otherwise": ["tfidf_sublinear"],
        "letters beyond ASCII end a word": ["tfidf_accents"],
        "no converter": [
            "nearest_centroid",
            "transformed_target",
            "spline_regression",
            "classifier_chain",
            "regressor_chain",
            "missing_union",
            "table_logarithms",
            "hashing",
        ],
    },
    "boosters": {
        "LightGBM's forests (boosting_type='rf') are averaged otherwise": ["lightgbm_forest"],
        "XGBoost: no converter for rankers, dart and gblinear": ["xgboost_ranker", "xgboost_dart", "xgboost_linear"],
        "CatBoost gives the logarithm of Poisson's loss: exp() of it": ["catboost_poisson"],
    },
}

FAULTS = {
    f"{framework}/{case}": reason
    for framework, reasons in REASONS.items()
    for reason, cases in reasons.items()
    for case in cases
}
