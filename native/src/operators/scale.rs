//! Operators of ai.onnx.ml that prepare numbers.

use super::cast::cast_to;
use crate::builder::Node;
use crate::builder::{Operand, Result, Scalar, Value, check_size, invalid, kind_of, unsupported};
use crate::builder::{Origin, ProgramBuilder};
use crate::program::{Buffer, Kernel, Kind, Slice};
use crate::tensor::ElementType;
use crate::trees::TreeScratch;

/// The value that belongs to each column: `values` has one for each, or one for all.
fn for_each_column<'a, T>(values: &'a [T], columns: usize, name: &str) -> Result<Vec<&'a T>> {
    match values.len() {
        1 => Ok(vec![&values[0]; columns]),
        len if len == columns => Ok(values.iter().collect()),
        len => invalid!("{name} has {len} values for {columns} columns"),
    }
}

/// `(x - offset) * scale`
#[derive(Debug)]
struct Scale(Vec<(f32, f32)>);

impl Kernel for Scale {
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        _: &mut TreeScratch,
    ) -> Result<(), String> {
        for ((input, output), (offset, scale)) in inputs.iter().zip(outputs).zip(&self.0) {
            let output = &mut output.f32s_mut()[..rows];
            match input {
                Slice::F32(x) => output.iter_mut().zip(*x).for_each(|(to, x)| *to = (x - offset) * scale),
                Slice::F64(x) => {
                    let (offset, scale) = (f64::from(*offset), f64::from(*scale));
                    output.iter_mut().zip(*x).for_each(|(to, x)| *to = ((x - offset) * scale) as f32);
                }
                Slice::I64(x) => output.iter_mut().zip(*x).for_each(|(to, x)| *to = (*x as f32 - offset) * scale),
            }
        }
        Ok(())
    }
}

/// A matrix of rows of `element`.
fn matrix(value: &Value, element: ElementType, items: Vec<Operand>) -> Value {
    Value { element, items, texts: None, ..value.clone() }
}

pub(super) fn scaler(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let columns = value.columns()?;
    let offsets = for_each_column(node.floats("offset"), columns.len(), "offset")?;
    let scales = for_each_column(node.floats("scale"), columns.len(), "scale")?;
    let pairs: Vec<_> = offsets.into_iter().copied().zip(scales.into_iter().copied()).collect();
    kind_of(value.element)?;
    let items = builder.emit(Scale(pairs.clone()), columns, &vec![Kind::F32; columns.len()])?;
    for ((item, source), (offset, scale)) in items.iter().zip(columns).zip(pairs) {
        if let Operand::Register(source) = source
            && source.kind == Kind::F32
        {
            builder.set_origin(item, Origin::Scaled { source: *source, offset, scale });
        }
    }
    Ok(vec![matrix(value, ElementType::Float32, items)])
}

#[derive(Debug, Clone, Copy)]
enum Norm {
    Max,
    L1,
    L2,
}

#[derive(Debug)]
struct Normalize(Norm);

impl Kernel for Normalize {
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        _: &mut TreeScratch,
    ) -> Result<(), String> {
        let start = if matches!(self.0, Norm::Max) { f32::MIN } else { 0.0 };
        let mut norms = vec![start; rows];
        for input in inputs {
            for (norm, x) in norms.iter_mut().zip(input.f32s()) {
                *norm = match self.0 {
                    Norm::Max => {
                        if *norm < *x {
                            *x
                        } else {
                            *norm
                        }
                    }
                    Norm::L1 => *norm + x.abs(),
                    Norm::L2 => *norm + x * x,
                };
            }
        }
        for (input, output) in inputs.iter().zip(outputs) {
            for ((to, x), norm) in output.f32s_mut()[..rows].iter_mut().zip(input.f32s()).zip(&norms) {
                *to = match self.0 {
                    _ if *norm == 0.0 => *x,
                    Norm::Max | Norm::L1 => x / norm,
                    Norm::L2 => {
                        let root = (x * x / norm).sqrt();
                        if *x < 0.0 { -root } else { root }
                    }
                };
            }
        }
        Ok(())
    }
}

pub(super) fn normalizer(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let norm = match node.text_or("norm", "MAX").as_str() {
        "MAX" => Norm::Max,
        "L1" => Norm::L1,
        "L2" => Norm::L2,
        other => invalid!("norm is '{other}'"),
    };
    let value = cast_to(builder, node.input(0)?, ElementType::Float32)?;
    let columns = value.columns()?;
    let items = builder.emit(Normalize(norm), columns, &vec![Kind::F32; columns.len()])?;
    Ok(vec![matrix(&value, ElementType::Float32, items)])
}

/// `imputed` in place of `replaced`, which may be NaN.
#[derive(Debug)]
enum Impute {
    Floats { replaced: f32, imputed: Vec<f32> },
    Doubles { replaced: f64, imputed: Vec<f64> },
    Integers { replaced: i64, imputed: Vec<i64> },
}

impl Kernel for Impute {
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        _: &mut TreeScratch,
    ) -> Result<(), String> {
        match self {
            Self::Floats { replaced, imputed } => {
                for ((input, output), imputed) in inputs.iter().zip(outputs).zip(imputed) {
                    for (to, x) in output.f32s_mut()[..rows].iter_mut().zip(input.f32s()) {
                        *to = if x == replaced || (x.is_nan() && replaced.is_nan()) { *imputed } else { *x };
                    }
                }
            }
            Self::Doubles { replaced, imputed } => {
                for ((input, output), imputed) in inputs.iter().zip(outputs).zip(imputed) {
                    for (to, x) in output.f64s_mut()[..rows].iter_mut().zip(input.f64s()) {
                        *to = if x == replaced || (x.is_nan() && replaced.is_nan()) { *imputed } else { *x };
                    }
                }
            }
            Self::Integers { replaced, imputed } => {
                for ((input, output), imputed) in inputs.iter().zip(outputs).zip(imputed) {
                    for (to, x) in output.i64s_mut()[..rows].iter_mut().zip(input.i64s()) {
                        *to = if x == replaced { *imputed } else { *x };
                    }
                }
            }
        }
        Ok(())
    }
}

pub(super) fn imputer(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let columns = value.columns()?;
    let kind = kind_of(value.element)?;
    let floats = || for_each_or_first(node.floats("imputed_value_floats"), columns.len());
    let kernel = match kind {
        Kind::F32 => Impute::Floats { replaced: node.float_or("replaced_value_float", 0.0), imputed: floats()? },
        Kind::F64 => Impute::Doubles {
            replaced: node.float_or("replaced_value_float", 0.0).into(),
            imputed: floats()?.into_iter().map(f64::from).collect(),
        },
        Kind::I64 => Impute::Integers {
            replaced: node.int_or("replaced_value_int64", 0),
            imputed: for_each_or_first(node.ints("imputed_value_int64s"), columns.len())?,
        },
    };
    let items = builder.emit(kernel, columns, &vec![kind; columns.len()])?;
    Ok(vec![matrix(value, value.element, items)])
}

/// One value for each column, or the first for all, as ONNX Runtime takes it.
fn for_each_or_first<T: Copy>(values: &[T], columns: usize) -> Result<Vec<T>> {
    match values {
        [] => invalid!("has no imputed values"),
        values if values.len() == columns => Ok(values.to_vec()),
        [first, ..] => Ok(vec![*first; columns]),
    }
}

/// 1 above the threshold, else 0.
#[derive(Debug)]
struct Binarize(f32);

impl Kernel for Binarize {
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        _: &mut TreeScratch,
    ) -> Result<(), String> {
        for (input, output) in inputs.iter().zip(outputs) {
            let output = &mut output.f32s_mut()[..rows];
            if input.f32s().iter().any(|x| x.is_nan()) {
                return Err("NaN, which is neither above the threshold nor below".into());
            }
            output.iter_mut().zip(input.f32s()).for_each(|(to, x)| *to = f32::from(u8::from(*x > self.0)));
        }
        Ok(())
    }
}

pub(super) fn binarizer(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    if value.element != ElementType::Float32 {
        unsupported!("takes {}", value.element);
    }
    let kernel = Binarize(node.float_or("threshold", 0.0));
    let items = builder.emit(kernel, &value.items, &vec![Kind::F32; value.items.len()])?;
    Ok(vec![matrix(value, ElementType::Float32, items)])
}

pub(super) fn feature_vectorizer(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let sizes = node.ints("inputdimensions");
    let mut items = vec![];
    for (position, value) in node.inputs.iter().flatten().enumerate() {
        let value = cast_to(builder, value, ElementType::Float32)?;
        let columns = value.columns()?;
        let size = sizes.get(position).and_then(|size| usize::try_from(*size).ok()).unwrap_or(columns.len());
        // Too few columns are filled up with zeros, too many cut off.
        let zero = Operand::Constant(Scalar::F32(0.0));
        check_size(&[size.saturating_add(items.len())])?;
        items.extend(columns.iter().cloned().chain(std::iter::repeat(zero)).take(size));
    }
    Ok(vec![Value::of_rows(ElementType::Float32, vec![1, items.len()], items)])
}
