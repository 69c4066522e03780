//! `softmax`, `argmax` and `top_k`: what is done with a list of scores.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, Float64Array, Int64Array, ListArray, PrimitiveArray, StructArray,
    UInt64Array,
};
use datafusion::arrow::buffer::{NullBuffer, OffsetBuffer};
use datafusion::arrow::compute::{cast, take};
use datafusion::arrow::datatypes::{ArrowPrimitiveType, DataType, Field, FieldRef, Fields, Float32Type, Float64Type};
use datafusion::common::{Result, ScalarValue, internal_err, plan_err};
use datafusion::logical_expr::scalar_doc_sections::DOC_SECTION_ARRAY;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// What is done with scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Task {
    /// `softmax`: shares that are 1 together.
    Softmax,
    /// `argmax`: the place of the largest, from 1 on.
    Argmax,
    /// `top_k`: the largest, with their places.
    TopK,
}

/// A function of scores.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ScoresFunction {
    task: Task,
    signature: Signature,
}

pub(super) fn scores_functions() -> [Arc<ScalarUDF>; 3] {
    [Task::Softmax, Task::Argmax, Task::TopK].map(|task| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(ScoresFunction { task, signature }))
    })
}

/// The type that scores are made of: lists of floats stay what they are, and other numbers become `DOUBLE`.
fn taken(data_type: &DataType) -> Option<DataType> {
    let item = |field: &FieldRef| match field.data_type() {
        DataType::Float32 => Some(field.clone()),
        other if other.is_numeric() || *other == DataType::Null => {
            Some(Arc::new(Field::new_list_field(DataType::Float64, true)))
        }
        _ => None,
    };
    match data_type {
        DataType::FixedSizeList(field, size) => Some(DataType::FixedSizeList(item(field)?, *size)),
        DataType::List(field) | DataType::LargeList(field) => Some(DataType::List(item(field)?)),
        DataType::Null => Some(DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true)))),
        _ => None,
    }
}

/// The types of a label and its score, of a map from the one to the other.
fn label_and_score(data_type: &DataType) -> Option<(DataType, DataType)> {
    let DataType::Map(entries, _) = data_type else { return None };
    let DataType::Struct(fields) = entries.data_type() else { return None };
    match fields.iter().map(|field| field.data_type()).collect::<Vec<_>>().as_slice() {
        [label, score] if score.is_numeric() => Some(((*label).clone(), (*score).clone())),
        _ => None,
    }
}

/// The type of what `top_k` gives: lists of places, or labels, and scores.
fn ranked(name: &str, key: DataType, score: DataType) -> Fields {
    Fields::from(vec![Field::new(name, key, true), Field::new("score", score, true)])
}

fn list_of(fields: Fields) -> FieldRef {
    Arc::new(Field::new_list_field(DataType::Struct(fields), true))
}

impl ScoresFunction {
    fn fields(&self, scores: &DataType) -> Result<Fields> {
        match (label_and_score(scores), scores) {
            (Some((label, score)), _) => Ok(ranked("label", label, score)),
            (None, DataType::List(item) | DataType::FixedSizeList(item, _)) => {
                Ok(ranked("position", DataType::Int64, item.data_type().clone()))
            }
            (None, other) => internal_err!("top_k of {other}"),
        }
    }
}

impl ScalarUDFImpl for ScoresFunction {
    fn name(&self) -> &str {
        match self.task {
            Task::Softmax => "softmax",
            Task::Argmax => "argmax",
            Task::TopK => "top_k",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let (scores, others) = match types {
            [scores, others @ ..] => (scores, others),
            [] => return plan_err!("{} takes a list of numbers", self.name()),
        };
        let with_labels = self.task == Task::TopK && label_and_score(scores).is_some();
        let Some(scores) = (if with_labels { Some(scores.clone()) } else { taken(scores) }) else {
            return plan_err!("{} takes a list of numbers, found {scores}", self.name());
        };
        match (self.task, others) {
            (Task::Softmax | Task::Argmax, []) => Ok(vec![scores]),
            (Task::TopK, [count]) if count.is_integer() || *count == DataType::Null => {
                Ok(vec![scores, DataType::Int64])
            }
            (Task::TopK, _) => plan_err!("top_k(scores, k) takes a list or a map of scores, and how many are wanted"),
            _ => plan_err!("{} takes one list, found {} arguments", self.name(), types.len()),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match self.task {
            Task::Softmax => Ok(types[0].clone()),
            Task::Argmax => Ok(DataType::Int64),
            Task::TopK => Ok(DataType::List(list_of(self.fields(&types[0])?))),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_scalar { 1 } else { args.number_rows };
        let scores = args.args[0].to_array(rows)?;
        let result = match self.task {
            Task::Softmax => softmax(&scores)?,
            Task::Argmax => argmax(&Lists::of(&scores)?)?,
            Task::TopK => {
                let counts = args.args[1].to_array(rows)?;
                top_k(&Lists::of(&scores)?, counts.as_primitive(), self.fields(scores.data_type())?)?
            }
        };
        if is_scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }

    fn documentation(&self) -> Option<&Documentation> {
        static SOFTMAX: LazyLock<Documentation> = LazyLock::new(|| {
            let description = "Scores as shares that are positive and 1 together: what a classifier without a last step gives, made probabilities.";
            Documentation::builder(DOC_SECTION_ARRAY, description, "softmax(scores)")
                .with_argument("scores", "A list of numbers.")
                .with_sql_example("```sql\nSELECT softmax([1.0, 2.0]);\n```")
                .build()
        });
        static ARGMAX: LazyLock<Documentation> = LazyLock::new(|| {
            let description = "The place of the largest number of a list, from 1 on; of equal ones the first.";
            Documentation::builder(DOC_SECTION_ARRAY, description, "argmax(scores)")
                .with_argument("scores", "A list of numbers; NULL and NaN among them are passed over.")
                .with_sql_example("```sql\nSELECT argmax([1.0, 3.0, 2.0]);\n```")
                .build()
        });
        static TOP_K: LazyLock<Documentation> = LazyLock::new(|| {
            let description = "The largest scores of a list or a map, the largest first, with their places from 1 on, or their labels.";
            Documentation::builder(DOC_SECTION_ARRAY, description, "top_k(scores, k)")
                .with_argument(
                    "scores",
                    "A list of numbers, or a map from labels to numbers; NULL and NaN are passed over.",
                )
                .with_argument("k", "How many, at most.")
                .with_sql_example("```sql\nSELECT top_k([0.1, 0.7, 0.2], 2);\n```")
                .build()
        });
        Some(match self.task {
            Task::Softmax => &SOFTMAX,
            Task::Argmax => &ARGMAX,
            Task::TopK => &TOP_K,
        })
    }
}

/// Lists of scores: where each begins and ends, and what stands beside the scores.
struct Lists {
    scores: Float64Array,
    labels: Option<ArrayRef>,
    /// As many as there are rows, and one more.
    offsets: Vec<usize>,
    nulls: Option<NullBuffer>,
    /// The scores as they came.
    original: ArrayRef,
}

impl Lists {
    fn of(array: &ArrayRef) -> Result<Self> {
        let (original, labels, offsets): (ArrayRef, Option<ArrayRef>, Vec<usize>) = match array.data_type() {
            DataType::FixedSizeList(_, size) => {
                let (list, size) = (array.as_fixed_size_list(), *size as usize);
                let first = if list.is_empty() { 0 } else { list.value_offset(0) as usize };
                (list.values().clone(), None, (0..=list.len()).map(|row| first + row * size).collect())
            }
            DataType::Map(..) => {
                let map = array.as_map();
                let offsets = map.offsets().iter().map(|offset| *offset as usize).collect();
                (map.values().clone(), Some(map.keys().clone()), offsets)
            }
            _ => {
                let list = array.as_list::<i32>();
                (list.values().clone(), None, list.offsets().iter().map(|offset| *offset as usize).collect())
            }
        };
        // Of lists that were sliced, the scores of these rows alone.
        let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
        let slice = |array: ArrayRef| array.slice(first, last - first);
        let (original, labels) = (slice(original), labels.map(slice));
        let offsets = offsets.into_iter().map(|offset| offset - first).collect();
        let scores = cast(&original, &DataType::Float64)?;
        let scores = scores.as_primitive::<Float64Type>().clone();
        Ok(Self { scores, labels, offsets, nulls: array.nulls().cloned(), original })
    }

    fn rows(&self) -> usize {
        self.offsets.len() - 1
    }

    fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    /// The scores of a row that are numbers, each with its place among all.
    fn numbers(&self, row: usize) -> impl Iterator<Item = (usize, f64)> {
        let places = self.offsets[row]..self.offsets[row + 1];
        places
            .filter(|place| self.scores.is_valid(*place))
            .map(|place| (place, self.scores.value(place)))
            .filter(|(_, score)| !score.is_nan())
    }
}

fn argmax(lists: &Lists) -> Result<ArrayRef> {
    let place = |row: usize| {
        if lists.is_null(row) {
            return None;
        }
        let best = lists.numbers(row).reduce(|best, other| if other.1 > best.1 { other } else { best })?;
        Some((best.0 - lists.offsets[row]) as i64 + 1)
    };
    Ok(Arc::new((0..lists.rows()).map(place).collect::<Int64Array>()))
}

fn top_k(lists: &Lists, counts: &Int64Array, fields: Fields) -> Result<ArrayRef> {
    let (mut places, mut positions, mut lengths, mut nulls) = (vec![], vec![], vec![], vec![]);
    let mut row_scores: Vec<(usize, f64)> = vec![];
    for row in 0..lists.rows() {
        let is_null = lists.is_null(row) || counts.is_null(row);
        nulls.push(!is_null);
        if is_null {
            lengths.push(0);
            continue;
        }
        let Ok(count) = usize::try_from(counts.value(row)) else {
            return plan_err!("top_k(scores, k): k is {}, expected 0 or more", counts.value(row));
        };
        row_scores.clear();
        row_scores.extend(lists.numbers(row));
        let by_score = |a: &(usize, f64), b: &(usize, f64)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if count > 0 && count < row_scores.len() {
            row_scores.select_nth_unstable_by(count - 1, by_score);
        }
        row_scores.truncate(count);
        row_scores.sort_unstable_by(by_score);
        lengths.push(row_scores.len());
        places.extend(row_scores.iter().map(|(place, _)| *place as u64));
        positions.extend(row_scores.iter().map(|(place, _)| (place - lists.offsets[row]) as i64 + 1));
    }
    let places = UInt64Array::from(places);
    let keys: ArrayRef = match &lists.labels {
        Some(labels) => take(labels, &places, None)?,
        None => Arc::new(Int64Array::from(positions)),
    };
    let ranked = StructArray::try_new(fields.clone(), vec![keys, take(&lists.original, &places, None)?], None)?;
    let list = ListArray::try_new(
        list_of(fields),
        OffsetBuffer::from_lengths(lengths),
        Arc::new(ranked),
        Some(NullBuffer::from(nulls)),
    )?;
    Ok(Arc::new(list))
}

/// The lists with shares in place of scores; NULL where a list has a NULL.
fn softmax(array: &ArrayRef) -> Result<ArrayRef> {
    let lists = Lists::of(array)?;
    let has_null = lists.scores.null_count() > 0;
    let whole = |row: usize| {
        let places = lists.offsets[row]..lists.offsets[row + 1];
        !lists.is_null(row) && (!has_null || places.into_iter().all(|place| lists.scores.is_valid(place)))
    };
    let nulls: NullBuffer = (0..lists.rows()).map(whole).collect();
    let mut shares: Vec<f64> = lists.scores.values().to_vec();
    for row in (0..lists.rows()).filter(|row| nulls.is_valid(*row)) {
        let shares = &mut shares[lists.offsets[row]..lists.offsets[row + 1]];
        // The largest becomes 1 before it is a share: no power is infinite.
        let largest = shares.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        shares.iter_mut().for_each(|share| *share = (*share - largest).exp());
        let sum: f64 = shares.iter().sum();
        shares.iter_mut().for_each(|share| *share /= sum);
    }
    let values: ArrayRef = match lists.original.data_type() {
        DataType::Float32 => floats::<Float32Type>(shares.into_iter().map(|share| share as f32)),
        _ => floats::<Float64Type>(shares.into_iter()),
    };
    match array.data_type() {
        DataType::FixedSizeList(item, size) => {
            Ok(Arc::new(FixedSizeListArray::try_new(item.clone(), *size, values, Some(nulls))?))
        }
        DataType::List(item) => {
            let offsets = OffsetBuffer::from_lengths(lists.offsets.windows(2).map(|row| row[1] - row[0]));
            Ok(Arc::new(ListArray::try_new(item.clone(), offsets, values, Some(nulls))?))
        }
        other => internal_err!("softmax of {other}"),
    }
}

fn floats<T: ArrowPrimitiveType>(values: impl Iterator<Item = T::Native>) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::from_iter_values(values))
}
