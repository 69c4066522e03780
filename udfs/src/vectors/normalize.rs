//! `array_normalize`: vectors of length 1.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::datatypes::{DataType, Float32Type};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::functions_nested::array_normalize;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::kernels::{Sum, sums};
use super::{Vectors, width};

/// DataFusion's function, in which vectors of a fixed size of `FLOAT` stay that.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Normalize {
    general: Arc<ScalarUDF>,
    signature: Signature,
}

pub(super) fn array_normalize() -> Arc<ScalarUDF> {
    let general = array_normalize::array_normalize_udf();
    let signature = Signature::user_defined(Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(Normalize { general, signature }))
}

impl ScalarUDFImpl for Normalize {
    fn name(&self) -> &str {
        self.general.name()
    }

    fn aliases(&self) -> &[String] {
        self.general.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [only] if width(only).is_some() => Ok(only.clone()),
            _ => self.general.return_type(types),
        }
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [only] if width(only).is_some() => Ok(types.to_vec()),
            _ => self.general.coerce_types(types),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [argument] = args.args.as_slice() else { return internal_err!("array_normalize has one argument") };
        let Some(width) = width(&argument.data_type()) else { return self.general.invoke_with_args(args) };
        let is_scalar = matches!(argument, ColumnarValue::Scalar(_));
        let vectors = Vectors::of(&ColumnarValue::Array(argument.to_array(1)?))?;
        let normalized: ArrayRef = Arc::new(normalized(&vectors, width)?);
        if is_scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&normalized, 0)?));
        }
        Ok(ColumnarValue::Array(normalized))
    }

    fn documentation(&self) -> Option<&Documentation> {
        static OURS: LazyLock<Option<Documentation>> =
            LazyLock::new(|| array_normalize::array_normalize_udf().documentation().cloned());
        OURS.as_ref()
    }
}

/// The vectors divided by their lengths; NULL where one has no direction, or a NULL in it.
fn normalized(vectors: &Vectors, width: usize) -> Result<FixedSizeListArray> {
    let rows = vectors.list.len();
    let side = vectors.side(width);
    let squares = sums(Sum::Products, side, side, rows, width);
    let has_direction: NullBuffer = squares.iter().map(|square| *square != 0.0).collect();
    let nulls = NullBuffer::union(vectors.nulls(rows, width).as_ref(), Some(&has_direction));
    let start = vectors.list.value_offset(0) as usize; // not below 0
    let values = &vectors.list.values().as_primitive::<Float32Type>().values()[start..][..rows * width];
    let mut divided = Vec::with_capacity(values.len());
    for (vector, square) in values.chunks_exact(width.max(1)).zip(&squares) {
        let length = square.sqrt();
        divided.extend(vector.iter().map(|value| (f64::from(*value) / length) as f32));
    }
    let DataType::FixedSizeList(item, size) = vectors.list.data_type() else {
        return internal_err!("vectors are lists of a fixed size");
    };
    Ok(FixedSizeListArray::try_new(item.clone(), *size, Arc::new(Float32Array::from(divided)), nulls)?)
}
