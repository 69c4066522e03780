//! Functions of two or three elements: arithmetic, comparisons, choices.

use super::cast::cast_to;
use super::elementwise::{map, numbers, same_type, wrap};
use crate::builder::Node;
use crate::builder::ProgramBuilder;
use crate::builder::{Result, Scalar, Value, invalid, unsupported};
use crate::program::{Buffer, Kernel, Kind, Slice};
use crate::tensor::ElementType;
use crate::trees::TreeScratch;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    Min,
    Max,
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    And,
    Or,
    Xor,
}

#[derive(Debug, Clone)]
struct BinaryKernel(Binary, ElementType);

macro_rules! float_binary {
    ($operator:expr, $inputs:expr, $outputs:expr, $rows:expr, $get:ident, $get_mut:ident, $native:ty) => {{
        macro_rules! number {
            ($f:expr) => {
                for (pair, output) in $inputs.chunks_exact(2).zip($outputs) {
                    let (a, b) = (pair[0].$get(), pair[1].$get());
                    let output = &mut output.$get_mut()[..$rows];
                    output.iter_mut().zip(a.iter().zip(b)).for_each(|(to, (a, b))| *to = $f(*a, *b));
                }
            };
        }
        macro_rules! truth {
            ($f:expr) => {
                for (pair, output) in $inputs.chunks_exact(2).zip($outputs) {
                    let (a, b) = (pair[0].$get(), pair[1].$get());
                    let output = &mut output.i64s_mut()[..$rows];
                    output.iter_mut().zip(a.iter().zip(b)).for_each(|(to, (a, b))| *to = i64::from($f(a, b)));
                }
            };
        }
        match $operator {
            Binary::Add => number!(|a: $native, b: $native| a + b),
            Binary::Sub => number!(|a: $native, b: $native| a - b),
            Binary::Mul => number!(|a: $native, b: $native| a * b),
            Binary::Div => number!(|a: $native, b: $native| a / b),
            Binary::Pow => number!(|a: $native, b: $native| if b == 2.0 { a * a } else { a.powf(b) }),
            // NaN wins.
            Binary::Min => number!(|a: $native, b: $native| if a.is_nan() || a < b { a } else { b }),
            Binary::Max => number!(|a: $native, b: $native| if a.is_nan() || a > b { a } else { b }),
            Binary::Equal => truth!(|a: &$native, b: &$native| a == b),
            Binary::Less => truth!(|a: &$native, b: &$native| a < b),
            Binary::LessOrEqual => truth!(|a: &$native, b: &$native| a <= b),
            Binary::Greater => truth!(|a: &$native, b: &$native| a > b),
            Binary::GreaterOrEqual => truth!(|a: &$native, b: &$native| a >= b),
            Binary::And | Binary::Or | Binary::Xor => return Err("takes truth values".into()),
        }
    }};
}

impl Kernel for BinaryKernel {
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        _: &mut TreeScratch,
    ) -> Result<(), String> {
        match inputs.first() {
            Some(Slice::F32(_)) => float_binary!(self.0, inputs, outputs, rows, f32s, f32s_mut, f32),
            Some(Slice::F64(_)) => float_binary!(self.0, inputs, outputs, rows, f64s, f64s_mut, f64),
            _ => {
                for (pair, output) in inputs.chunks_exact(2).zip(outputs) {
                    let values = pair[0].i64s().iter().zip(pair[1].i64s());
                    for (to, (a, b)) in output.i64s_mut()[..rows].iter_mut().zip(values) {
                        *to = wrap(integer(self.0, *a, *b)?, self.1);
                    }
                }
            }
        }
        Ok(())
    }
}

fn integer(operator: Binary, a: i64, b: i64) -> Result<i64, String> {
    Ok(match operator {
        Binary::Add => a.wrapping_add(b),
        Binary::Sub => a.wrapping_sub(b),
        Binary::Mul => a.wrapping_mul(b),
        Binary::Div if b == 0 => return Err("a division of an integer by zero".into()),
        Binary::Div => a.wrapping_div(b),
        Binary::Pow => (a as f64).powf(b as f64) as i64,
        Binary::Min => a.min(b),
        Binary::Max => a.max(b),
        Binary::Equal => (a == b).into(),
        Binary::Less => (a < b).into(),
        Binary::LessOrEqual => (a <= b).into(),
        Binary::Greater => (a > b).into(),
        Binary::GreaterOrEqual => (a >= b).into(),
        Binary::And => (a != 0 && b != 0).into(),
        Binary::Or => (a != 0 || b != 0).into(),
        Binary::Xor => ((a != 0) != (b != 0)).into(),
    })
}

/// Operator sets before 7 broadcast in another way.
fn check_broadcast(node: &Node<'_>) -> Result<()> {
    if node.opset < 7 && node.attribute("broadcast").is_some() {
        unsupported!("broadcasts as operator set {} does", node.opset);
    }
    Ok(())
}

pub(super) fn arithmetic(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let operator = match node.operator() {
        "Add" => Binary::Add,
        "Sub" => Binary::Sub,
        "Mul" => Binary::Mul,
        "Div" => Binary::Div,
        "Pow" => Binary::Pow,
        other => unsupported!("{other} is no operator of this family"),
    };
    check_broadcast(node)?;
    let (a, mut b) = (node.input(0)?, node.input(1)?.clone());
    numbers(a)?;
    if operator == Binary::Pow {
        if numbers(a)? == Kind::I64 && numbers(&b)? != Kind::I64 {
            unsupported!("a power of {} by {}", a.element, b.element);
        }
        b = cast_to(builder, &b, a.element)?; // the exponent may have another type
    }
    same_type(a, &b)?;
    Ok(vec![map(builder, BinaryKernel(operator, a.element), &[a, &b], a.element)?])
}

/// `a + b * factor`
pub(super) fn sum(builder: &mut ProgramBuilder, a: &Value, b: &Value, factor: f32) -> Result<Value> {
    let factor = match a.element {
        ElementType::Float32 => Scalar::F32(factor),
        ElementType::Float64 => Scalar::F64(factor.into()),
        element => unsupported!("multiplies {element}"),
    };
    let mut addend = b.clone();
    if ![Scalar::F32(1.0), Scalar::F64(1.0)].contains(&factor) {
        let factor = Value::constant(a.element, vec![], vec![factor]);
        addend = map(builder, BinaryKernel(Binary::Mul, a.element), &[b, &factor], a.element)?;
    }
    map(builder, BinaryKernel(Binary::Add, a.element), &[a, &addend], a.element)
}

pub(super) fn variadic(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let operator = match node.operator() {
        "Min" => Binary::Min,
        "Max" => Binary::Max,
        "Sum" | "Mean" => Binary::Add,
        other => unsupported!("{other} is no operator of this family"),
    };
    let mut result = node.input(0)?.clone();
    numbers(&result)?;
    for value in node.inputs.iter().flatten().skip(1) {
        same_type(&result, value)?;
        result = map(builder, BinaryKernel(operator, result.element), &[&result, value], result.element)?;
    }
    if node.operator() == "Mean" {
        let count = node.inputs.len() as f32;
        let count = match result.element {
            ElementType::Float32 => Scalar::F32(count),
            ElementType::Float64 => Scalar::F64(count.into()),
            element => unsupported!("the mean of {element}"),
        };
        let count = Value::constant(result.element, vec![], vec![count]);
        result = map(builder, BinaryKernel(Binary::Div, result.element), &[&result, &count], result.element)?;
    }
    Ok(vec![result])
}

pub(super) fn comparison(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let operator = match node.operator() {
        "Equal" => Binary::Equal,
        "Less" => Binary::Less,
        "LessOrEqual" => Binary::LessOrEqual,
        "Greater" => Binary::Greater,
        "GreaterOrEqual" => Binary::GreaterOrEqual,
        other => unsupported!("{other} is no operator of this family"),
    };
    check_broadcast(node)?;
    let (a, b) = (node.input(0)?, node.input(1)?);
    numbers(a)?;
    same_type(a, b)?;
    Ok(vec![map(builder, BinaryKernel(operator, ElementType::Bool), &[a, b], ElementType::Bool)?])
}

pub(super) fn logical(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let operator = match node.operator() {
        "And" => Binary::And,
        "Or" => Binary::Or,
        "Xor" => Binary::Xor,
        other => unsupported!("{other} is no operator of this family"),
    };
    check_broadcast(node)?;
    let (a, b) = (node.input(0)?, node.input(1)?);
    if [a, b].iter().any(|value| value.element != ElementType::Bool) {
        invalid!("takes {} and {}, not truth values", a.element, b.element);
    }
    Ok(vec![map(builder, BinaryKernel(operator, ElementType::Bool), &[a, b], ElementType::Bool)?])
}

/// Where NaN stays NaN, whatever the bounds.
#[derive(Debug, Clone)]
struct ClipKernel(Binary);

impl Kernel for ClipKernel {
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        _: &mut TreeScratch,
    ) -> Result<(), String> {
        fn each<T: Copy + PartialOrd>(a: &[T], b: &[T], to: &mut [T], least: bool) {
            for (to, (a, b)) in to.iter_mut().zip(a.iter().zip(b)) {
                *to = if (least && *a < *b) || (!least && *a > *b) { *b } else { *a };
            }
        }
        let least = self.0 == Binary::Max;
        for (pair, output) in inputs.chunks_exact(2).zip(outputs) {
            match pair[0] {
                Slice::F32(a) => each(a, pair[1].f32s(), &mut output.f32s_mut()[..rows], least),
                Slice::F64(a) => each(a, pair[1].f64s(), &mut output.f64s_mut()[..rows], least),
                Slice::I64(a) => each(a, pair[1].i64s(), &mut output.i64s_mut()[..rows], least),
            }
        }
        Ok(())
    }
}

pub(super) fn clip(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let mut result = node.input(0)?.clone();
    numbers(&result)?;
    // A bound that is left out is the least or the greatest number, which infinities are cut to.
    let bound = |input: usize, name: &str, single: f32, double: f64| {
        let bound = match (result.element, node.float(name)) {
            (ElementType::Float64, bound) => Scalar::F64(bound.map_or(double, f64::from)),
            (ElementType::Float32, bound) => Scalar::F32(bound.unwrap_or(single)),
            _ => return node.optional(input).cloned(),
        };
        Some(node.optional(input).cloned().unwrap_or_else(|| Value::constant(result.element, vec![], vec![bound])))
    };
    let least = bound(1, "min", f32::MIN, f64::MIN);
    let most = bound(2, "max", f32::MAX, f64::MAX);
    for (bound, operator) in [(least, Binary::Max), (most, Binary::Min)] {
        if let Some(bound) = bound {
            same_type(&result, &bound)?;
            result = map(builder, ClipKernel(operator), &[&result, &bound], result.element)?;
        }
    }
    Ok(vec![result])
}

#[derive(Debug, Clone)]
struct Where;

impl Kernel for Where {
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        _: &mut TreeScratch,
    ) -> Result<(), String> {
        fn each<T: Copy>(condition: &[i64], a: &[T], b: &[T], to: &mut [T]) {
            for (i, to) in to.iter_mut().enumerate() {
                *to = if condition[i] != 0 { a[i] } else { b[i] };
            }
        }
        for (three, output) in inputs.chunks_exact(3).zip(outputs) {
            let condition = three[0].i64s();
            match three[1] {
                Slice::F32(a) => each(condition, a, three[2].f32s(), &mut output.f32s_mut()[..rows]),
                Slice::F64(a) => each(condition, a, three[2].f64s(), &mut output.f64s_mut()[..rows]),
                Slice::I64(a) => each(condition, a, three[2].i64s(), &mut output.i64s_mut()[..rows]),
            }
        }
        Ok(())
    }
}

pub(super) fn choose(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let (condition, a, b) = (node.input(0)?, node.input(1)?, node.input(2)?);
    if condition.element != ElementType::Bool {
        invalid!("chooses by {}, not by truth values", condition.element);
    }
    same_type(a, b)?;
    numbers(a)?;
    Ok(vec![map(builder, Where, &[condition, a, b], a.element)?])
}
