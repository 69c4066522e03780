//! The SQL functions of `datafusion-predict`, over models of any kind: no engine is among the dependencies.
//!
//! ```text
//!  predict('churn', t.*)            PredictFunction   a name that a ModelResolver knows
//!        │  bind_call
//!        ▼
//!  predict('churn/3', age, plan)    ModelFunction     one version of a model and its features, in order
//! ```
//!
//! A [`ModelResolver`] turns names into [`ScoringModel`]s; everything else here works on those two traits, so that
//! another registry or another runtime can stand behind the same functions.

mod bind;
mod compare;
mod model;
mod model_function;
mod plain;
mod predict;
mod purpose;
mod register;
mod suggest;
#[cfg(feature = "text")]
mod tokens;
mod traffic;
mod vectors;

pub use bind::{bind_call, is_wildcard, wildcard_columns};
pub use compare::CompareFunction;
pub use model::{ModelResolver, OUTCOME, OnFailure, Resolved, ScoringModel, Tokenizer, is_provenance};
pub use model_function::ModelFunction;
pub use plain::PlainFunction;
pub use predict::PredictFunction;
pub use purpose::Purpose;
pub use register::{all_functions, register_all};
pub use suggest::nearest;
#[cfg(feature = "text")]
pub use tokens::{TokensFunction, tokens_functions};
pub use traffic::TrafficFunction;
pub use vectors::{Normalize, ScoresFunction, VectorAverage, VectorFunction, vector_avg, vector_functions};
