//! The values of a graph while it is compiled: arrays of operands, one dimension of which may be the rows.

use std::sync::Arc;

use crate::program::{Kind, Register, Texts};
use crate::tensor::ElementType;

/// Why a graph is not compiled.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Refusal {
    /// It holds something that this engine does not do; another may.
    Unsupported(String),
    /// It makes no sense, and is to be run by nobody.
    Invalid(String),
}

pub(crate) type Result<T, E = Refusal> = std::result::Result<T, E>;

/// `Err` of something that this engine does not do.
macro_rules! unsupported {
    ($($message:tt)+) => {
        return Err($crate::builder::value::Refusal::Unsupported(format!($($message)+)))
    };
}

/// `Err` of something that makes no sense.
macro_rules! invalid {
    ($($message:tt)+) => {
        return Err($crate::builder::value::Refusal::Invalid(format!($($message)+)))
    };
}
pub(crate) use {invalid, unsupported};

/// A number or a text that is known when the graph is compiled.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scalar {
    F32(f32),
    F64(f64),
    /// Integers and booleans.
    I64(i64),
    Text(Arc<str>),
    /// The number of rows.
    Rows,
}

/// One element of a value, for each row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operand {
    Register(Register),
    Constant(Scalar),
    /// A column of texts among the inputs, by its number.
    Text(usize),
}

impl Operand {
    pub(crate) fn constant(&self) -> Option<&Scalar> {
        match self {
            Self::Constant(scalar) => Some(scalar),
            _ => None,
        }
    }
}

/// A value of the graph: its elements in row-major order.
///
/// The dimension of the rows, if there is one, counts as 1: the elements are those of one row.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    pub element: ElementType,
    pub dims: Vec<usize>,
    /// Which dimension is that of the rows.
    pub rows: Option<usize>,
    pub items: Vec<Operand>,
    /// Of a text that is computed: the items are positions in these.
    pub texts: Option<Texts>,
}

/// Items of a value, at most.
const MOST_ITEMS: usize = 1 << 20;

/// Dimensions, at most.
const MOST_DIMENSIONS: usize = 16;

/// The number of items of a value of `dims`; a refusal where a program is not the way to compute so many, or where
/// dimensions are large though one is zero.
pub(crate) fn check_size(dims: &[usize]) -> Result<usize> {
    let without_zeros = dims.iter().filter(|dim| **dim > 0).try_fold(1usize, |size, dim| size.checked_mul(*dim));
    match without_zeros {
        Some(size) if size <= MOST_ITEMS && dims.len() <= MOST_DIMENSIONS => Ok(dims.iter().product()),
        _ => unsupported!("a value of dimensions {dims:?} is large"),
    }
}

/// The storage of elements of a type, if this engine computes with them.
pub(crate) fn kind_of(element: ElementType) -> Result<Kind> {
    match element {
        ElementType::Float32 => Ok(Kind::F32),
        ElementType::Float64 => Ok(Kind::F64),
        ElementType::Int64
        | ElementType::Int32
        | ElementType::Int16
        | ElementType::Int8
        | ElementType::UInt8
        | ElementType::UInt16
        | ElementType::UInt32
        | ElementType::Bool => Ok(Kind::I64),
        ElementType::String
        | ElementType::Bytes
        | ElementType::Float16
        | ElementType::BFloat16
        | ElementType::UInt64 => {
            unsupported!("elements of type {element}")
        }
    }
}

impl Value {
    pub(crate) fn of_rows(element: ElementType, dims: Vec<usize>, items: Vec<Operand>) -> Self {
        Self { element, dims, rows: Some(0), items, texts: None }
    }

    pub(crate) fn constant(element: ElementType, dims: Vec<usize>, items: Vec<Scalar>) -> Self {
        let items = items.into_iter().map(Operand::Constant).collect();
        Self { element, dims, rows: None, items, texts: None }
    }

    /// The same items in another form.
    pub(crate) fn reshaped(&self, dims: Vec<usize>, rows: Option<usize>) -> Self {
        Self { dims, rows, ..self.clone() }
    }

    /// Other items of the same kind.
    pub(crate) fn with_items(&self, dims: Vec<usize>, rows: Option<usize>, items: Vec<Operand>) -> Self {
        Self { dims, rows, items, ..self.clone() }
    }

    pub(crate) fn rank(&self) -> usize {
        self.dims.len()
    }

    /// The dimension that `axis` names, from the end if it is negative.
    pub(crate) fn axis(&self, axis: i64) -> Result<usize> {
        axis_of(axis, self.rank())
    }

    /// As [`axis`](Self::axis), for an operator that reads along it: it may not be that of the rows.
    pub(crate) fn inner_axis(&self, axis: i64) -> Result<usize> {
        let axis = self.axis(axis)?;
        if self.rows == Some(axis) {
            unsupported!("works along the rows");
        }
        Ok(axis)
    }

    /// The items, if all are known.
    pub(crate) fn scalars(&self) -> Option<Vec<&Scalar>> {
        self.items.iter().map(Operand::constant).collect()
    }

    /// The items as integers, which must be known.
    pub(crate) fn integers(&self) -> Result<Vec<i64>> {
        let integer = |item: &Operand| match item {
            Operand::Constant(Scalar::I64(value)) => Some(*value),
            _ => None,
        };
        match self.items.iter().map(integer).collect() {
            Some(integers) if self.rows.is_none() => Ok(integers),
            _ => unsupported!("takes integers that are not constant"),
        }
    }

    /// The columns of a matrix whose rows are the rows, `[N,F]`. (Of `[N]` ONNX Runtime makes one row of N columns.)
    pub(crate) fn columns(&self) -> Result<&[Operand]> {
        match (self.rows, self.rank()) {
            (Some(0), 2) => Ok(&self.items),
            (rows, rank) => unsupported!("takes a matrix of rows, not {rank} dimensions with the rows at {rows:?}"),
        }
    }

    /// The strides of the dimensions.
    pub(crate) fn strides(&self) -> Vec<usize> {
        strides(&self.dims)
    }

    /// For each item of a value of `dims`, the item of this one that stands there when it is broadcast.
    pub(crate) fn broadcast(&self, dims: &[usize]) -> Vec<usize> {
        let missing = dims.len() - self.rank();
        let own = self.strides();
        let stride = |axis: usize| match axis.checked_sub(missing) {
            Some(axis) if self.dims[axis] > 1 => own[axis],
            _ => 0,
        };
        let strides: Vec<_> = (0..dims.len()).map(stride).collect();
        positions(dims).map(|position| position.iter().zip(&strides).map(|(i, stride)| i * stride).sum()).collect()
    }
}

pub(crate) fn axis_of(axis: i64, rank: usize) -> Result<usize> {
    let from_start = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
    match from_start.and_then(|axis| usize::try_from(axis).ok()).filter(|axis| *axis < rank) {
        Some(axis) => Ok(axis),
        None => invalid!("axis {axis} of {rank} dimensions"),
    }
}

pub(crate) fn strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis] * dims[axis];
    }
    strides
}

/// All positions in an array of `dims`, in row-major order.
pub(crate) fn positions(dims: &[usize]) -> impl Iterator<Item = Vec<usize>> + '_ {
    let count: usize = dims.iter().product();
    let strides = strides(dims);
    (0..count).map(move |item| dims.iter().zip(&strides).map(|(dim, stride)| item / stride % dim).collect())
}

/// The form that values take together: dimensions, and which of them is that of the rows.
pub(crate) fn broadcast_form(values: &[&Value]) -> Result<(Vec<usize>, Option<usize>)> {
    let rank = values.iter().map(|value| value.rank()).max().unwrap_or(0);
    let mut dims = vec![1; rank];
    let mut rows = None;
    for value in values {
        let missing = rank - value.rank();
        for (dim, own) in dims[missing..].iter_mut().zip(&value.dims) {
            *dim = match (*dim, *own) {
                (1, own) => own,
                (dim, 1) => dim,
                (dim, own) if dim == own => dim,
                (dim, own) => invalid!("has dimensions {dim} and {own} that do not match"),
            };
        }
        match (rows, value.rows.map(|axis| axis + missing)) {
            (_, None) => {}
            (None, found) => rows = found,
            (Some(axis), Some(found)) if axis == found => {}
            _ => unsupported!("combines rows with something else than rows"),
        }
    }
    match rows {
        Some(axis) if dims[axis] != 1 => unsupported!("combines rows with constants for each row"),
        _ => check_size(&dims).map(|_| (dims, rows)),
    }
}
