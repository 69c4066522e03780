//! A function that gives its argument back, without what its field says of a model.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::model::is_provenance;

/// Gives its argument back, with a field that says nothing of a model. Other metadata of the field stays.
///
/// The field of a prediction names the model. Where DataFusion compares or merges the metadata of fields, as it does for the
/// terms of a recursive query and for a union, this function takes the model's name off.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct PlainFunction {
    signature: Signature,
}

impl Default for PlainFunction {
    fn default() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl PlainFunction {
    /// The name in plans.
    pub const NAME: &str = "plain";
}

impl ScalarUDFImpl for PlainFunction {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [only] => Ok(only.clone()),
            _ => exec_err!("plain takes one argument"),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        match args.arg_fields {
            [only] => {
                let mut metadata = only.metadata().clone();
                metadata.retain(|key, _| !is_provenance(key));
                let field = Field::new(self.name(), only.data_type().clone(), only.is_nullable());
                Ok(Arc::new(field.with_metadata(metadata)))
            }
            _ => exec_err!("plain takes one argument"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.into_iter().next() {
            Some(only) => Ok(only),
            None => exec_err!("plain takes one argument"),
        }
    }
}
