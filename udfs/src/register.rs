//! Brings the functions into a registry.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::ScalarUDF;

use crate::compare::CompareFunction;
use crate::model::{ModelResolver, OnFailure};
use crate::predict::PredictFunction;
use crate::purpose::Purpose;
use crate::vectors::{vector_avg, vector_functions};

/// All functions that SQL calls by name, with models from `resolver`: `predict`, `try_predict`, `predict_error`,
/// `embed`, `classify`, `rerank` and `compare_predictions`; those of vectors; and, with the feature `text`, those of tokens.
pub fn all_functions(resolver: &Arc<dyn ModelResolver>) -> Vec<Arc<ScalarUDF>> {
    let predict = |on_failure| PredictFunction::udf(resolver.clone(), on_failure);
    let compare = Arc::new(ScalarUDF::new_from_impl(CompareFunction::default()));
    let by_purpose = Purpose::NAMED
        .map(|purpose| Arc::new(ScalarUDF::new_from_impl(PredictFunction::for_purpose(resolver.clone(), purpose))));
    let by_failure = [predict(OnFailure::Error), predict(OnFailure::Null), predict(OnFailure::Reason), compare];
    let functions = by_failure.into_iter().chain(by_purpose).chain(vector_functions());
    #[cfg(feature = "text")]
    let functions = functions.chain(crate::tokens::tokens_functions(resolver));
    functions.collect()
}

/// Registers [`all_functions`].
///
/// This is enough for calls by position, `predict('m', a, b)`. What takes columns by name (`t.*`, `{a: x}`), splits traffic or
/// gives reasons needs an analyzer rule that calls [`bind_call`](crate::bind_call) on each call.
///
/// ```
/// use std::sync::Arc;
///
/// use datafusion::arrow::array::ArrayRef;
/// use datafusion::arrow::compute::kernels::numeric::add;
/// use datafusion::arrow::datatypes::DataType;
/// use datafusion::common::{Result, plan_err};
/// use datafusion::config::ConfigOptions;
/// use datafusion::prelude::SessionContext;
/// use datafusion_predict_udfs::{ModelResolver, OnFailure, Resolved, ScoringModel, register_all};
///
/// /// A model that adds its two features.
/// #[derive(Debug, Clone, PartialEq, Eq, Hash)]
/// struct Sum;
///
/// impl ScoringModel for Sum {
///     fn label(&self) -> &str {
///         "sum/1"
///     }
///     fn feature_names(&self) -> Option<&[String]> {
///         None
///     }
///     fn check_arguments(&self, types: &[DataType]) -> Result<()> {
///         if types.len() == 2 { Ok(()) } else { plan_err!("sum takes 2 features, found {}", types.len()) }
///     }
///     fn return_type(&self) -> &DataType {
///         &DataType::Int64
///     }
///     fn score(&self, features: &[ArrayRef], _rows: usize, _: OnFailure, _: &ConfigOptions) -> Result<ArrayRef> {
///         Ok(add(&features[0], &features[1])?)
///     }
/// }
///
/// impl ModelResolver for Sum {
///     fn resolve(&self, name: &str) -> Result<Resolved> {
///         if name == "sum" { Ok(Resolved::Model(Arc::new(Sum))) } else { plan_err!("unknown model '{name}'") }
///     }
///     fn pin(&self) -> Arc<dyn ModelResolver> {
///         Arc::new(Sum)
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
/// let mut context = SessionContext::new();
/// let resolver: Arc<dyn ModelResolver> = Arc::new(Sum);
/// register_all(&mut context, &resolver)?;
/// let rows = context.sql("SELECT predict('sum', 2, 3) AS five").await?.to_string().await?;
/// assert!(rows.contains("| 5    |"), "{rows}");
/// # Ok(()) }
/// ```
///
/// # Errors
/// A registry that takes no functions.
pub fn register_all(registry: &mut dyn FunctionRegistry, resolver: &Arc<dyn ModelResolver>) -> Result<()> {
    for function in all_functions(resolver) {
        registry.register_udf(function)?;
    }
    registry.register_udaf(vector_avg())?;
    Ok(())
}
