//! How a model is called.

use datafusion::arrow::datatypes::DataType;

use crate::encode::{ArgumentError, InputEncoder, is_list_like};
use crate::error::{Error, Result, bail, error};

/// The arguments that a model takes, and the type of what it gives: all that planning a call needs.
///
/// A plan has it from the catalog's record, a loaded model from its file and its first run.
#[derive(Debug, Clone)]
pub(crate) struct CallSignature {
    features: Option<Vec<String>>,
    encoder: InputEncoder,
    returns: DataType,
}

impl CallSignature {
    /// Of a model whose inputs `encoder` fills. `features` names the arguments, in order, if they have names.
    pub(crate) fn new(encoder: InputEncoder, features: Option<Vec<String>>, returns: DataType) -> Self {
        Self { features, encoder, returns }
    }

    /// The features' names in the order of the arguments, unless the input is a matrix that names none.
    pub(crate) fn features(&self) -> Option<&[String]> {
        self.features.as_deref()
    }

    /// The name of the one input whose rows a list column may hold, where the features have no names.
    pub(crate) fn input_name(&self) -> Option<&str> {
        self.encoder.matrix().filter(|_| self.features.is_none()).map(|matrix| matrix.name.as_str())
    }

    /// How arguments become tensors.
    pub(crate) fn encoder(&self) -> &InputEncoder {
        &self.encoder
    }

    /// The type of a prediction.
    pub(crate) fn returns(&self) -> &DataType {
        &self.returns
    }

    /// Checks the number and the types of the arguments of a call of the model `label`.
    ///
    /// # Errors
    /// What does not fit, with the argument, what was expected and what was found.
    pub(crate) fn check(&self, label: &str, types: &[DataType]) -> Result<()> {
        let one_list = types.len() == 1 && self.encoder.matrix().is_some() && is_list_like(&types[0]);
        if let Some(width) = self.encoder.width().filter(|width| *width != types.len() && !one_list) {
            if let ([found], Some([name])) = (types, self.features()) {
                bail!(
                    InvalidArguments,
                    "model '{label}': feature '{name}': expected a list of {width} values, found {found}"
                );
            }
            let names = self.features.as_ref().map(|names| format!(" ({})", names.join(", "))).unwrap_or_default();
            let features = if width == 1 { "feature" } else { "features" };
            let found = match types {
                [only] if width > 1 && self.encoder.matrix().is_some() => {
                    format!("or one list of {width} values, found {only}")
                }
                several => format!("found {}", several.len()),
            };
            bail!(InvalidArguments, "model '{label}' takes {width} {features}{names}, {found}");
        }
        self.encoder.check(types).map_err(|error| {
            error!(InvalidArguments, "model '{label}': {}: {}", self.argument(error.argument), error.problem)
        })
    }

    /// `argument 2 ('age')`, for errors.
    pub(crate) fn argument(&self, position: usize) -> String {
        match self.features.as_ref().and_then(|names| names.get(position)) {
            Some(name) => format!("argument {} ('{name}')", position + 1),
            None => format!("argument {}", position + 1),
        }
    }

    /// The error for a row whose value in one argument of the model `label` can't be scored.
    pub(crate) fn unscorable(&self, label: &str, error: ArgumentError) -> Error {
        error!(UnscorableRow, "model '{label}': {}: {}", self.argument(error.argument), error.problem)
    }
}
