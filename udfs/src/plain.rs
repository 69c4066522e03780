//! A function that gives its argument back, without what its field says of where it came from.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

/// Its argument, with a field that has no metadata.
///
/// The field of a prediction names the model. Where DataFusion compares fields with their metadata, as it does for the two
/// terms of a recursive query, of which one may hold a prediction and the other not, this function takes it off.
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
            [only] => Ok(Arc::new(Field::new(self.name(), only.data_type().clone(), only.is_nullable()))),
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
