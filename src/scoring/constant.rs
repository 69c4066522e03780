//! What all rows have in one input: `OPTIONS (constant.sr 16000, constant.state 'zeros')`.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, StringArray};
use datafusion_predict_native::{Dimension, ElementType, Tensor, TensorData, TensorSpec};
use serde_json::Value;

use crate::encode::element_tensor;
use crate::error::{Result, bail, error};

/// Elements of a constant for one row, at most.
const LARGEST: usize = 1 << 26;

/// The values that an option gives to an input: one for all places, or one for each.
#[derive(Debug, Clone)]
pub(super) struct Constant {
    input: String,
    data: TensorData,
    /// The lengths of the lists that the values were given in; none for a single value.
    levels: Vec<usize>,
}

impl Constant {
    /// The value of the option: a number, a truth value, a text, a list of them in brackets (also of lists), or `zeros`.
    ///
    /// # Errors
    /// A value that the input's elements can't have, and lists that are not equally long.
    pub(super) fn parse(label: &str, spec: &TensorSpec, text: &str) -> Result<Self> {
        let of_texts = spec.element == ElementType::String;
        let value = match text {
            "zeros" if !of_texts => Value::from(0),
            _ if of_texts && !text.trim_start().starts_with('[') => Value::from(text),
            _ => serde_json::from_str(text).unwrap_or_else(|_| Value::from(text)),
        };
        let (mut leaves, mut levels) = (vec![], vec![]);
        let wrong = |problem: String| {
            let expected = format!("expected {}", spec.type_line());
            error!(InvalidOption, "model '{label}': option 'constant.{}' is '{text}': {expected}{problem}", spec.name)
        };
        flatten(&value, 0, &mut leaves, &mut levels).map_err(|problem| wrong(format!(", {problem}")))?;
        let count = leaves.len();
        let texts: ArrayRef = Arc::new(StringArray::from(leaves));
        let data = element_tensor(spec.element, &texts, count).map_err(|_| wrong(String::new()))?;
        Ok(Self { input: spec.name.clone(), data, levels })
    }

    /// The constant for one row of `spec`, whose rows are first.
    ///
    /// # Errors
    /// Values that do not fill the input's sizes, or sizes that are not known.
    pub(super) fn row(&self, label: &str, spec: &TensorSpec) -> Result<Tensor> {
        let declared = spec.row_shape();
        let input = &self.input;
        if self.levels.is_empty() {
            if let Some(place) = declared.iter().position(|dim| dim.size().is_none()) {
                let size = super::sizes::name(spec, place + 1);
                bail!(
                    InvalidOption,
                    "model '{label}': the constant '{input}' is {}, rows first, of which a size is not known: OPTIONS ({size} …) says it",
                    spec.type_line()
                );
            }
            let shape: Vec<_> = std::iter::once(1).chain(declared.iter().filter_map(Dimension::size)).collect();
            let one = Tensor { shape: vec![1], data: self.data.clone() };
            let Some(count) = spec.row_elements().filter(|count| *count <= LARGEST) else {
                bail!(InvalidOption, "model '{label}': the constant '{input}' is too large: at most {LARGEST} values");
            };
            return Ok(Tensor { shape, data: one.rows_at(&vec![0; count]).data });
        }
        let fits = |(dim, level): (&Dimension, &usize)| dim.size().is_none_or(|size| size == *level);
        if declared.len() == self.levels.len() && declared.iter().zip(&self.levels).all(fits) {
            let shape = std::iter::once(1).chain(self.levels.iter().copied()).collect();
            return Ok(Tensor { shape, data: self.data.clone() });
        }
        if spec.row_elements() == Some(self.data.len()) && self.levels.len() == 1 {
            let shape = std::iter::once(1).chain(declared.iter().filter_map(Dimension::size)).collect();
            return Ok(Tensor { shape, data: self.data.clone() });
        }
        bail!(
            InvalidOption,
            "model '{label}': option 'constant.{input}' has lists of {:?}, expected {} for each row",
            self.levels,
            spec.row_type_line()
        )
    }
}

/// The values in lists of lists, as texts, and how long the lists are at each level.
fn flatten(value: &Value, depth: usize, leaves: &mut Vec<String>, levels: &mut Vec<usize>) -> Result<(), String> {
    match value {
        Value::Array(values) => {
            if levels.len() == depth {
                if !leaves.is_empty() {
                    return Err("in lists of equal lengths".to_owned());
                }
                levels.push(values.len());
            }
            if levels[depth] != values.len() {
                return Err(format!("found lists of {} and {} values", levels[depth], values.len()));
            }
            values.iter().try_for_each(|value| flatten(value, depth + 1, leaves, levels))
        }
        _ if depth != levels.len() => Err("in lists of equal lengths".to_owned()),
        Value::String(text) => {
            leaves.push(text.clone());
            Ok(())
        }
        Value::Number(_) | Value::Bool(_) => {
            leaves.push(value.to_string());
            Ok(())
        }
        other => Err(format!("found {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(element: ElementType, shape: &[usize]) -> TensorSpec {
        let shape = shape.iter().map(|size| Dimension::Fixed(*size)).collect();
        TensorSpec { name: "k".into(), element, shape }
    }

    fn row(element: ElementType, shape: &[usize], text: &str) -> Result<Tensor> {
        let spec = spec(element, shape);
        Constant::parse("m", &spec, text)?.row("m", &spec)
    }

    #[test]
    fn one_value_fills_all_places_and_lists_fill_theirs() {
        let zeros = row(ElementType::Float32, &[1, 2, 3], "zeros").expect("zeros");
        assert_eq!((zeros.shape, zeros.data.to_array().len()), (vec![1, 2, 3], 6));
        let rate = row(ElementType::Int64, &[1], "16000").expect("a number");
        assert!(matches!(&rate.data, TensorData::Int64(data) if data[..] == [16000]));
        for text in ["[[1, 2], [3, 4]]", "[1,2,3,4]"] {
            let lists = row(ElementType::Float32, &[1, 2, 2], text).expect("four numbers");
            assert_eq!(lists.shape, [1, 2, 2]);
            assert!(matches!(&lists.data, TensorData::Float32(data) if data[..] == [1.0, 2.0, 3.0, 4.0]));
        }
        let text = row(ElementType::String, &[1, 1], "de").expect("a text");
        assert!(matches!(&text.data, TensorData::String(data) if data.value(0) == "de"));
        let yes = row(ElementType::Bool, &[1], "true").expect("a truth value");
        assert!(matches!(&yes.data, TensorData::Bool(data) if data[..] == [true]));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_option() {
        for (element, shape, text, expected) in [
            (ElementType::Int64, vec![1], "1.5", "option 'constant.k' is '1.5': expected int64[1]"),
            (ElementType::UInt8, vec![1], "300", "option 'constant.k' is '300': expected uint8[1]"),
            (ElementType::Float32, vec![1, 2], "[1,2,3]", "has lists of [3], expected float[2] for each row"),
            (ElementType::Float32, vec![1, 2, 2], "[[1,2],[3]]", "found lists of 2 and 1 values"),
            (ElementType::Float32, vec![1, 2, 2], "[[1,2],3]", "in lists of equal lengths"),
            (ElementType::Float32, vec![1], "null", "found null"),
            (ElementType::Float32, vec![1], "loud", "expected float[1]"),
        ] {
            let error = row(element, &shape, text).expect_err(text).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
