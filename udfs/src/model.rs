//! What the SQL functions need to know of a model.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::Result;

/// Turns the name in `predict('name', …)` into one version of a model.
pub trait ModelResolver: Debug + Send + Sync {
    /// The model that `name` (`churn`, `churn@champion`, `churn/3`) stands for now.
    ///
    /// Called while a statement is planned, so it must answer from memory. The error names the model and, if one
    /// is near, the name that may have been meant.
    fn resolve(&self, name: &str) -> Result<Arc<dyn ScoringModel>>;
}

/// What to do with a row that can't be scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd)]
pub enum OnFailure {
    /// The query fails (`predict`).
    Error,
    /// The row's prediction is NULL (`try_predict`). An engine or a device that fails is still an error.
    Null,
}

/// One version of a model, ready to score Arrow columns.
pub trait ScoringModel: Any + Debug + Send + Sync {
    /// The model as plans and errors show it, for instance `churn/3`.
    fn label(&self) -> &str;

    /// The features' names in the order of the arguments; `None` if the model's input is a matrix that names none.
    fn feature_names(&self) -> Option<&[String]>;

    /// Checks the number and the types of the arguments; the error names the argument, what was expected and found.
    fn check_arguments(&self, types: &[DataType]) -> Result<()>;

    /// The type of a prediction.
    fn return_type(&self) -> &DataType;

    /// Scores `rows` rows; `arguments` hold one array of that length for each feature, or one list column.
    fn score(&self, arguments: &[ArrayRef], rows: usize, on_failure: OnFailure) -> Result<ArrayRef>;
}
