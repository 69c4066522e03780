//! Axes and rows of tensors moved.

use arrow::array::{Array, BinaryArray, StringArray};

use super::{Tensor, TensorData};

/// Runs `$body` with `$values` bound to a slice of the elements, and `$wrap` to what makes data of such elements again.
macro_rules! with_elements {
    ($data:expr, $values:ident => $body:expr) => {
        match $data {
            TensorData::Float32($values) => TensorData::Float32($body.into()),
            TensorData::Float64($values) => TensorData::Float64($body.into()),
            TensorData::Float16($values) => TensorData::Float16($body.into()),
            TensorData::BFloat16($values) => TensorData::BFloat16($body),
            TensorData::Int8($values) => TensorData::Int8($body.into()),
            TensorData::Int16($values) => TensorData::Int16($body.into()),
            TensorData::Int32($values) => TensorData::Int32($body.into()),
            TensorData::Int64($values) => TensorData::Int64($body.into()),
            TensorData::UInt8($values) => TensorData::UInt8($body.into()),
            TensorData::UInt16($values) => TensorData::UInt16($body.into()),
            TensorData::UInt32($values) => TensorData::UInt32($body.into()),
            TensorData::UInt64($values) => TensorData::UInt64($body.into()),
            TensorData::Bool($values) => TensorData::Bool($body),
            TensorData::String(texts) => {
                let $values: Vec<&str> = (0..texts.len()).map(|i| texts.value(i)).collect();
                TensorData::String(StringArray::from_iter_values($body))
            }
            TensorData::Bytes(all) => {
                let $values: Vec<&[u8]> = (0..all.len()).map(|i| all.value(i)).collect();
                TensorData::Bytes(BinaryArray::from_iter_values($body))
            }
        }
    };
}

/// Swaps the two outer levels of `outer × middle × inner` elements.
fn swapped<T: Copy>(values: &[T], outer: usize, middle: usize, inner: usize) -> Vec<T> {
    let mut result = Vec::with_capacity(values.len());
    for m in 0..middle {
        for o in 0..outer {
            result.extend_from_slice(&values[(o * middle + m) * inner..][..inner]);
        }
    }
    result
}

impl Tensor {
    /// The same values with dimension `axis` as the first, the others in their order.
    ///
    /// # Panics
    /// If there is no such dimension, or if the shape does not fit the number of elements.
    pub fn with_axis_first(&self, axis: usize) -> Self {
        if axis == 0 {
            return self.clone();
        }
        let outer = self.shape[..axis].iter().product();
        let (middle, inner) = (self.shape[axis], self.shape[axis + 1..].iter().product());
        let data = with_elements!(&self.data, values => swapped(&values[..], outer, middle, inner));
        let mut shape = self.shape.clone();
        let size = shape.remove(axis);
        shape.insert(0, size);
        Self { shape, data }
    }

    /// The same values with the first dimension as dimension `axis`, the others in their order.
    ///
    /// # Panics
    /// As [`with_axis_first`](Self::with_axis_first).
    pub fn with_first_axis_at(&self, axis: usize) -> Self {
        if axis == 0 {
            return self.clone();
        }
        let outer = self.shape[0];
        let (middle, inner) = (self.shape[1..=axis].iter().product(), self.shape[axis + 1..].iter().product());
        let data = with_elements!(&self.data, values => swapped(&values[..], outer, middle, inner));
        let mut shape = self.shape.clone();
        let size = shape.remove(0);
        shape.insert(axis, size);
        Self { shape, data }
    }

    /// The rows at `positions`, in this order.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn rows_at(&self, positions: &[usize]) -> Self {
        let width: usize = self.shape[1..].iter().product();
        let data = with_elements!(&self.data, values => {
            let rows = positions.iter().flat_map(|row| &values[row * width..][..width]);
            rows.copied().collect::<Vec<_>>()
        });
        let mut shape = self.shape.clone();
        shape[0] = positions.len();
        Self { shape, data }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_move_first_and_back() {
        let values: Vec<i64> = (0..24).collect();
        let tensor = Tensor { shape: vec![2, 3, 4], data: TensorData::Int64(values.into()) };
        let first = tensor.with_axis_first(1);
        assert_eq!(first.shape, [3, 2, 4]);
        let TensorData::Int64(data) = &first.data else { panic!("integers stay integers") };
        assert_eq!(data[..8], [0, 1, 2, 3, 12, 13, 14, 15]);
        for axis in 0..3 {
            assert_eq!(tensor.with_axis_first(axis).with_first_axis_at(axis), tensor);
        }
        assert_eq!(first.rows_at(&[2, 0]).shape, [2, 2, 4]);
        let texts = Tensor { shape: vec![1, 2], data: TensorData::String(vec!["a", "b"].into()) };
        let TensorData::String(data) = texts.with_axis_first(1).rows_at(&[1]).data else { panic!("texts") };
        assert_eq!(data.value(0), "b");
    }
}
