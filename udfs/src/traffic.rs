//! The split of rows between versions of a model.

use std::fmt::Write;
use std::hash::Hash;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int32Array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type, UInt64Type};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use twox_hash::XxHash64;

/// `traffic(value, …)`: the place of the version that a row goes to, from 0.
///
/// It depends on the model's name and on the values alone: not on the machine, on the type that holds a number or a text,
/// or on other rows. Each value is hashed in turn with XXH64 <https://xxhash.com>, seeded by what came before it: integral
/// numbers as 64-bit integers, others as 64-bit floats, little endian; texts as UTF-8; all else as Arrow displays it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct TrafficFunction {
    /// How plans show it: with the model and the shares.
    name: String,
    seed: u64,
    shares: Vec<u32>,
    signature: Signature,
}

impl TrafficFunction {
    /// A split of the rows of `model` by `shares`, which are relative to their sum.
    pub fn new(model: &str, shares: impl IntoIterator<Item = u32>) -> Self {
        let shares: Vec<u32> = shares.into_iter().collect();
        let name = format!("traffic({model}, {shares:?})");
        let seed = XxHash64::oneshot(0, model.as_bytes());
        Self { name, seed, shares, signature: Signature::variadic_any(Volatility::Immutable) }
    }

    /// The place of the share that `hash` falls into.
    fn place(&self, hash: u64) -> i32 {
        let total: u64 = self.shares.iter().map(|share| u64::from(*share)).sum();
        // hash / 2⁶⁴ · total, rounded down
        let mut point = ((u128::from(hash) * u128::from(total)) >> 64) as u64;
        for (place, share) in self.shares.iter().enumerate() {
            match point.checked_sub(u64::from(*share)) {
                Some(rest) => point = rest,
                None => return place as i32,
            }
        }
        self.shares.len().saturating_sub(1) as i32
    }
}

impl ScalarUDFImpl for TrafficFunction {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int32)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let mut hashes = vec![self.seed; rows];
        for argument in &args.args {
            mix(&argument.to_array(rows)?, &mut hashes)?;
        }
        let places: Int32Array = hashes.into_iter().map(|hash| self.place(hash)).collect();
        Ok(match constant {
            true => ColumnarValue::Scalar(ScalarValue::Int32(Some(places.value(0)))),
            false => ColumnarValue::Array(std::sync::Arc::new(places)),
        })
    }
}

/// Hashes the values of `array` into `hashes`, one for each row.
fn mix(array: &ArrayRef, hashes: &mut [u64]) -> Result<()> {
    let each = |hashes: &mut [u64], hash: &mut dyn FnMut(usize, u64) -> u64| {
        for (row, state) in hashes.iter_mut().enumerate() {
            *state = if array.is_null(row) { XxHash64::oneshot(*state, &[]) } else { hash(row, *state) };
        }
    };
    let integer = |value: i64, seed| XxHash64::oneshot(seed, &value.to_le_bytes());
    match array.data_type() {
        DataType::Dictionary(_, values) => return mix(&cast(array, values)?, hashes),
        DataType::UInt64 => {
            let values = array.as_primitive::<UInt64Type>();
            // Beyond i64 the bits are those of a negative number, which is no worse than any other.
            each(hashes, &mut |row, seed| integer(values.value(row) as i64, seed));
        }
        other if other.is_integer() || *other == DataType::Boolean => {
            let values = cast(array, &DataType::Int64)?;
            let values = values.as_primitive::<Int64Type>();
            each(hashes, &mut |row, seed| integer(values.value(row), seed));
        }
        other if other.is_floating() || other.is_decimal() => {
            let values = cast(array, &DataType::Float64)?;
            let values = values.as_primitive::<Float64Type>();
            each(hashes, &mut |row, seed| {
                let value = values.value(row);
                let integral = value.fract() == 0.0 && value.abs() < i64::MAX as f64;
                let value = if value.is_nan() { f64::NAN } else { value };
                if integral { integer(value as i64, seed) } else { XxHash64::oneshot(seed, &value.to_le_bytes()) }
            });
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let values = cast(array, &DataType::Utf8View)?;
            let values = values.as_string_view();
            each(hashes, &mut |row, seed| XxHash64::oneshot(seed, values.value(row).as_bytes()));
        }
        _ => {
            let options = FormatOptions::default();
            let formatter = ArrayFormatter::try_new(array, &options)?;
            let mut text = String::new();
            let mut failed = Ok(());
            each(hashes, &mut |row, seed| {
                text.clear();
                if let Err(error) = formatter.value(row).try_to_string().map(|value| text.write_str(&value)) {
                    failed = Err(error.into());
                }
                XxHash64::oneshot(seed, text.as_bytes())
            });
            return failed;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{Float32Array, Float64Array, Int64Array, LargeStringArray, StringArray};

    use super::*;

    fn hashes(array: ArrayRef) -> Vec<u64> {
        let mut hashes = vec![7; array.len()];
        mix(&array, &mut hashes).expect("any type has a hash");
        hashes
    }

    #[test]
    fn a_value_has_one_hash_whatever_holds_it() {
        let integers = hashes(Arc::new(Int64Array::from(vec![Some(1), Some(-5), None])));
        assert_eq!(hashes(Arc::new(Int32Array::from(vec![Some(1), Some(-5), None]))), integers);
        assert_eq!(hashes(Arc::new(Float64Array::from(vec![Some(1.0), Some(-5.0), None]))), integers);
        assert_eq!(hashes(Arc::new(Float32Array::from(vec![Some(1.0), Some(-5.0), None]))), integers);
        assert_eq!(hashes(Arc::new(Float64Array::from(vec![-0.0]))), hashes(Arc::new(Int32Array::from(vec![0]))));
        let texts = hashes(Arc::new(StringArray::from(vec![Some("a"), None])));
        assert_eq!(hashes(Arc::new(LargeStringArray::from(vec![Some("a"), None]))), texts);
        let dictionary = cast(
            &StringArray::from(vec![Some("a"), None]),
            &DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8)),
        );
        assert_eq!(hashes(dictionary.expect("a dictionary")), texts);
    }

    #[test]
    fn shares_are_what_they_say() {
        let traffic = TrafficFunction::new("m", [90, 10]);
        let keys = Int64Array::from_iter_values(0..100_000);
        let mut hashes = vec![traffic.seed; keys.len()];
        mix(&(Arc::new(keys) as ArrayRef), &mut hashes).expect("integers");
        let second = hashes.iter().filter(|hash| traffic.place(**hash) == 1).count();
        assert!((9_500..10_500).contains(&second), "{second}");
        assert_eq!((traffic.place(0), traffic.place(u64::MAX)), (0, 1));
        // Written down, so that the split of a release is that of the next.
        assert_eq!(hashes[..2], [13_648_055_822_481_396_755, 6_037_627_138_645_111_265]);
    }
}
