//! Statements about models and jobs: parsed around DataFusion's parser, run against the catalog.

mod alter;
mod create;
mod devices;
mod function;
mod hints;
mod job_rows;
mod ml_compare;
mod ml_predict;
mod parse;
mod parse_job;
mod relation;
mod run;
mod show;
mod tables;

pub(crate) use function::OnnxFunctionFactory;
pub use job_rows::job_summary;
pub(crate) use ml_compare::MlComparePlanner;
pub(crate) use ml_predict::MlPredictPlanner;
pub use parse::{PredictStatement, parse_sql};
pub(crate) use run::run_sql;
pub use run::run_statement;
pub(crate) use tables::CatalogSchema;
