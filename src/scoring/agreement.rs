//! Whether rows have the same scores in two runs.

use datafusion_predict_native::{Precision, Tensor, TensorData};

use super::axes::RowAxes;

/// How much two scores of one row may differ, relative to the largest in their place: by what is rounded in another order.
pub(super) fn tolerance(precision: Option<Precision>) -> f64 {
    match precision {
        None => 1e-5,
        Some(Precision::Fp16) => 2e-2,
        Some(Precision::Bf16) => 1e-1,
    }
}

/// How much they may differ besides, relative to the largest of the output: a small probability that is computed as what the others
/// leave of 1 is rounded as 1 is.
const ROUNDING: f64 = 8.0 * f32::EPSILON as f64;

/// Scores of rows, to be compared.
pub(super) struct Scores {
    rows: usize,
    values: Values,
}

enum Values {
    Numbers(Vec<f64>),
    Texts(Vec<String>),
}

/// The outputs with their rows first, as values.
pub(super) fn by_rows(outputs: Vec<Tensor>, axes: &RowAxes, rows: usize) -> Vec<Scores> {
    let scores = outputs.into_iter().zip(&axes.outputs).map(|(output, axis)| {
        let axis = axis.filter(|axis| output.shape.get(*axis) == Some(&rows)).unwrap_or(0);
        let output = output.with_axis_first(axis);
        let width = output.data.len() / rows.max(1);
        Scores { rows, values: values(&output.data, width) }
    });
    scores.collect()
}

/// Values of a row that are compared, at most: of more every so many-th, so that a large output is not in memory again.
const COMPARED: usize = 1 << 16;

/// The values of rows of `width`.
fn values(data: &TensorData, width: usize) -> Values {
    // An odd step visits all channels.
    let step = width.div_ceil(COMPARED).max(1) | 1;
    macro_rules! numbers {
        ($data:expr, $to:expr) => {{
            let rows = $data.chunks(width.max(1));
            Values::Numbers(rows.flat_map(|row| row.iter().step_by(step).map(|value| $to(*value))).collect())
        }};
    }
    match data {
        TensorData::Float32(data) => numbers!(data, f64::from),
        TensorData::Float64(data) => numbers!(data, f64::from),
        TensorData::Float16(data) => numbers!(data, f64::from),
        TensorData::BFloat16(data) => numbers!(data, f64::from),
        TensorData::Int8(data) => numbers!(data, f64::from),
        TensorData::Int16(data) => numbers!(data, f64::from),
        TensorData::Int32(data) => numbers!(data, f64::from),
        TensorData::Int64(data) => numbers!(data, |value| value as f64),
        TensorData::UInt8(data) => numbers!(data, f64::from),
        TensorData::UInt16(data) => numbers!(data, f64::from),
        TensorData::UInt32(data) => numbers!(data, f64::from),
        TensorData::UInt64(data) => numbers!(data, |value| value as f64),
        TensorData::Bool(data) => numbers!(data, f64::from),
        TensorData::Bytes(data) => {
            Values::Texts(data.iter().map(|bytes| String::from_utf8_lossy(bytes.unwrap_or_default()).into()).collect())
        }
        TensorData::String(data) => {
            Values::Texts(data.iter().map(|text| text.unwrap_or_default().to_owned()).collect())
        }
    }
}

/// The largest difference between two outputs that are numbers, and the largest value of the first; infinite where one has no number
/// in the place of one. `None` where they are texts or of different shapes.
pub(super) fn largest_difference(expected: &Tensor, found: &Tensor) -> Option<(f64, f64)> {
    let of = |tensor: &Tensor| match values(&tensor.data, tensor.data.len() / tensor.rows().max(1)) {
        Values::Numbers(numbers) => Some(numbers),
        Values::Texts(_) => None,
    };
    let (expected, found) = (of(expected)?, of(found).filter(|_| expected.shape == found.shape)?);
    let difference = |(a, b): (&f64, &f64)| match a == b || !a.is_finite() {
        true => 0.0,
        false if b.is_finite() => (a - b).abs(),
        false => f64::INFINITY,
    };
    let largest =
        expected.iter().filter(|value| value.is_finite()).fold(0.0_f64, |largest, value| largest.max(value.abs()));
    Some((expected.iter().zip(&found).map(difference).fold(0.0, f64::max), largest))
}

impl Scores {
    /// Whether `found`, the scores of the rows `company`, are those that these rows have here, but for `tolerance`.
    pub(super) fn agrees(&self, found: &Self, company: &[usize], tolerance: f64) -> bool {
        let agree = |len: usize, found_len: usize, same: &dyn Fn(usize, usize, usize) -> bool| {
            let (width, found_width) = (len / self.rows.max(1), found_len / found.rows.max(1));
            // Of free sizes that depend on the values nothing can be said.
            width == found_width
                && company
                    .iter()
                    .enumerate()
                    .all(|(place, row)| (0..width).all(|item| same(item, row * width + item, place * width + item)))
        };
        match (&self.values, &found.values) {
            (Values::Texts(expected), Values::Texts(texts)) => {
                agree(expected.len(), texts.len(), &|_, a, b| expected.get(a) == texts.get(b))
            }
            (Values::Numbers(expected), Values::Numbers(numbers)) => {
                let width = expected.len() / self.rows.max(1);
                let finite = |value: f64| if value.is_finite() { value.abs() } else { 0.0 };
                let mut largest = vec![0.0_f64; width];
                for row in expected.chunks(width.max(1)) {
                    largest.iter_mut().zip(row).for_each(|(largest, value)| *largest = largest.max(finite(*value)));
                }
                let rounding = ROUNDING * largest.iter().copied().fold(0.0, f64::max);
                agree(expected.len(), numbers.len(), &|item, a, b| {
                    let (Some(a), Some(b)) = (expected.get(a), numbers.get(b)) else { return false };
                    let equal = a == b || (a.is_nan() && b.is_nan());
                    equal || (a - b).abs() <= tolerance * largest[item].max(finite(*b)) + rounding
                })
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_of_numbers_in_the_same_place() {
        let tensor =
            |values: &[f32]| Tensor { shape: vec![values.len(), 1], data: TensorData::Float32(values.to_vec().into()) };
        let of = |a: &[f32], b: &[f32]| largest_difference(&tensor(a), &tensor(b));
        assert_eq!(of(&[1.0, -4.0], &[1.5, -4.0]), Some((0.5, 4.0)));
        assert_eq!(of(&[f32::NAN, f32::INFINITY, 1.0], &[0.0, 7.0, 1.0]), Some((0.0, 1.0)), "no number to begin with");
        assert_eq!(of(&[1.0], &[f32::INFINITY]).map(|(difference, _)| difference), Some(f64::INFINITY));
        assert_eq!(of(&[1.0], &[f32::NAN]).map(|(difference, _)| difference), Some(f64::INFINITY));
        assert_eq!(of(&[1.0], &[1.0, 2.0]), None);
    }
}
