//! The operators that are compiled, by family.

mod binary;
mod cast;
mod category;
mod class_names;
mod elementwise;
mod linear;
mod normalization;
mod post_transform;
mod product;
mod reduce;
mod scale;
mod shape;
mod svm;
mod tree_ensemble;
mod unary;

use crate::builder::{Node, ProgramBuilder, Result, Value};

/// Gives the outputs of a node from its inputs.
pub(crate) type Lowering = fn(&mut ProgramBuilder, &Node<'_>) -> Result<Vec<Value>>;

/// How the operator `name` of the operator set `domain` is compiled, if it is.
pub(crate) fn lowering(domain: &str, name: &str) -> Option<Lowering> {
    match domain {
        "" => standard(name),
        "ai.onnx.ml" => machine_learning(name),
        _ => None,
    }
}

fn standard(name: &str) -> Option<Lowering> {
    Some(match name {
        "Identity" | "Dropout" => shape::identity,
        "Constant" => shape::constant,
        "ConstantOfShape" => shape::constant_of_shape,
        "Shape" => shape::shape,
        "Concat" => shape::concat,
        "Reshape" => shape::reshape,
        "Flatten" => shape::flatten,
        "Squeeze" => shape::squeeze,
        "Unsqueeze" => shape::unsqueeze,
        "Transpose" => shape::transpose,
        "Gather" => shape::gather,
        "Slice" => shape::slice,
        "Split" => shape::split,
        "Expand" => shape::expand,
        "Tile" => shape::tile,
        "Cast" => cast::cast,
        "Neg" | "Abs" | "Sqrt" | "Exp" | "Log" | "Sigmoid" | "Tanh" | "Relu" | "Sign" | "Floor" | "Ceil" | "Round"
        | "Reciprocal" | "Softplus" | "Erf" => unary::unary,
        "LeakyRelu" => unary::leaky_relu,
        "Not" => unary::not,
        "IsNaN" => unary::is_nan,
        "Clip" => binary::clip,
        "Add" | "Sub" | "Mul" | "Div" | "Pow" => binary::arithmetic,
        "Min" | "Max" | "Sum" | "Mean" => binary::variadic,
        "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" => binary::comparison,
        "And" | "Or" | "Xor" => binary::logical,
        "Where" => binary::choose,
        "ReduceSum" | "ReduceMean" | "ReduceMax" | "ReduceMin" | "ReduceSumSquare" | "ReduceL1" | "ReduceL2"
        | "ReduceProd" | "ReduceLogSum" | "ReduceLogSumExp" => reduce::reduce,
        "ArgMax" | "ArgMin" => reduce::arg_extreme,
        "Softmax" | "LogSoftmax" => reduce::softmax,
        "CumSum" => reduce::cumulative_sum,
        "BatchNormalization" => normalization::batch_normalization,
        "LpNormalization" => reduce::lp_normalization,
        "TopK" => reduce::top_k,
        "OneHot" => category::one_hot,
        "MatMul" => product::mat_mul,
        "Gemm" => product::gemm,
        _ => return None,
    })
}

fn machine_learning(name: &str) -> Option<Lowering> {
    Some(match name {
        "TreeEnsembleClassifier" => tree_ensemble::classifier,
        "TreeEnsembleRegressor" => tree_ensemble::regressor,
        "TreeEnsemble" => tree_ensemble::ensemble,
        "LinearClassifier" => linear::classifier,
        "LinearRegressor" => linear::regressor,
        "SVMClassifier" => svm::classifier,
        "SVMRegressor" => svm::regressor,
        "Scaler" => scale::scaler,
        "Normalizer" => scale::normalizer,
        "Imputer" => scale::imputer,
        "Binarizer" => scale::binarizer,
        "FeatureVectorizer" => scale::feature_vectorizer,
        "ArrayFeatureExtractor" => category::array_feature_extractor,
        "OneHotEncoder" => category::one_hot_encoder,
        "LabelEncoder" => category::label_encoder,
        "CategoryMapper" => category::category_mapper,
        _ => return None,
    })
}
