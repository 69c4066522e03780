//! `embed`, `classify` and `rerank`: plain names for `predict`, each for models of one kind.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, plan_err};

use crate::model::ScoringModel;

/// What a call is made for. Each but the first refuses models that give something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Purpose {
    /// `predict`: whatever the model gives.
    #[default]
    Predict,
    /// `embed`: a vector.
    Embed,
    /// `classify`: a label, alone or with scores.
    Classify,
    /// `rerank`: how well two texts fit, as one number.
    Rerank,
}

impl Purpose {
    /// All that have a function of their own beside `predict`.
    pub(crate) const NAMED: [Self; 3] = [Self::Embed, Self::Classify, Self::Rerank];

    /// The function's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Predict => "predict",
            Self::Embed => "embed",
            Self::Classify => "classify",
            Self::Rerank => "rerank",
        }
    }

    /// Checks that `model` gives what a call is made for.
    ///
    /// # Errors
    /// A model that gives something else.
    pub(crate) fn check(self, model: &dyn ScoringModel) -> Result<()> {
        let found = model.return_type();
        if self.takes(found) {
            return Ok(());
        }
        let other = Self::NAMED.into_iter().find(|other| other.takes(found)).unwrap_or_default();
        let expected = match self {
            Self::Predict => "anything",
            Self::Embed => "a vector",
            Self::Classify => "a label",
            Self::Rerank => "one score",
        };
        plan_err!(
            "{}: model '{}' gives {found}, expected {expected}: call it with {}",
            self.name(),
            model.label(),
            other.name()
        )
    }

    /// Whether a model that gives `found` is one of its kind.
    fn takes(self, found: &DataType) -> bool {
        match self {
            Self::Predict => true,
            Self::Embed => is_vector(found),
            Self::Classify => is_label(found),
            Self::Rerank => found.is_floating(),
        }
    }
}

fn is_vector(data_type: &DataType) -> bool {
    match data_type {
        DataType::FixedSizeList(item, _) | DataType::List(item) => item.data_type().is_floating(),
        _ => false,
    }
}

fn is_label(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::Int64 | DataType::Map(..) => true,
        DataType::Struct(fields) => fields.iter().any(|field| is_label(field.data_type())),
        _ => false,
    }
}
