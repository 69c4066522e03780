//! Operators that compute each element from those at the same place.

use crate::engine::native::compile::Compiler;
use crate::engine::native::node::Node;
use crate::engine::native::program::{Buffer, Kernel, Kind, Slice};
use crate::engine::native::trees::TreeScratch;
use crate::engine::native::value::{Operand, Result, Scalar, Value, broadcast_form, invalid, kind_of, unsupported};
use crate::tensor::ElementType;

/// A value of `element` with an item for each of `items`, each computed by `kernel`.
fn map(
    compiler: &mut Compiler,
    kernel: impl Kernel + Clone + 'static,
    operands: &[&Value],
    element: ElementType,
) -> Result<Value> {
    let (dims, rows) = broadcast_form(operands)?;
    let places: Vec<_> = operands.iter().map(|value| value.broadcast(&dims)).collect();
    let count = dims.iter().product();
    let arguments = |item: usize| -> Vec<Operand> {
        operands.iter().zip(&places).map(|(value, places)| value.items[places[item]].clone()).collect()
    };
    let kind = kind_of(element)?;
    let mut items = vec![Operand::Constant(Scalar::I64(0)); count];
    let (mut computed, mut inputs) = (vec![], vec![]);
    for (item, result) in items.iter_mut().enumerate() {
        let arguments = arguments(item);
        if arguments.iter().all(|argument| argument.constant().is_some()) {
            *result = compiler.emit(kernel.clone(), &arguments, &[kind])?.remove(0);
        } else {
            computed.push(item);
            inputs.extend(arguments);
        }
    }
    if !computed.is_empty() {
        let outputs = compiler.emit(kernel, &inputs, &vec![kind; computed.len()])?;
        computed.into_iter().zip(outputs).for_each(|(item, output)| items[item] = output);
    }
    Ok(Value { element, dims, rows, items, texts: None })
}

fn numbers(value: &Value) -> Result<Kind> {
    if value.texts.is_some() {
        unsupported!("computes with texts");
    }
    kind_of(value.element)
}

fn same_type(a: &Value, b: &Value) -> Result<()> {
    if a.element != b.element {
        invalid!("takes {} and {}, which are not the same", a.element, b.element);
    }
    Ok(())
}

/// Integers as their type holds them.
fn wrap(value: i64, element: ElementType) -> i64 {
    match element {
        ElementType::Int32 => (value as i32).into(),
        ElementType::Int16 => (value as i16).into(),
        ElementType::Int8 => (value as i8).into(),
        ElementType::UInt8 => (value as u8).into(),
        ElementType::UInt16 => (value as u16).into(),
        ElementType::UInt32 => (value as u32).into(),
        ElementType::Bool => (value != 0).into(),
        _ => value,
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Unary {
    Neg,
    Abs,
    Sqrt,
    Exp,
    Log,
    Sigmoid,
    Tanh,
    Relu,
    Sign,
    Floor,
    Ceil,
    Round,
    Reciprocal,
    Softplus,
    Erf,
    LeakyRelu(f32),
}

#[derive(Debug, Clone)]
struct UnaryKernel(Unary, ElementType);

macro_rules! float_unary {
    ($operator:expr, $inputs:expr, $outputs:expr, $rows:expr, $get:ident, $get_mut:ident, $native:ty) => {{
        let each = |f: &dyn Fn(&[$native], &mut [$native]), outputs: &mut [Buffer]| {
            for (input, output) in $inputs.iter().zip(outputs) {
                f(input.$get(), &mut output.$get_mut()[..$rows]);
            }
        };
        macro_rules! by {
            ($f:expr) => {
                each(
                    &|from: &[$native], to: &mut [$native]| {
                        to.iter_mut().zip(from).for_each(|(to, from)| *to = $f(*from))
                    },
                    $outputs,
                )
            };
        }
        match $operator {
            Unary::Neg => by!(|x: $native| -x),
            Unary::Abs => by!(<$native>::abs),
            Unary::Sqrt => by!(<$native>::sqrt),
            Unary::Exp => by!(<$native>::exp),
            Unary::Log => by!(<$native>::ln),
            Unary::Sigmoid => by!(|x: $native| {
                let half = 1.0 / (1.0 + (-x.abs()).exp());
                if x < 0.0 { 1.0 - half } else { half }
            }),
            Unary::Tanh => by!(<$native as Tanh>::tanh),
            Unary::Relu => by!(|x: $native| if x < 0.0 { 0.0 } else { x }),
            Unary::Sign => by!(|x: $native| if x > 0.0 {
                1.0
            } else if x < 0.0 {
                -1.0
            } else {
                x * 0.0
            }),
            Unary::Floor => by!(<$native>::floor),
            Unary::Ceil => by!(<$native>::ceil),
            Unary::Round => by!(<$native>::round_ties_even),
            Unary::Reciprocal => by!(|x: $native| 1.0 / x),
            Unary::Softplus => by!(|x: $native| if x > 0.0 { x + (-x).exp().ln_1p() } else { x.exp().ln_1p() }),
            Unary::Erf => by!(|x: $native| erf(x.into()) as $native),
            Unary::LeakyRelu(alpha) => by!(|x: $native| if x < 0.0 { x * <$native>::from(alpha) } else { x }),
        }
    }};
}

impl Kernel for UnaryKernel {
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        _: &mut TreeScratch,
    ) -> Result<(), String> {
        match inputs.first() {
            Some(Slice::F32(_)) => float_unary!(self.0, inputs, outputs, rows, f32s, f32s_mut, f32),
            Some(Slice::F64(_)) => float_unary!(self.0, inputs, outputs, rows, f64s, f64s_mut, f64),
            _ => {
                for (input, output) in inputs.iter().zip(outputs) {
                    for (to, from) in output.i64s_mut()[..rows].iter_mut().zip(input.i64s()) {
                        let value = match self.0 {
                            Unary::Neg => from.wrapping_neg(),
                            Unary::Abs => from.wrapping_abs(),
                            Unary::Sign => from.signum(),
                            Unary::Relu => (*from).max(0),
                            _ => *from,
                        };
                        *to = wrap(value, self.1);
                    }
                }
            }
        }
        Ok(())
    }
}

/// The hyperbolic tangent, of floats as ONNX Runtime computes it.
trait Tanh {
    fn tanh(self) -> Self;
}

impl Tanh for f64 {
    fn tanh(self) -> Self {
        self.tanh()
    }
}

impl Tanh for f32 {
    fn tanh(self) -> Self {
        tanh(self)
    }
}

/// The hyperbolic tangent as a quotient of polynomials, by the minimax coefficients that Eigen and MLAS share.
pub(super) fn tanh(x: f32) -> f32 {
    let x = x.clamp(-9.0, 9.0);
    let square = x * x;
    let odd = [
        -2.760_768_4e-16,
        2.000_188e-13,
        -8.604_671e-11,
        5.122_297_3e-8,
        1.485_722_3e-5,
        6.372_619_4e-4,
        4.893_524_6e-3,
    ];
    let even = [1.198_258_4e-6, 1.185_347_1e-4, 2.268_434_7e-3, 4.893_525e-3];
    let horner = |coefficients: &[f32]| coefficients.iter().fold(0.0f32, |sum, c| sum * square + c);
    x * horner(&odd) / horner(&even)
}

/// The error function. Source: W. J. Cody, "Rational Chebyshev approximation for the error function", 1969; here as its
/// series for small arguments and the continued fraction of the complement for large ones.
fn erf(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    let z = x.abs();
    if z > 6.0 {
        return x.signum();
    }
    if z < 2.5 {
        let (mut sum, mut term) = (z, z);
        for n in 1..80 {
            term *= -z * z / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return (sum * std::f64::consts::FRAC_2_SQRT_PI).copysign(x);
    }
    let mut fraction = 0.0;
    for n in (1..60).rev() {
        fraction = f64::from(n) / 2.0 / (z + fraction);
    }
    let complement = (-z * z).exp() / std::f64::consts::PI.sqrt() / (z + fraction);
    (1.0 - complement).copysign(x)
}

pub(super) fn unary(compiler: &mut Compiler, node: &Node<'_>) -> Result<Vec<Value>> {
    let operator = match node.operator() {
        "Neg" => Unary::Neg,
        "Abs" => Unary::Abs,
        "Sqrt" => Unary::Sqrt,
        "Exp" => Unary::Exp,
        "Log" => Unary::Log,
        "Sigmoid" => Unary::Sigmoid,
        "Tanh" => Unary::Tanh,
        "Relu" => Unary::Relu,
        "Sign" => Unary::Sign,
        "Floor" => Unary::Floor,
        "Ceil" => Unary::Ceil,
        "Round" => Unary::Round,
        "Reciprocal" => Unary::Reciprocal,
        "Softplus" => Unary::Softplus,
        _ => Unary::Erf,
    };
    let value = node.input(0)?;
    let on_integers = matches!(operator, Unary::Neg | Unary::Abs | Unary::Sign | Unary::Relu);
    if numbers(value)? == Kind::I64 && !on_integers {
        unsupported!("takes {}", value.element);
    }
    Ok(vec![map(compiler, UnaryKernel(operator, value.element), &[value], value.element)?])
}

pub(super) fn leaky_relu(compiler: &mut Compiler, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    if numbers(value)? == Kind::I64 {
        unsupported!("takes {}", value.element);
    }
    let operator = Unary::LeakyRelu(node.float_or("alpha", 0.01));
    Ok(vec![map(compiler, UnaryKernel(operator, value.element), &[value], value.element)?])
}

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
pub(super) fn cast_to(compiler: &mut Compiler, value: &Value, element: ElementType) -> Result<Value> {
    if value.element == element {
        return Ok(value.clone());
    }
    numbers(value)?;
    map(compiler, Cast(element), &[value], element)
}

pub(super) fn cast(compiler: &mut Compiler, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    let to = node.int("to").and_then(|to| i32::try_from(to).ok());
    let Some(element) = to.and_then(ElementType::from_onnx) else { unsupported!("casts to a type that is not known") };
    if element == ElementType::Int32 && matches!(kind_of(value.element), Ok(Kind::F32 | Kind::F64)) {
        // What does not fit is the least number of 32 bits, not 64.
        return Ok(vec![map(compiler, CastToInt32, &[value], element)?]);
    }
    if value.element == ElementType::String && element != ElementType::String {
        return super::category::parse_texts(compiler, value, element).map(|value| vec![value]);
    }
    Ok(vec![cast_to(compiler, value, element)?])
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

pub(super) fn arithmetic(compiler: &mut Compiler, node: &Node<'_>) -> Result<Vec<Value>> {
    let operator = match node.operator() {
        "Add" => Binary::Add,
        "Sub" => Binary::Sub,
        "Mul" => Binary::Mul,
        "Div" => Binary::Div,
        _ => Binary::Pow,
    };
    check_broadcast(node)?;
    let (a, mut b) = (node.input(0)?, node.input(1)?.clone());
    numbers(a)?;
    if operator == Binary::Pow {
        b = cast_to(compiler, &b, a.element)?; // the exponent may have another type
    }
    same_type(a, &b)?;
    Ok(vec![map(compiler, BinaryKernel(operator, a.element), &[a, &b], a.element)?])
}

/// `a + b * factor`
pub(super) fn sum(compiler: &mut Compiler, a: &Value, b: &Value, factor: f32) -> Result<Value> {
    let factor = match a.element {
        ElementType::Float32 => Scalar::F32(factor),
        ElementType::Float64 => Scalar::F64(factor.into()),
        element => unsupported!("multiplies {element}"),
    };
    let mut addend = b.clone();
    if ![Scalar::F32(1.0), Scalar::F64(1.0)].contains(&factor) {
        let factor = Value::constant(a.element, vec![], vec![factor]);
        addend = map(compiler, BinaryKernel(Binary::Mul, a.element), &[b, &factor], a.element)?;
    }
    map(compiler, BinaryKernel(Binary::Add, a.element), &[a, &addend], a.element)
}

pub(super) fn variadic(compiler: &mut Compiler, node: &Node<'_>) -> Result<Vec<Value>> {
    let operator = match node.operator() {
        "Min" => Binary::Min,
        "Max" => Binary::Max,
        _ => Binary::Add,
    };
    let mut result = node.input(0)?.clone();
    numbers(&result)?;
    for value in node.inputs.iter().flatten().skip(1) {
        same_type(&result, value)?;
        result = map(compiler, BinaryKernel(operator, result.element), &[&result, value], result.element)?;
    }
    if node.operator() == "Mean" {
        let count = node.inputs.len() as f32;
        let count = match result.element {
            ElementType::Float32 => Scalar::F32(count),
            ElementType::Float64 => Scalar::F64(count.into()),
            element => unsupported!("the mean of {element}"),
        };
        let count = Value::constant(result.element, vec![], vec![count]);
        result = map(compiler, BinaryKernel(Binary::Div, result.element), &[&result, &count], result.element)?;
    }
    Ok(vec![result])
}

pub(super) fn comparison(compiler: &mut Compiler, node: &Node<'_>) -> Result<Vec<Value>> {
    let operator = match node.operator() {
        "Equal" => Binary::Equal,
        "Less" => Binary::Less,
        "LessOrEqual" => Binary::LessOrEqual,
        "Greater" => Binary::Greater,
        _ => Binary::GreaterOrEqual,
    };
    check_broadcast(node)?;
    let (a, b) = (node.input(0)?, node.input(1)?);
    numbers(a)?;
    same_type(a, b)?;
    Ok(vec![map(compiler, BinaryKernel(operator, ElementType::Bool), &[a, b], ElementType::Bool)?])
}

pub(super) fn logical(compiler: &mut Compiler, node: &Node<'_>) -> Result<Vec<Value>> {
    let operator = match node.operator() {
        "And" => Binary::And,
        "Or" => Binary::Or,
        _ => Binary::Xor,
    };
    check_broadcast(node)?;
    let (a, b) = (node.input(0)?, node.input(1)?);
    if [a, b].iter().any(|value| value.element != ElementType::Bool) {
        invalid!("takes {} and {}, not truth values", a.element, b.element);
    }
    Ok(vec![map(compiler, BinaryKernel(operator, ElementType::Bool), &[a, b], ElementType::Bool)?])
}

#[derive(Debug, Clone)]
struct Not;

impl Kernel for Not {
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        _: &mut TreeScratch,
    ) -> Result<(), String> {
        for (input, output) in inputs.iter().zip(outputs) {
            let output = &mut output.i64s_mut()[..rows];
            output.iter_mut().zip(input.i64s()).for_each(|(to, from)| *to = (*from == 0).into());
        }
        Ok(())
    }
}

pub(super) fn not(compiler: &mut Compiler, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    if value.element != ElementType::Bool {
        invalid!("takes {}, not truth values", value.element);
    }
    Ok(vec![map(compiler, Not, &[value], ElementType::Bool)?])
}

#[derive(Debug, Clone)]
struct IsNan;

impl Kernel for IsNan {
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        _: &mut TreeScratch,
    ) -> Result<(), String> {
        for (input, output) in inputs.iter().zip(outputs) {
            let output = &mut output.i64s_mut()[..rows];
            match input {
                Slice::F32(from) => output.iter_mut().zip(*from).for_each(|(to, from)| *to = from.is_nan().into()),
                Slice::F64(from) => output.iter_mut().zip(*from).for_each(|(to, from)| *to = from.is_nan().into()),
                Slice::I64(_) => output.fill(0),
            }
        }
        Ok(())
    }
}

pub(super) fn is_nan(compiler: &mut Compiler, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    numbers(value)?;
    Ok(vec![map(compiler, IsNan, &[value], ElementType::Bool)?])
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

pub(super) fn clip(compiler: &mut Compiler, node: &Node<'_>) -> Result<Vec<Value>> {
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
            result = map(compiler, ClipKernel(operator), &[&result, &bound], result.element)?;
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

pub(super) fn choose(compiler: &mut Compiler, node: &Node<'_>) -> Result<Vec<Value>> {
    let (condition, a, b) = (node.input(0)?, node.input(1)?, node.input(2)?);
    if condition.element != ElementType::Bool {
        invalid!("chooses by {}, not by truth values", condition.element);
    }
    same_type(a, b)?;
    numbers(a)?;
    Ok(vec![map(compiler, Where, &[condition, a, b], a.element)?])
}

#[cfg(test)]
mod tests {
    use super::erf;

    #[test]
    fn erf_is_that_of_tables() {
        for (x, expected) in [
            (0.0, 0.0),
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (2.5, 0.999_593_047_982_555),
            (-3.0, -0.999_977_909_503_001_4),
        ] {
            assert!((erf(x) - expected).abs() < 1e-12, "{x}: {}", erf(x));
        }
    }
}
