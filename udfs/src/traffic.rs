//! The split of rows between versions of a model.

use std::hash::Hash;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int32Array};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type, UInt64Type};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use twox_hash::XxHash64;

/// `traffic(value, …)`: the place of the version that a row goes to, from 0.
///
/// It depends on the model's name and on the values alone: not on the machine, on the type that holds a number or a text,
/// or on other rows, and a list of features counts as the features do. Each value is a word of 64 bits: an integral number
/// as an integer, another as the nearest 32-bit float, a text as the XXH64 of its UTF-8, all else as that of what Arrow
/// displays. (Integers and decimals beyond 2⁵³ that something else has made floats of are other numbers by then.) The words of a row, after the XXH64 of the model's name,
/// are folded as XXH64 <https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md> folds the last words of its input.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct TrafficFunction {
    /// How plans show it: with the model and the shares.
    name: String,
    model: String,
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
        Self { name, model: model.to_owned(), seed, shares, signature: Signature::variadic_any(Volatility::Immutable) }
    }

    /// The model whose rows are split.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The shares, in order.
    pub fn shares(&self) -> &[u32] {
        &self.shares
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
        let places: Int32Array = hashes.into_iter().map(|hash| self.place(finish(hash))).collect();
        Ok(if constant {
            ColumnarValue::Scalar(ScalarValue::Int32(Some(places.value(0))))
        } else {
            ColumnarValue::Array(std::sync::Arc::new(places))
        })
    }
}

const PRIMES: [u64; 4] = [0x9E37_79B1_85EB_CA87, 0xC2B2_AE3D_27D4_EB4F, 0x1656_67B1_9E37_79F9, 0x85EB_CA77_C2B2_AE63];

/// One step of XXH64 over a word.
fn fold(hash: u64, word: u64) -> u64 {
    let round = word.wrapping_mul(PRIMES[1]).rotate_left(31).wrapping_mul(PRIMES[0]);
    (hash ^ round).rotate_left(27).wrapping_mul(PRIMES[0]).wrapping_add(PRIMES[3])
}

/// The last step of XXH64: every bit has a say in every other.
fn finish(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(PRIMES[1]);
    hash = (hash ^ (hash >> 29)).wrapping_mul(PRIMES[2]);
    hash ^ (hash >> 32)
}

/// Folds the values of `array` into `hashes`, one for each row.
fn mix(array: &ArrayRef, hashes: &mut [u64]) -> Result<()> {
    let list = match array.data_type() {
        DataType::FixedSizeList(item, _) | DataType::LargeList(item) => cast(array, &DataType::List(item.clone()))?,
        DataType::List(_) => array.clone(),
        _ => {
            let (words, nulls) = (words(array)?, array.logical_nulls());
            for (row, hash) in hashes.iter_mut().enumerate() {
                *hash = step(*hash, &words, nulls.as_ref(), row);
            }
            return Ok(());
        }
    };
    // As if each element were an argument.
    let lists = list.as_list::<i32>();
    let (words, nulls) = (words(lists.values())?, lists.values().logical_nulls());
    for (row, hash) in hashes.iter_mut().enumerate() {
        if lists.is_null(row) {
            *hash = missing(*hash);
            continue;
        }
        let (from, to) = (lists.value_offsets()[row] as usize, lists.value_offsets()[row + 1] as usize);
        *hash = (from..to).fold(*hash, |hash, element| step(hash, &words, nulls.as_ref(), element));
    }
    Ok(())
}

fn step(hash: u64, words: &[u64], nulls: Option<&NullBuffer>, place: usize) -> u64 {
    match nulls {
        Some(nulls) if nulls.is_null(place) => missing(hash),
        _ => fold(hash, words[place]),
    }
}

/// A word for each value; any for those that are not there.
fn words(array: &ArrayRef) -> Result<Vec<u64>> {
    Ok(match array.data_type() {
        DataType::Dictionary(_, values) => words(&cast(array, values)?)?,
        DataType::UInt64 => array.as_primitive::<UInt64Type>().values().to_vec(),
        other if other.is_integer() || *other == DataType::Boolean => {
            let numbers = cast(array, &DataType::Int64)?;
            numbers.as_primitive::<Int64Type>().values().iter().map(|value| value.cast_unsigned()).collect()
        }
        other if other.is_floating() || other.is_decimal() => {
            let numbers = cast(array, &DataType::Float64)?;
            numbers.as_primitive::<Float64Type>().values().iter().map(|value| number(*value)).collect()
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let texts = cast(array, &DataType::Utf8View)?;
            let texts = texts.as_string_view();
            (0..texts.len()).map(|row| XxHash64::oneshot(0, texts.value(row).as_bytes())).collect()
        }
        _ => {
            let options = FormatOptions::default();
            let formatter = ArrayFormatter::try_new(array, &options)?;
            let text =
                |row| -> Result<u64> { Ok(XxHash64::oneshot(0, formatter.value(row).try_to_string()?.as_bytes())) };
            (0..array.len()).map(text).collect::<Result<_>>()?
        }
    })
}

/// A number is the same word whatever type holds it.
fn number(value: f64) -> u64 {
    let integral = |value: f64| Some(value as i64).filter(|it| *it as f64 == value && *it != i64::MAX); // `as` saturates
    let nearest = value as f32;
    match integral(value).or_else(|| integral(nearest.into())) {
        Some(integer) => integer.cast_unsigned(),
        None if value.is_nan() => f32::NAN.to_bits().into(),
        None => nearest.to_bits().into(),
    }
}

/// The step for a value that is not there.
fn missing(hash: u64) -> u64 {
    fold(hash, 0).rotate_left(1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{
        Float32Array, Float64Array, Int64Array, LargeStringArray, ListArray, NullArray, StringArray,
    };
    use datafusion::arrow::datatypes::Float32Type;

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
        let fractions = hashes(Arc::new(Float64Array::from(vec![0.1, 16_777_217.5])));
        assert_eq!(hashes(Arc::new(Float32Array::from(vec![0.1, 16_777_217.5]))), fractions);
        // A list counts as its elements do.
        let mut columns = vec![7];
        for value in [0.1, 2.0] {
            mix(&(Arc::new(Float64Array::from(vec![value])) as ArrayRef), &mut columns).expect("a number");
        }
        let list = ListArray::from_iter_primitive::<Float32Type, _, _>([Some([Some(0.1), Some(2.0)])]);
        assert_eq!(hashes(Arc::new(list)), columns);
        let null = hashes(Arc::new(NullArray::new(1)));
        assert_eq!(null, hashes(Arc::new(Float64Array::from(vec![None]))));
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
        let second = hashes.iter().filter(|hash| traffic.place(finish(**hash)) == 1).count();
        assert!((9_500..10_500).contains(&second), "{second}");
        assert_eq!((traffic.place(0), traffic.place(u64::MAX)), (0, 1));
        // By Python: xxhash.xxh64_intdigest(word, 0) of one word starts from PRIME5 + 8, where a row starts from its model.
        let start = 0x27D4_EB2F_1656_67C5 + 8;
        let words = [0, 1, 0x0123_4567_89AB_CDEF].map(|word| finish(fold(start, word)));
        assert_eq!(words, [3_803_688_792_395_291_579, 11_468_921_228_449_061_269, 16_878_455_698_304_287_724]);
        // Written down, so that the split of a release is that of the next.
        assert_eq!(hashes[..2], [17_359_787_713_946_478_792, 10_118_390_422_039_017_050]);
    }
}
