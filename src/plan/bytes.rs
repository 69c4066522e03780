//! How many bytes columns take.

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::Result;

/// Bytes of the values of these columns, of slices of larger ones those of the slice.
pub(super) fn bytes(columns: &[ArrayRef]) -> Result<usize> {
    columns.iter().try_fold(0, |sum, column| Ok(sum + of_column(column)?))
}

fn of_column(column: &ArrayRef) -> Result<usize> {
    // Of views, Arrow counts what points to the texts; of lists, all values of those that were sliced.
    let long = |lengths: &mut dyn Iterator<Item = u32>| -> usize {
        lengths.filter(|length| *length > 12).map(|length| length as usize).sum()
    };
    Ok(match column.data_type() {
        DataType::Utf8View => {
            let texts = column.as_string_view();
            16 * texts.len() + long(&mut texts.views().iter().map(|view| *view as u32))
        }
        DataType::BinaryView => {
            let values = column.as_binary_view();
            16 * values.len() + long(&mut values.views().iter().map(|view| *view as u32))
        }
        DataType::List(_) => {
            let lists = column.as_list::<i32>();
            let offsets = lists.value_offsets();
            let (first, last) = (offsets[0] as usize, offsets[lists.len()] as usize);
            4 * lists.len() + of_column(&lists.values().slice(first, last - first))?
        }
        _ => column.to_data().get_slice_memory_size()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{Float32Array, ListArray, StringViewArray};
    use datafusion::arrow::datatypes::Float32Type;
    use std::sync::Arc;

    #[test]
    fn slices_and_views_count_what_they_hold() {
        let numbers: ArrayRef = Arc::new(Float32Array::from(vec![0.0; 100]));
        assert_eq!(bytes(&[numbers.slice(10, 5)]).expect("bytes"), 20);
        let texts: ArrayRef = Arc::new(StringViewArray::from(vec!["short".to_owned(), "x".repeat(1000)]));
        assert_eq!(bytes(std::slice::from_ref(&texts)).expect("bytes"), 2 * 16 + 1000);
        assert_eq!(bytes(&[texts.slice(0, 1)]).expect("bytes"), 16);
        let rows = (0..100).map(|_| Some(vec![Some(1.0); 8]));
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(rows));
        let one = bytes(&[lists.slice(50, 1)]).expect("bytes");
        assert!((36..50).contains(&one), "{one}");
    }
}
