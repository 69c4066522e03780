//! Texts in place of NULL.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, GenericListArray, OffsetSizeTrait, StringArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::error::ArrowError;

/// `column` with `text` in place of each NULL, also within lists; a list that is NULL stays NULL.
pub(crate) fn with_missing_text(column: &ArrayRef, text: &str) -> Result<ArrayRef, ArrowError> {
    fn in_lists<O: OffsetSizeTrait>(list: &GenericListArray<O>, text: &str) -> Result<ArrayRef, ArrowError> {
        let values = with_missing_text(list.values(), text)?;
        let field = match list.data_type() {
            DataType::List(field) | DataType::LargeList(field) => field.as_ref().clone(),
            _ => unreachable!("it is a list"),
        };
        let field = Arc::new(field.with_data_type(values.data_type().clone()));
        Ok(Arc::new(GenericListArray::try_new(field, list.offsets().clone(), values, list.nulls().cloned())?))
    }
    match column.data_type() {
        DataType::List(_) => in_lists(column.as_list::<i32>(), text),
        DataType::LargeList(_) => in_lists(column.as_list::<i64>(), text),
        DataType::FixedSizeList(field, size) => {
            let list = column.as_fixed_size_list();
            let values = with_missing_text(list.values(), text)?;
            let field = Arc::new(field.as_ref().clone().with_data_type(values.data_type().clone()));
            Ok(Arc::new(FixedSizeListArray::try_new(field, *size, values, list.nulls().cloned())?))
        }
        _ if column.logical_null_count() == 0 => Ok(column.clone()),
        _ => {
            let texts = cast(column, &DataType::Utf8)?;
            Ok(Arc::new(StringArray::from_iter_values(texts.as_string::<i32>().iter().map(|it| it.unwrap_or(text)))))
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{DictionaryArray, ListBuilder, StringBuilder};
    use datafusion::arrow::datatypes::Int8Type;

    use super::*;

    fn texts(array: &ArrayRef) -> Vec<String> {
        array.as_string::<i32>().iter().map(|text| text.expect("no NULL is left").to_owned()).collect()
    }

    #[test]
    fn nulls_become_the_text_in_columns_dictionaries_and_lists() {
        let plain: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
        assert_eq!(texts(&with_missing_text(&plain, "-").expect("texts")), ["a", "-"]);
        let dictionary: DictionaryArray<Int8Type> = [Some("a"), None, Some("a")].into_iter().collect();
        let dictionary: ArrayRef = Arc::new(dictionary);
        assert_eq!(texts(&with_missing_text(&dictionary, "-").expect("texts")), ["a", "-", "a"]);
        let mut lists = ListBuilder::new(StringBuilder::new());
        lists.append_value([Some("a"), None]);
        lists.append_null();
        let lists: ArrayRef = Arc::new(lists.finish());
        let filled = with_missing_text(&lists, "-").expect("lists of texts");
        assert_eq!(texts(filled.as_list::<i32>().values()), ["a", "-"]);
        assert!(filled.is_null(1));
    }
}
