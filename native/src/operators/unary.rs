//! Functions of one element.

use super::elementwise::{map, numbers, wrap};
use crate::builder::Node;
use crate::builder::ProgramBuilder;
use crate::builder::{Result, Value, invalid, unsupported};
use crate::program::{Buffer, Kernel, Kind, Slice};
use crate::tensor::ElementType;
use crate::trees::TreeScratch;

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

pub(super) fn unary(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
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
        "Erf" => Unary::Erf,
        other => unsupported!("{other} is no operator of this family"),
    };
    let value = node.input(0)?;
    let on_integers = matches!(operator, Unary::Neg | Unary::Abs | Unary::Sign | Unary::Relu);
    if numbers(value)? == Kind::I64 && !on_integers {
        unsupported!("takes {}", value.element);
    }
    Ok(vec![map(builder, UnaryKernel(operator, value.element), &[value], value.element)?])
}

pub(super) fn leaky_relu(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    if numbers(value)? == Kind::I64 {
        unsupported!("takes {}", value.element);
    }
    let operator = Unary::LeakyRelu(node.float_or("alpha", 0.01));
    Ok(vec![map(builder, UnaryKernel(operator, value.element), &[value], value.element)?])
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

pub(super) fn not(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    if value.element != ElementType::Bool {
        invalid!("takes {}, not truth values", value.element);
    }
    Ok(vec![map(builder, Not, &[value], ElementType::Bool)?])
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

pub(super) fn is_nan(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    numbers(value)?;
    Ok(vec![map(builder, IsNan, &[value], ElementType::Bool)?])
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
