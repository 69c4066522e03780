//! Predictions as bytes, each for itself.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, PrimitiveArray};
use datafusion::arrow::datatypes::{DataType, FieldRef, Float32Type};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::row::{RowConverter, SortField};

/// How predictions of a type become bytes, and bytes predictions.
pub(super) enum Values {
    /// Vectors of FLOAT: the numbers as they lie in memory, without a step for each of them. A store is of one machine.
    Vectors(FieldRef, i32),
    /// All other types: the row format of Arrow.
    Rows(RowConverter),
}

impl Values {
    pub(super) fn of(data_type: &DataType) -> Result<Self, ArrowError> {
        Ok(match data_type {
            DataType::FixedSizeList(item, size) if *item.data_type() == DataType::Float32 && *size > 0 => {
                Self::Vectors(item.clone(), *size)
            }
            other => Self::Rows(RowConverter::new(vec![SortField::new(other.clone())])?),
        })
    }

    /// Calls `take` with the bytes of each of `values`, none of which is NULL; `false` if they can't be written.
    pub(super) fn write(&self, values: &ArrayRef, mut take: impl FnMut(&[u8])) -> Result<bool, ArrowError> {
        match self {
            Self::Vectors(_, size) => {
                let list = values.as_fixed_size_list();
                if list.values().null_count() > 0 {
                    return Ok(false); // a number for NULL would not be what was given
                }
                let (size, numbers) = (*size as usize, list.values().as_primitive::<Float32Type>().values());
                for row in 0..list.len() {
                    let numbers = numbers.slice(list.value_offset(row) as usize, size);
                    take(numbers.inner().as_slice());
                }
            }
            Self::Rows(converter) => {
                converter.convert_columns(std::slice::from_ref(values))?.iter().for_each(|row| take(row.data()));
            }
        }
        Ok(true)
    }

    /// The predictions of `bytes`, which [`write`](Self::write) has given.
    ///
    /// # Errors
    /// Bytes of another length than a vector has.
    pub(super) fn read<'a>(&self, bytes: impl ExactSizeIterator<Item = &'a [u8]>) -> Result<ArrayRef, ArrowError> {
        match self {
            Self::Vectors(item, size) => {
                let mut numbers: Vec<f32> = Vec::with_capacity(bytes.len() * *size as usize);
                for bytes in bytes {
                    numbers.extend(bytes.as_chunks().0.iter().map(|number| f32::from_ne_bytes(*number)));
                }
                let numbers = PrimitiveArray::<Float32Type>::new(numbers.into(), None);
                Ok(Arc::new(FixedSizeListArray::try_new(item.clone(), *size, Arc::new(numbers), None)?))
            }
            Self::Rows(converter) => {
                let parser = converter.parser();
                Ok(converter.convert_rows(bytes.map(|bytes| parser.parse(bytes)))?.swap_remove(0))
            }
        }
    }
}
