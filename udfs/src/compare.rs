//! How far two predictions are apart.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, StructArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Fields, Float64Type};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

/// `compare_predictions(old, new)`: a struct of `difference`, the largest distance between numbers of the two that stand
/// in the same place, and `differs`, whether anything else differs: a label, a NULL, a length.
///
/// Predictions may be numbers, texts, lists, maps and structs of them. Two NaN are the same number.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct CompareFunction {
    signature: Signature,
}

impl Default for CompareFunction {
    fn default() -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl CompareFunction {
    fn fields() -> Fields {
        let difference = Field::new("difference", DataType::Float64, false);
        Fields::from(vec![difference, Field::new("differs", DataType::Boolean, false)])
    }
}

impl ScalarUDFImpl for CompareFunction {
    fn name(&self) -> &str {
        "compare_predictions"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        if let [old, new] = types
            && old != new
            && !(old.is_numeric() && new.is_numeric())
        {
            return plan_err!("the predictions can't be compared: one model gives {old}, the other {new}");
        }
        Ok(DataType::Struct(Self::fields()))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [old, new] = args.args.as_slice() else {
            return exec_err!("compare_predictions takes two predictions");
        };
        let (old, new) = (old.to_array(args.number_rows)?, new.to_array(args.number_rows)?);
        let mut found = Comparison { difference: vec![0.0; old.len()], differs: vec![false; old.len()] };
        let rows: Vec<_> = (0..old.len()).collect();
        found.compare(&old, &new, &rows, &rows, &rows)?;
        let difference: ArrayRef = Arc::new(Float64Array::from(found.difference));
        let differs: ArrayRef = Arc::new(BooleanArray::from(found.differs));
        Ok(ColumnarValue::Array(Arc::new(StructArray::new(Self::fields(), vec![difference, differs], None))))
    }
}

struct Comparison {
    difference: Vec<f64>,
    differs: Vec<bool>,
}

impl Comparison {
    /// Compares the values of `old` at `old_at` with those of `new` at `new_at`; each pair is part of a row's predictions.
    fn compare(
        &mut self,
        old: &ArrayRef,
        new: &ArrayRef,
        old_at: &[usize],
        new_at: &[usize],
        rows: &[usize],
    ) -> Result<()> {
        let mut both = (vec![], vec![], vec![]);
        for ((&o, &n), &row) in old_at.iter().zip(new_at).zip(rows) {
            match (old.is_null(o), new.is_null(n)) {
                (false, false) => {
                    both.0.push(o);
                    both.1.push(n);
                    both.2.push(row);
                }
                (true, true) => {}
                _ => self.differs[row] = true,
            }
        }
        let (old_at, new_at, rows) = both;
        match (old.data_type(), new.data_type()) {
            (one, other) if one.is_numeric() && other.is_numeric() => {
                let (old, new) = (cast(old, &DataType::Float64)?, cast(new, &DataType::Float64)?);
                let (old, new) = (old.as_primitive::<Float64Type>(), new.as_primitive::<Float64Type>());
                for ((o, n), row) in old_at.into_iter().zip(new_at).zip(rows) {
                    let (o, n) = (old.value(o), new.value(n));
                    match (o.is_nan(), n.is_nan()) {
                        // Also of two infinities of one sign, whose distance is NaN.
                        (false, false) if o == n => {}
                        (false, false) => self.difference[row] = self.difference[row].max((n - o).abs()),
                        (true, true) => {}
                        _ => self.differs[row] = true,
                    }
                }
                Ok(())
            }
            (DataType::Struct(_), DataType::Struct(_)) => {
                let (old, new) = (old.as_struct(), new.as_struct());
                for (old, new) in old.columns().iter().zip(new.columns()) {
                    self.compare(old, new, &old_at, &new_at, &rows)?;
                }
                Ok(())
            }
            (DataType::FixedSizeList(..), DataType::FixedSizeList(..)) => {
                let (old, new) = (old.as_fixed_size_list(), new.as_fixed_size_list());
                let at = |array: &dyn Fn(usize) -> i32, row| usize::try_from(array(row)).unwrap_or(0);
                let old_range = |row| (at(&|row| old.value_offset(row), row), old.value_length() as usize);
                let new_range = |row| (at(&|row| new.value_offset(row), row), new.value_length() as usize);
                self.lists(old.values(), new.values(), (old_at, new_at, rows), &old_range, &new_range)
            }
            (DataType::List(_), DataType::List(_)) => {
                let (old, new) = (old.as_list::<i32>(), new.as_list::<i32>());
                let range =
                    |offsets: &[i32], row: usize| (offsets[row] as usize, (offsets[row + 1] - offsets[row]) as usize);
                let old_range = |row| range(old.value_offsets(), row);
                let new_range = |row| range(new.value_offsets(), row);
                self.lists(old.values(), new.values(), (old_at, new_at, rows), &old_range, &new_range)
            }
            (DataType::Map(..), DataType::Map(..)) => {
                let (old, new) = (old.as_map(), new.as_map());
                let range =
                    |offsets: &[i32], row: usize| (offsets[row] as usize, (offsets[row + 1] - offsets[row]) as usize);
                let old_range = |row| range(old.value_offsets(), row);
                let new_range = |row| range(new.value_offsets(), row);
                let entries = |entries: &StructArray| Arc::new(entries.clone()) as ArrayRef;
                let (old, new) = (entries(old.entries()), entries(new.entries()));
                self.lists(&old, &new, (old_at, new_at, rows), &old_range, &new_range)
            }
            (DataType::Utf8, DataType::Utf8) => {
                let (old, new) = (old.as_string::<i32>(), new.as_string::<i32>());
                for ((o, n), row) in old_at.into_iter().zip(new_at).zip(rows) {
                    self.differs[row] |= old.value(o) != new.value(n);
                }
                Ok(())
            }
            (one, other) if one == other && !one.is_nested() => {
                let options = FormatOptions::default();
                let (old, new) = (ArrayFormatter::try_new(old, &options)?, ArrayFormatter::try_new(new, &options)?);
                for ((o, n), row) in old_at.into_iter().zip(new_at).zip(rows) {
                    self.differs[row] |= old.value(o).to_string() != new.value(n).to_string();
                }
                Ok(())
            }
            (one, other) => exec_err!("predictions of {one} and {other} can't be compared"),
        }
    }

    /// Compares lists element by element; `(at, length)` of each by its place.
    fn lists(
        &mut self,
        old: &ArrayRef,
        new: &ArrayRef,
        (old_at, new_at, rows): (Vec<usize>, Vec<usize>, Vec<usize>),
        old_range: &dyn Fn(usize) -> (usize, usize),
        new_range: &dyn Fn(usize) -> (usize, usize),
    ) -> Result<()> {
        let mut elements = (vec![], vec![], vec![]);
        for ((o, n), row) in old_at.into_iter().zip(new_at).zip(rows) {
            let ((o, o_length), (n, n_length)) = (old_range(o), new_range(n));
            if o_length != n_length {
                self.differs[row] = true;
                continue;
            }
            elements.0.extend(o..o + o_length);
            elements.1.extend(n..n + n_length);
            elements.2.extend(std::iter::repeat_n(row, o_length));
        }
        self.compare(old, new, &elements.0, &elements.1, &elements.2)
    }
}
