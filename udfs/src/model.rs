//! What the SQL functions need to know of a model.

use std::any::Any;
use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr_common::dyn_eq::{DynEq, DynHash};

/// Turns the name in `predict('name', …)` into one version of a model.
pub trait ModelResolver: Debug + Send + Sync {
    /// What `name` (`churn`, `churn@champion`, `churn/3`) stands for now.
    ///
    /// Called while a statement is planned, so it should answer from memory. The error names the model and, if one
    /// is near, the name that may have been meant.
    fn resolve(&self, name: &str) -> Result<Resolved>;

    /// A resolver that goes on to answer as this one does now, so that one query sees one state of all names.
    fn pin(&self) -> Arc<dyn ModelResolver>;
}

/// What a name stands for.
#[derive(Debug, Clone)]
pub enum Resolved {
    /// One version.
    Model(Arc<dyn ScoringModel>),
    /// Several versions, between which the rows are split: the same row always goes to the same version.
    Split {
        /// The model's name, which the split depends on, so that two models do not split alike.
        name: String,
        /// The versions and their shares; at least one, and no share is 0.
        shares: Vec<(Arc<dyn ScoringModel>, u32)>,
        /// The feature whose value decides; all features if none is named.
        by: Option<String>,
    },
}

impl Resolved {
    /// The version, or the first of several, which all give predictions of one type.
    ///
    /// # Errors
    /// A split between no versions.
    pub fn first(&self) -> Result<&Arc<dyn ScoringModel>> {
        match self {
            Self::Model(model) => Ok(model),
            Self::Split { name, shares, .. } => match shares.first() {
                Some((model, _)) => Ok(model),
                None => plan_err!("model '{name}': its traffic is split between no versions"),
            },
        }
    }
}

/// What to do with a row that can't be scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd)]
pub enum OnFailure {
    /// The query fails (`predict`).
    Error,
    /// The row's prediction is NULL (`try_predict`). An engine or a device that fails is still an error.
    Null,
    /// As `Null`, and the call gives a struct of the prediction and the reason why there is none, of which `predict_error`
    /// reads the second part.
    Reason,
}

/// The parts of what a call gives for [`OnFailure::Reason`].
pub const OUTCOME: [&str; 2] = ["prediction", "error"];

/// What the keys begin with under which the field of a prediction says where it came from.
const PROVENANCE: &str = "predict.";

/// Whether a key of a field's metadata says where a prediction came from.
pub fn is_provenance(key: &str) -> bool {
    key.starts_with(PROVENANCE)
}

/// Makes texts the tokens that a model reads. Nothing is cut, whatever number of tokens the model takes.
pub trait Tokenizer: Debug + Send + Sync {
    /// The numbers of the tokens that the model is given for `text`: those that mark beginning and end are among them, and those of a
    /// prefix that it puts before each text.
    fn tokens(&self, text: &str) -> Result<Vec<u32>>;

    /// The tokens of a text that the model takes, at most.
    fn max_tokens(&self) -> usize;

    /// Where in `text` its own tokens lie, as bytes, in order.
    fn places(&self, text: &str) -> Result<Vec<Range<usize>>>;
}

/// One version of a model, as plans hold it.
///
/// Plans are compared, so a model has a value: two that are equal score alike. Implementations derive or write [`Eq`] and
/// [`Hash`], from which [`DynEq`] and [`DynHash`] follow.
pub trait ScoringModel: Any + Debug + Send + Sync + DynEq + DynHash {
    /// The model as plans and errors show it, for instance `churn/3`.
    fn label(&self) -> &str;

    /// The features' names in the order of the arguments; `None` if the model's input is a matrix that names none.
    fn feature_names(&self) -> Option<&[String]>;

    /// The name of a list column that may hold all features of a row, where they have no names.
    fn input_name(&self) -> Option<&str> {
        None
    }

    /// Checks the number and the types of the arguments; the error names the argument, what was expected and found.
    fn check_arguments(&self, types: &[DataType]) -> Result<()>;

    /// The type of a prediction.
    fn return_type(&self) -> &DataType;

    /// Metadata of the field of a prediction, by keys for which [`is_provenance`] holds: the model that it came from. Files
    /// that are written of it keep that.
    fn provenance(&self) -> HashMap<String, String> {
        HashMap::new()
    }

    /// What makes texts the tokens that the model reads, for models of texts. It may load the model.
    ///
    /// # Errors
    /// A model that takes no texts, or that can't be loaded.
    fn tokenizer(&self) -> Result<Arc<dyn Tokenizer>> {
        plan_err!("model '{}' takes no texts, so it has no tokens", self.label())
    }

    /// Scores `rows` rows; `arguments` hold one array of that length for each feature, or one list column. For
    /// [`OnFailure::Reason`] the result is a struct of the parts that [`OUTCOME`] names: the prediction, and a text. `options`
    /// are those of the query's session, which may say how long a call may take, or that nobody waits for it any more.
    ///
    /// Called on the thread that evaluates the expression, which may belong to an async runtime.
    fn score(
        &self,
        arguments: &[ArrayRef],
        rows: usize,
        on_failure: OnFailure,
        options: &ConfigOptions,
    ) -> Result<ArrayRef>;
}

impl PartialEq for dyn ScoringModel {
    fn eq(&self, other: &Self) -> bool {
        self.dyn_eq(other as &dyn Any)
    }
}

impl Eq for dyn ScoringModel {}

impl Hash for dyn ScoringModel {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.dyn_hash(state);
    }
}
