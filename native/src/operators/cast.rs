//! From one type of elements to another.

use super::elementwise::{map, numbers, wrap};
use crate::builder::Node;
use crate::builder::ProgramBuilder;
use crate::builder::{Result, Value, kind_of, unsupported};
use crate::program::{Buffer, Kernel, Kind, Slice};
use crate::tensor::ElementType;
use crate::trees::TreeScratch;

/// From any kind of numbers to the elements of a type.
#[derive(Debug, Clone)]
pub(super) struct Cast(pub ElementType);

impl Kernel for Cast {
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        _: &mut TreeScratch,
    ) -> Result<(), String> {
        fn convert<A: Copy, B>(from: &[A], to: &mut [B], f: impl Fn(A) -> B) {
            to.iter_mut().zip(from).for_each(|(to, from)| *to = f(*from));
        }
        let to_bool = self.0 == ElementType::Bool;
        for (input, output) in inputs.iter().zip(outputs) {
            match (input, output) {
                (Slice::F32(from), Buffer::F32(to)) => to[..rows].copy_from_slice(from),
                (Slice::F32(from), Buffer::F64(to)) => convert(from, &mut to[..rows], f64::from),
                (Slice::F64(from), Buffer::F32(to)) => convert(from, &mut to[..rows], |x| x as f32),
                (Slice::F64(from), Buffer::F64(to)) => to[..rows].copy_from_slice(from),
                (Slice::I64(from), Buffer::F32(to)) => convert(from, &mut to[..rows], |x| x as f32),
                (Slice::I64(from), Buffer::F64(to)) => convert(from, &mut to[..rows], |x| x as f64),
                (Slice::I64(from), Buffer::I64(to)) => convert(from, &mut to[..rows], |x| wrap(x, self.0)),
                (Slice::F32(from), Buffer::I64(to)) if to_bool => {
                    convert(from, &mut to[..rows], |x| (x != 0.0).into());
                }
                (Slice::F64(from), Buffer::I64(to)) if to_bool => {
                    convert(from, &mut to[..rows], |x| (x != 0.0).into());
                }
                (Slice::F32(from), Buffer::I64(to)) => {
                    convert(from, &mut to[..rows], |x| wrap(truncated(x.into()), self.0));
                }
                (Slice::F64(from), Buffer::I64(to)) => convert(from, &mut to[..rows], |x| wrap(truncated(x), self.0)),
            }
        }
        Ok(())
    }
}

/// As x86-64 truncates: what does not fit, NaN too, is the least number.
pub(super) fn truncated(x: f64) -> i64 {
    if x >= i64::MIN as f64 && x < -(i64::MIN as f64) { x as i64 } else { i64::MIN }
}

/// `value` as elements of another type.
pub(super) fn cast_to(builder: &mut ProgramBuilder, value: &Value, element: ElementType) -> Result<Value> {
    if value.element == element {
        return Ok(value.clone());
    }
    numbers(value)?;
    map(builder, Cast(element), &[value], element)
}

pub(super) fn cast(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let to = node.int("to").and_then(|to| i32::try_from(to).ok());
    let Some(element) = to.and_then(ElementType::from_onnx) else { unsupported!("casts to a type that is not known") };
    if element == ElementType::Int32 && matches!(kind_of(value.element), Ok(Kind::F32 | Kind::F64)) {
        // What does not fit is the least number of 32 bits, not 64.
        return Ok(vec![map(builder, CastToInt32, &[value], element)?]);
    }
    if value.element == ElementType::String && element != ElementType::String {
        return super::category::parse_texts(builder, value, element).map(|value| vec![value]);
    }
    Ok(vec![cast_to(builder, value, element)?])
}

#[derive(Debug, Clone)]
struct CastToInt32;

impl Kernel for CastToInt32 {
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        _: &mut TreeScratch,
    ) -> Result<(), String> {
        let truncated = |x: f64| if x > -2147483649.0 && x < 2147483648.0 { x as i64 } else { i64::from(i32::MIN) };
        for (input, output) in inputs.iter().zip(outputs) {
            let output = &mut output.i64s_mut()[..rows];
            match input {
                Slice::F32(from) => {
                    output.iter_mut().zip(*from).for_each(|(to, from)| *to = truncated((*from).into()));
                }
                Slice::F64(from) => output.iter_mut().zip(*from).for_each(|(to, from)| *to = truncated(*from)),
                Slice::I64(from) => output.copy_from_slice(from),
            }
        }
        Ok(())
    }
}
