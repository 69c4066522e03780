//! How far two predictions are apart.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, MapArray, StructArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Fields, Float32Type, Float64Type};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::scalar_doc_sections::DOC_SECTION_OTHER;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

/// `compare_predictions(old, new)`: a struct of `difference`, the largest distance between numbers of the two that stand
/// in the same place (under the same key of a map), and `differs`, whether anything else differs: a label, a NULL, a
/// length.
///
/// Predictions may be numbers, texts, lists, maps and structs of them. Integers are labels, which have no distance. Two
/// NaN are the same number.
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

    fn documentation(&self) -> Option<&Documentation> {
        static DOCUMENTATION: LazyLock<Documentation> = LazyLock::new(|| {
            Documentation::builder(
                DOC_SECTION_OTHER,
                "Tells how far two predictions are apart: a struct of the largest difference of numbers in the same place, \
                 and of whether anything else differs.",
                "compare_predictions(old, new)",
            )
            .with_argument("old", "A prediction: a number, a text, or a list, map or struct of them.")
            .with_argument("new", "Another of the same type.")
            .with_related_udf("predict")
            .build()
        });
        Some(&DOCUMENTATION)
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
        // By blocks: the elements of long lists are paired one by one.
        for rows in rows.chunks(BLOCK) {
            found.compare(&old, &new, rows, rows, rows)?;
        }
        let difference: ArrayRef = Arc::new(Float64Array::from(found.difference));
        let differs: ArrayRef = Arc::new(BooleanArray::from(found.differs));
        Ok(ColumnarValue::Array(Arc::new(StructArray::new(Self::fields(), vec![difference, differs], None))))
    }
}

/// Rows that are compared at once.
const BLOCK: usize = 64;

/// Places among the old values, places among the new, and the rows that they belong to.
type Pairs = (Vec<usize>, Vec<usize>, Vec<usize>);

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
            // Labels have no distance.
            (one, other) if one.is_integer() && one == other => {
                self.texts(old, new, (old_at, new_at, rows), &FormatOptions::default())
            }
            (one, other) if one.is_numeric() && other.is_numeric() => {
                let (old, new) = (numbers(old)?, numbers(new)?);
                for ((o, n), row) in old_at.into_iter().zip(new_at).zip(rows) {
                    let (o, n) = (old(o), new(n));
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
                self.maps(old, new, (old_at, new_at, rows), &old_range, &new_range)
            }
            (DataType::Utf8, DataType::Utf8) => {
                let (old, new) = (old.as_string::<i32>(), new.as_string::<i32>());
                for ((o, n), row) in old_at.into_iter().zip(new_at).zip(rows) {
                    self.differs[row] |= old.value(o) != new.value(n);
                }
                Ok(())
            }
            (one, other) if one == other && !one.is_nested() => {
                self.texts(old, new, (old_at, new_at, rows), &FormatOptions::default())
            }
            (one, other) => exec_err!("predictions of {one} and {other} can't be compared"),
        }
    }

    /// Compares values by how they are displayed.
    fn texts(
        &mut self,
        old: &ArrayRef,
        new: &ArrayRef,
        (old_at, new_at, rows): Pairs,
        options: &FormatOptions,
    ) -> Result<()> {
        let (old, new) = (ArrayFormatter::try_new(old, options)?, ArrayFormatter::try_new(new, options)?);
        for ((o, n), row) in old_at.into_iter().zip(new_at).zip(rows) {
            self.differs[row] |= old.value(o).to_string() != new.value(n).to_string();
        }
        Ok(())
    }

    /// Compares the values of maps key by key, whatever order the keys have.
    fn maps(
        &mut self,
        old: &MapArray,
        new: &MapArray,
        (old_at, new_at, rows): Pairs,
        old_range: &dyn Fn(usize) -> (usize, usize),
        new_range: &dyn Fn(usize) -> (usize, usize),
    ) -> Result<()> {
        let options = FormatOptions::default();
        let (old_keys, new_keys) =
            (ArrayFormatter::try_new(old.keys(), &options)?, ArrayFormatter::try_new(new.keys(), &options)?);
        let mut values: Pairs = Pairs::default();
        for ((o, n), row) in old_at.into_iter().zip(new_at).zip(rows) {
            let ((o, o_length), (n, n_length)) = (old_range(o), new_range(n));
            let places: HashMap<String, usize> =
                (n..n + n_length).map(|place| (new_keys.value(place).to_string(), place)).collect();
            self.differs[row] |= o_length != n_length;
            for place in o..o + o_length {
                match places.get(&old_keys.value(place).to_string()) {
                    Some(other) => {
                        values.0.push(place);
                        values.1.push(*other);
                        values.2.push(row);
                    }
                    None => self.differs[row] = true,
                }
            }
        }
        self.compare(old.values(), new.values(), &values.0, &values.1, &values.2)
    }

    /// Compares lists element by element; `(at, length)` of each by its place.
    fn lists(
        &mut self,
        old: &ArrayRef,
        new: &ArrayRef,
        (old_at, new_at, rows): Pairs,
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

/// The numbers of `array`, by their places; those that models mostly give are read where they are.
fn numbers(array: &ArrayRef) -> Result<Box<dyn Fn(usize) -> f64>> {
    Ok(match array.data_type() {
        DataType::Float32 => {
            let values = array.as_primitive::<Float32Type>().values().clone();
            Box::new(move |place| values[place].into())
        }
        _ => {
            let values = cast(array, &DataType::Float64)?.as_primitive::<Float64Type>().values().clone();
            Box::new(move |place| values[place])
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{FixedSizeListArray, Int64Array, ListArray, MapBuilder, StringBuilder};
    use datafusion::arrow::array::{Float32Array, Float64Builder};

    fn compare(old: ArrayRef, new: ArrayRef) -> Vec<(f64, bool)> {
        let rows: Vec<_> = (0..old.len()).collect();
        let mut found = Comparison { difference: vec![0.0; old.len()], differs: vec![false; old.len()] };
        found.compare(&old, &new, &rows, &rows, &rows).expect("predictions of one type");
        found.difference.into_iter().zip(found.differs).collect()
    }

    #[test]
    fn numbers_have_distances_and_labels_have_none() {
        let floats = |values: [Option<f32>; 4]| Arc::new(Float32Array::from(values.to_vec())) as ArrayRef;
        let infinite = f32::INFINITY;
        let old = floats([Some(1.0), Some(f32::NAN), None, Some(infinite)]);
        let new = floats([Some(1.5), Some(f32::NAN), Some(0.0), Some(infinite)]);
        assert_eq!(compare(old, new), [(0.5, false), (0.0, false), (0.0, true), (0.0, false)]);
        let labels = |values: [i64; 2]| Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
        assert_eq!(compare(labels([1 << 60, 5]), labels([(1 << 60) + 1, 5])), [(0.0, true), (0.0, false)]);
    }

    #[test]
    fn lists_are_compared_from_where_they_start() {
        let list = |rows: Vec<Vec<f32>>| {
            let rows = rows.into_iter().map(|row| Some(row.into_iter().map(Some)));
            Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(rows)) as ArrayRef
        };
        let old = list(vec![vec![9.0; 3], vec![1.0, 2.0], vec![1.0]]).slice(1, 2);
        let new = list(vec![vec![1.0, 2.25], vec![1.0, 2.0]]);
        assert_eq!(compare(old, new), [(0.25, false), (0.0, true)]);
        let fixed = |values: Vec<f32>| {
            let rows = values.chunks(2).map(|row| Some(row.iter().copied().map(Some).collect::<Vec<_>>()));
            Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(rows, 2)) as ArrayRef
        };
        let old = fixed(vec![9.0, 9.0, 1.0, 2.0, 3.0, 4.0]).slice(1, 2);
        assert_eq!(compare(old, fixed(vec![1.0, 2.0, 3.0, 5.0])), [(0.0, false), (1.0, false)]);
    }

    #[test]
    fn maps_are_compared_by_their_keys() {
        let map = |rows: &[&[(&str, f64)]]| {
            let mut builder = MapBuilder::new(None, StringBuilder::new(), Float64Builder::new());
            for row in rows {
                for (key, value) in *row {
                    builder.keys().append_value(key);
                    builder.values().append_value(*value);
                }
                builder.append(true).expect("as many keys as values");
            }
            Arc::new(builder.finish()) as ArrayRef
        };
        let old = map(&[&[("z", 9.0)], &[("a", 0.25), ("b", 0.75)], &[("a", 1.0)]]).slice(1, 2);
        let new = map(&[&[("b", 0.5), ("a", 0.5)], &[("c", 1.0)]]);
        assert_eq!(compare(old, new), [(0.25, false), (0.0, true)]);
    }
}
