//! Tensors → Arrow columns.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, Int64Array, ListArray, MapArray, StringArray, StructArray,
};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Fields, Int64Type};
use datafusion::common::Result;
use datafusion_predict_native::{ClassLabels, Dimension, Labels, Tensor, TensorSpec};

/// How one output of a model becomes a column.
#[derive(Debug, Clone)]
pub(crate) struct OutputColumn {
    /// The name of the output in the graph.
    pub name: String,
    data_type: DataType,
    form: Form,
}

#[derive(Debug, Clone)]
enum Form {
    /// `[N]` or `[N,1]`: one value for each row.
    Scalar,
    /// `[N,d…]`: nested lists; `None` for a dimension that differs from run to run.
    Lists(Vec<Option<usize>>),
    /// `[N,k]`: lists of a fixed size, which functions of vectors take.
    Vector(usize),
    /// One column of `[N,k]`.
    Class(usize),
    /// `[N,k]`: a map from label to value.
    Map(ClassLabels),
    /// Several tensors of one type: a list of what each is for the row.
    Sequence(Vec<OutputColumn>),
    /// `[N]` or `[N,1]`: the label of the class whose number the model gives.
    Label(ClassLabels, Option<Vec<i64>>),
}

impl OutputColumn {
    /// Whether the output `spec` has a score for each class, or the number of one.
    pub(crate) fn takes_labels(spec: &TensorSpec, labels: &ClassLabels) -> bool {
        match spec.row_shape() {
            [] | [Dimension::Fixed(1)] => spec.element.arrow().is_integer(),
            [Dimension::Fixed(classes)] => spec.element.is_float() && *classes == labels.len(),
            _ => false,
        }
    }

    /// The column for the output `spec`: its list or number; a map if there are `labels` for its columns, and a label if there
    /// are for its values.
    pub(crate) fn new(spec: &TensorSpec, labels: Option<&ClassLabels>) -> Self {
        let value = spec.element.arrow();
        let (data_type, form) = match (labels, spec.row_shape()) {
            (Some(labels), [] | [Dimension::Fixed(1)]) if value.is_integer() => {
                (key_type(labels), Form::Label(labels.clone(), None))
            }
            (Some(labels), _) => (map_type(key_type(labels), value), Form::Map(labels.clone())),
            (None, [] | [Dimension::Fixed(1)]) => (value, Form::Scalar),
            (None, dims) => {
                let dims: Vec<_> = dims.iter().map(Dimension::size).collect();
                (dims.iter().fold(value, |inner, _| list_type(inner)), Form::Lists(dims))
            }
        };
        Self { name: spec.name.clone(), data_type, form }
    }

    /// The column for an output that is a vector for each row.
    pub(crate) fn vector(spec: &TensorSpec) -> Self {
        match spec.row_shape() {
            [Dimension::Fixed(size)] if i32::try_from(*size).is_ok() => {
                let data_type = vector_type(spec.element.arrow(), *size as i32); // it fits
                Self { name: spec.name.clone(), data_type, form: Form::Vector(*size) }
            }
            _ => Self::new(spec, None),
        }
    }

    /// The column for one class: the one at `position` among the output's columns.
    pub(crate) fn class(spec: &TensorSpec, position: usize) -> Self {
        Self { name: spec.name.clone(), data_type: spec.element.arrow(), form: Form::Class(position) }
    }

    /// The column for an output that is a sequence of tensors; `None` if these are not of one type.
    pub(crate) fn sequence(name: &str, parts: &[TensorSpec]) -> Option<Self> {
        let parts: Vec<_> = parts.iter().map(|part| Self::new(part, None)).collect();
        let first = parts.first()?.data_type.clone();
        let same = parts.iter().all(|part| part.data_type == first);
        same.then(|| Self { name: name.to_owned(), data_type: list_type(first), form: Form::Sequence(parts) })
    }

    /// The same, where the numbers of classes are these, and not counted from 0.
    pub(crate) fn of_classes(self, numbers: Vec<i64>) -> Self {
        let form = match self.form {
            Form::Label(labels, _) if labels.len() == numbers.len() => Form::Label(labels, Some(numbers)),
            form => form,
        };
        Self { form, ..self }
    }

    /// Whether its values, in lists or maps or not, are floats.
    pub(crate) fn holds_floats(&self) -> bool {
        fn is_float(data_type: &DataType) -> bool {
            match data_type {
                DataType::List(item) | DataType::FixedSizeList(item, _) => is_float(item.data_type()),
                DataType::Map(entries, _) => match entries.data_type() {
                    DataType::Struct(pair) => pair.last().is_some_and(|value| is_float(value.data_type())),
                    _ => false,
                },
                other => other.is_floating(),
            }
        }
        is_float(&self.data_type)
    }

    /// Whether a number that the model gives may have no label, which is then the row's fault.
    pub(crate) fn is_label(&self) -> bool {
        matches!(self.form, Form::Label(..))
    }

    /// How many tensors it is made of.
    pub(crate) fn tensors(&self) -> usize {
        match &self.form {
            Form::Sequence(parts) => parts.len(),
            _ => 1,
        }
    }

    pub(crate) fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// The column for `rows` rows, or what is wrong with one of its tensors.
    pub(crate) fn decode(&self, tensors: &[Tensor], rows: usize) -> Result<ArrayRef, String> {
        match (&self.form, tensors) {
            (Form::Sequence(parts), tensors) => {
                let parts = parts.iter().zip(tensors).map(|(part, tensor)| part.decode_tensor(tensor, rows));
                let parts = parts.collect::<Result<Vec<_>, _>>()?;
                let columns: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
                let count = columns.len();
                let places: Vec<_> = (0..rows).flat_map(|row| (0..count).map(move |part| (part, row))).collect();
                list(compute::interleave(&columns, &places).map_err(|error| error.to_string())?, rows, count)
            }
            (_, [only]) => self.decode_tensor(only, rows),
            (_, several) => Err(format!("has {} tensors, expected 1", several.len())),
        }
    }

    fn decode_tensor(&self, tensor: &Tensor, rows: usize) -> Result<ArrayRef, String> {
        let shape = &tensor.shape;
        if shape.iter().try_fold(1usize, |n, size| n.checked_mul(*size)) != Some(tensor.data.len()) {
            return Err(format!("has shape {shape:?}, but {} values", tensor.data.len()));
        }
        // Nothing keeps a model from giving [N,1] where it gave [N].
        let given = match (tensor.rows(), shape.len()) {
            (given, 1..) => given,
            (_, _) => return Err(format!("is one value, expected one for each of {rows} rows")),
        };
        if given != rows {
            return Err(format!("has {given} rows, expected {rows}"));
        }
        let width: usize = shape[1..].iter().product();
        let values = tensor.data.to_array();
        match &self.form {
            Form::Scalar if width == 1 => Ok(values),
            Form::Scalar => Err(format!("has shape {shape:?}, expected one value for each row")),
            Form::Sequence(_) => Err("is a sequence within a sequence".to_owned()),
            Form::Label(labels, classes) if width == 1 => label(labels, classes.as_deref(), &values),
            Form::Label(..) => Err(format!("has shape {shape:?}, expected the number of a class for each row")),
            Form::Vector(size) if shape.len() == 2 && width == *size => {
                let vectors = FixedSizeListArray::try_new(item(values.data_type().clone()), width as i32, values, None);
                vectors.map(|vectors| Arc::new(vectors) as ArrayRef).map_err(|error| error.to_string())
            }
            Form::Vector(size) => Err(format!("has shape {shape:?}, expected {size} values for each row")),
            Form::Class(position) if shape.len() == 2 && *position < width => {
                let indices: Int64Array = (0..rows).map(|row| (row * width + position) as i64).collect();
                compute::take(&values, &indices, None).map_err(|error| error.to_string())
            }
            Form::Class(position) => Err(format!("has shape {shape:?}, expected more than {position} classes")),
            Form::Lists(dims) if dims.len() == shape.len() - 1 => {
                let levels = dims.iter().zip(&shape[1..]).enumerate().rev();
                levels.into_iter().try_fold(values, |inner, (level, (dim, size))| match dim {
                    Some(fixed) if fixed != size => {
                        Err(format!("has shape {shape:?}, expected {fixed} in place of {size}"))
                    }
                    _ => list(inner, shape[..=level].iter().product(), *size),
                })
            }
            Form::Lists(dims) => Err(format!("has shape {shape:?}, expected {} dimensions", dims.len() + 1)),
            Form::Map(labels) if shape.len() == 2 && width == labels.len() => Ok(map(labels, values, rows)),
            Form::Map(labels) => {
                Err(format!("has shape {shape:?}, expected a value for each of {} classes", labels.len()))
            }
        }
    }
}

/// The columns of several outputs under one: the column itself, or a struct of all.
pub(crate) fn concat(columns: &[OutputColumn], arrays: Vec<ArrayRef>) -> ArrayRef {
    match <[ArrayRef; 1]>::try_from(arrays) {
        Ok([only]) => only,
        Err(arrays) => Arc::new(StructArray::new(struct_fields(columns), arrays, None)),
    }
}

/// The fields of a struct of `columns`.
pub(crate) fn struct_fields(columns: &[OutputColumn]) -> Fields {
    columns.iter().map(|column| Field::new(&column.name, column.data_type.clone(), true)).collect()
}

/// The type of lists of `inner`.
pub(crate) fn list_type(inner: DataType) -> DataType {
    DataType::List(item(inner))
}

/// The type of vectors of `size` values.
pub(crate) fn vector_type(inner: DataType, size: i32) -> DataType {
    DataType::FixedSizeList(item(inner), size)
}

fn item(data_type: DataType) -> FieldRef {
    Arc::new(Field::new_list_field(data_type, true))
}

/// Lists of `size` values each. They have no fixed size in their type: casts to text and several functions of DataFusion
/// take no other lists.
fn list(inner: ArrayRef, rows: usize, size: usize) -> Result<ArrayRef, String> {
    let count = rows.checked_mul(size).and_then(|count| i32::try_from(count).ok());
    if count.is_none() {
        return Err(format!(
            "has {rows} lists of {size} values, more than a column can hold: use a smaller batch_size"
        ));
    }
    let field = item(inner.data_type().clone());
    Ok(Arc::new(ListArray::new(field, OffsetBuffer::from_repeated_length(size, rows), inner, None)))
}

/// The fields of a map's entries, with the names that DataFusion's functions and Parquet expect.
fn map_entries(key: DataType, value: DataType) -> Fields {
    Fields::from(vec![Field::new("key", key, false), Field::new("value", value, true)])
}

/// The type of maps from `key` to `value`.
pub(crate) fn map_type(key: DataType, value: DataType) -> DataType {
    let entries = DataType::Struct(map_entries(key, value));
    DataType::Map(Arc::new(Field::new("entries", entries, false)), false)
}

fn key_type(labels: &ClassLabels) -> DataType {
    match &labels.labels {
        Labels::Ints(_) => DataType::Int64,
        Labels::Strings(_) => DataType::Utf8,
    }
}

/// The labels of the classes whose numbers are `classes`, or count from 0.
fn label(labels: &ClassLabels, classes: Option<&[i64]>, numbers: &ArrayRef) -> Result<ArrayRef, String> {
    let numbers = compute::cast(numbers, &DataType::Int64).map_err(|error| error.to_string())?;
    let numbers = numbers.as_primitive::<Int64Type>();
    let place = |number: &i64| match classes {
        Some(classes) => classes.iter().position(|class| class == number),
        None => usize::try_from(*number).ok().filter(|place| *place < labels.len()),
    };
    let places = numbers.values().iter().map(|number| {
        let place =
            place(number).ok_or_else(|| format!("gave class {number}, but there are {} labels", labels.len()))?;
        Ok(place as i64)
    });
    let places = Int64Array::from(places.collect::<Result<Vec<_>, String>>()?);
    let keys: ArrayRef = match &labels.labels {
        Labels::Ints(ints) => Arc::new(Int64Array::from(ints.clone())),
        Labels::Strings(strings) => Arc::new(StringArray::from(strings.clone())),
    };
    compute::take(&keys, &places, None).map_err(|error| error.to_string())
}

fn map(labels: &ClassLabels, values: ArrayRef, rows: usize) -> ArrayRef {
    let keys: ArrayRef = match &labels.labels {
        Labels::Ints(ints) => Arc::new((0..rows).flat_map(|_| ints.iter().copied()).collect::<Int64Array>()),
        Labels::Strings(strings) => Arc::new((0..rows).flat_map(|_| strings.iter().map(Some)).collect::<StringArray>()),
    };
    let fields = map_entries(key_type(labels), values.data_type().clone());
    let entries = StructArray::new(fields.clone(), vec![keys, values], None);
    let field = Arc::new(Field::new("entries", DataType::Struct(fields), false));
    Arc::new(MapArray::new(field, OffsetBuffer::from_repeated_length(labels.len(), rows), entries, None, false))
}
