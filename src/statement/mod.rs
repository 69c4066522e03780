//! Statements about models: parsed around DataFusion's parser, run against the catalog.

mod function;
mod hints;
mod ml_predict;
mod parse;
mod run;
mod show;

pub(crate) use function::OnnxFunctionFactory;
pub(crate) use ml_predict::MlPredictPlanner;
pub use parse::{CreateModel, PredictStatement, parse_sql};
pub(crate) use run::run_sql;
pub use run::run_statement;
