//! Rows as keys, and predictions as values.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, UInt64Array, new_empty_array};
use datafusion::arrow::compute::take;
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::row::{Row, RowConverter, SortField};
use sha2::{Digest, Sha256};

use super::segment::Key;
use super::store::Store;
use super::values::Values;

/// Another number, another folder: it grows when the bytes of keys or of values become others.
const FORMAT: u32 = 3;

/// What one model has scored.
#[derive(Debug)]
pub(crate) struct Remembered {
    store: Arc<Store>,
    /// The type of a prediction.
    returns: DataType,
    /// Bytes of all stores, at most.
    limit: u64,
}

/// What is known of some rows.
pub(crate) struct Recalled {
    keys: Vec<Key>,
    /// The predictions that are known.
    pub values: ArrayRef,
    /// The rows whose they are, in that order.
    pub known: Vec<u64>,
    /// The other rows.
    pub unknown: UInt64Array,
}

impl Remembered {
    /// What the model that `identity` stands for has scored: all that a prediction depends on beside its row.
    pub(crate) fn open(folder: &Path, identity: &str, returns: &DataType, limit: u64) -> Self {
        let hash = Sha256::digest(format!("{FORMAT}\n{identity}\n{returns}"));
        let name: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Self { store: Store::open(&folder.join(name)), returns: returns.clone(), limit }
    }

    /// What is known of the rows of `arguments`.
    pub(crate) fn recall(&self, arguments: &[ArrayRef], rows: usize) -> Result<Recalled, ArrowError> {
        let keys = keys(arguments)?;
        let mut found = self.store.find(&keys);
        found.sort_unstable_by_key(|(row, _)| *row);
        let known: Vec<_> = found.iter().map(|(row, _)| *row as u64).collect();
        let mut places = known.iter().peekable();
        let unknown = (0..rows as u64).filter(|row| places.next_if_eq(&row).is_none()).collect();
        let values = if found.is_empty() {
            new_empty_array(&self.returns)
        } else {
            Values::of(&self.returns)?.read(found.iter().map(|(_, value)| value.as_slice()))?
        };
        Ok(Recalled { keys, values, known, unknown })
    }

    /// Keeps the predictions of those rows of `recalled` that were unknown; NULL among them is not kept.
    ///
    /// Predictions that can't be written are as good as those that can: a warning is logged.
    pub(crate) fn keep(&self, recalled: &Recalled, values: &ArrayRef) -> Result<(), ArrowError> {
        let kept: UInt64Array = (0..values.len() as u64).filter(|row| values.is_valid(*row as usize)).collect();
        if kept.is_empty() {
            return Ok(());
        }
        let kept_values = if kept.len() == values.len() { values.clone() } else { take(values, &kept, None)? };
        let (mut bytes, mut ends) = (vec![], vec![0]);
        let written = Values::of(&self.returns)?.write(&kept_values, |value| {
            bytes.extend_from_slice(value);
            ends.push(bytes.len());
        })?;
        if !written || u32::try_from(bytes.len()).is_err() {
            return Ok(());
        }
        let rows = kept.values().iter().zip(ends.windows(2)).map(|(row, place)| {
            let row = recalled.unknown.value(*row as usize);
            (recalled.keys[row as usize], &bytes[place[0]..place[1]])
        });
        // The same input may be there several times.
        let mut seen = HashSet::with_capacity(rows.len());
        let rows: Vec<_> = rows.filter(|(key, _)| seen.insert(*key)).collect();
        if let Err(error) = self.store.add(&rows, self.limit) {
            log::warn!("predictions can't be remembered in '{}': {error}", self.store.folder().display());
        }
        Ok(())
    }
}

/// A key for each row: of its values, and of their types, as values of several types have the same bytes.
fn keys(arguments: &[ArrayRef]) -> Result<Vec<Key>, ArrowError> {
    let fields = arguments.iter().map(|argument| SortField::new(argument.data_type().clone())).collect();
    let rows = RowConverter::new(fields)?.convert_columns(arguments)?;
    let types: Vec<_> = arguments.iter().map(|argument| kind(argument.data_type())).collect();
    let begun = Sha256::new_with_prefix(types.join("\n"));
    let key = |row: Row| {
        let mut key = Key::default();
        key.copy_from_slice(&begun.clone().chain_update(row.data()).finalize()[..16]);
        key
    };
    Ok(rows.iter().map(key).collect())
}

/// The name of a type. Those that hold texts, or bytes, in several ways have one, as their rows have the same bytes.
fn kind(data_type: &DataType) -> String {
    match data_type {
        DataType::Dictionary(_, values) => kind(values),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "bytes".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{AsArray, FixedSizeListArray, Float32Array, Int32Array, StringArray};
    use datafusion::arrow::compute::cast;
    use datafusion::arrow::datatypes::{Field, Float32Type};

    use super::*;

    fn vectors(rows: &[Option<f32>]) -> ArrayRef {
        let item = Arc::new(Field::new_list_field(DataType::Float32, true));
        let values: Float32Array = rows.iter().flat_map(|row| [row.unwrap_or(0.0), -0.0, f32::NAN]).map(Some).collect();
        let nulls = rows.iter().map(Option::is_some).collect::<Vec<_>>().into();
        Arc::new(FixedSizeListArray::new(item, 3, Arc::new(values), Some(nulls)))
    }

    fn texts(texts: &[&str]) -> ArrayRef {
        Arc::new(StringArray::from(texts.to_vec()))
    }

    #[test]
    fn the_same_bytes_of_another_type_are_another_row() {
        let floats: ArrayRef = Arc::new(Float32Array::from(vec![1.0]));
        let ints: ArrayRef = Arc::new(Int32Array::from(vec![1_065_353_216]));
        let keys = |array: &ArrayRef| keys(std::slice::from_ref(array)).expect("keys");
        assert_ne!(keys(&floats), keys(&ints));
        let texts = texts(&["a", "b"]);
        for other in [DataType::LargeUtf8, DataType::Utf8View, dictionary()] {
            assert_eq!(keys(&texts), keys(&cast(&texts, &other).expect("texts")), "{other}");
        }
    }

    fn dictionary() -> DataType {
        DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8))
    }

    #[test]
    fn predictions_come_back_as_they_were() {
        let folder = tempfile::tempdir().expect("a folder");
        let returns = vectors(&[]).data_type().clone();
        let open = |identity| Remembered::open(folder.path(), identity, &returns, 1 << 20);
        let one = open("model 1");
        let recalled = one.recall(&[texts(&["a", "b", "c"])], 3).expect("rows");
        assert_eq!((recalled.known.len(), recalled.unknown.len()), (0, 3));
        one.keep(&recalled, &vectors(&[Some(1.5), None, Some(f32::INFINITY)])).expect("rows");
        let recalled = open("model 1").recall(&[texts(&["c", "b", "x", "a"])], 4).expect("rows");
        assert_eq!(recalled.known, [0, 3]);
        assert_eq!(recalled.unknown.values().to_vec(), [1, 2]);
        assert_eq!(recalled.values.data_type(), &returns);
        let values = recalled.values.as_fixed_size_list().values().as_primitive::<Float32Type>().values();
        let bits: Vec<_> = values.iter().map(|value| value.to_bits()).collect();
        let expected = [f32::INFINITY, -0.0, f32::NAN, 1.5, -0.0, f32::NAN].map(f32::to_bits);
        assert_eq!(bits, expected);
        assert!(open("model 2").recall(&[texts(&["a"])], 1).expect("rows").known.is_empty());
    }
}
