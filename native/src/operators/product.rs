//! Products with constant matrices.

use multiversion::multiversion;
use multiversion::target::target_cfg_f;

use crate::builder::Node;
use crate::builder::{Operand, Result, Scalar, Value, broadcast_form, invalid, unsupported};
use crate::builder::{Origin, ProgramBuilder};
use crate::program::{Buffer, Kernel, Kind, Register, Slice};
use crate::tensor::ElementType;
use crate::trees::TreeScratch;

/// Weights of one product, at most, where the engine was not chosen: measured on dense layers, larger ones are faster in
/// ONNX Runtime, though it has to be given a matrix.
const MOST_WEIGHTS: usize = 512;

/// What a column's weight is multiplied with.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Scaling {
    offset: f32,
    scale: f32,
}

impl Scaling {
    const NONE: Self = Self { offset: 0.0, scale: 1.0 };
}

/// What adds to a sum.
#[derive(Debug)]
enum Term {
    /// So many columns, each `(x - offset) * scale` times its weight.
    Columns(Vec<Scaling>),
    /// So many columns of which one is 1: the one that a position names, or a number by which it is looked up.
    OneHot { first: i64, categories: Vec<Option<usize>>, columns: usize },
}

/// A term of a product with the weights that belong to it, by output.
#[derive(Debug)]
enum Weighted {
    Columns {
        scalings: Vec<Scaling>,
        weights: Vec<Vec<f32>>,
    },
    /// The weights by distance from the first number, and at the end none, for all other numbers.
    Table {
        first: i64,
        weights: Vec<Vec<f32>>,
    },
}

impl Weighted {
    /// `weights` are those of the term's columns, for each output.
    fn of(term: &Term, weights: Vec<Vec<f32>>) -> Self {
        match term {
            Term::Columns(scalings) => Self::Columns { scalings: scalings.clone(), weights },
            Term::OneHot { first, categories, .. } => {
                let by_number = |weights: Vec<f32>| {
                    let weight = |category: &Option<usize>| category.map_or(0.0, |category| weights[category]);
                    categories.iter().map(weight).chain([0.0]).collect()
                };
                Self::Table { first: *first, weights: weights.into_iter().map(by_number).collect() }
            }
        }
    }
}

/// `x · W + b` in single precision, each sum in the order of the columns, as ONNX Runtime's matrix products make them.
#[derive(Debug)]
struct Product {
    terms: Vec<Weighted>,
    factor: f32,
    /// Of each output.
    bias: Vec<f32>,
}

impl Kernel for Product {
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        _: &mut TreeScratch,
    ) -> Result<(), String> {
        outputs.iter_mut().for_each(|output| output.f32s_mut()[..rows].fill(0.0));
        let mut inputs = inputs.iter();
        for term in &self.terms {
            match term {
                Weighted::Columns { scalings, weights } => {
                    let columns: Vec<_> = inputs.by_ref().take(scalings.len()).map(|input| input.f32s()).collect();
                    add_columns(outputs, rows, &columns, scalings, weights);
                }
                Weighted::Table { first, weights } => {
                    let numbers = inputs.next().map_or(&[][..], |input| input.i64s());
                    for (output, weights) in outputs.iter_mut().zip(weights) {
                        add_from_table(&mut output.f32s_mut()[..rows], numbers, *first, weights);
                    }
                }
            }
        }
        for (output, bias) in outputs.iter_mut().zip(&self.bias) {
            scale_and_add(&mut output.f32s_mut()[..rows], self.factor, *bias);
        }
        Ok(())
    }

    fn size(&self) -> usize {
        let size = |term: &Weighted| match term {
            Weighted::Columns { weights, .. } | Weighted::Table { weights, .. } => {
                weights.iter().map(|weights| size_of_val(weights.as_slice())).sum::<usize>()
            }
        };
        self.terms.iter().map(size).sum()
    }
}

/// Adds `columns` to the outputs, four at a time: so a column is read once for all outputs, and sums are seldom written.
fn add_columns(outputs: &mut [Buffer], rows: usize, columns: &[&[f32]], scalings: &[Scaling], weights: &[Vec<f32>]) {
    let (fours, rest) = columns.as_chunks::<4>();
    let (scalings_of_fours, scalings) = scalings.as_chunks::<4>();
    for (number, (columns, scalings)) in fours.iter().zip(scalings_of_fours).enumerate() {
        let plain = scalings.iter().all(|scaling| *scaling == Scaling::NONE);
        let four_of = |weights: &[f32]| [0, 1, 2, 3].map(|i| weights[4 * number + i]);
        for (outputs, weights) in outputs.chunks_mut(2).zip(weights.chunks(2)) {
            match (outputs, weights, plain) {
                ([a, b], [to_a, to_b], _) => {
                    let (a, b) = (&mut a.f32s_mut()[..rows], &mut b.f32s_mut()[..rows]);
                    add_four_to_two([a, b], *columns, scalings, [four_of(to_a), four_of(to_b)]);
                }
                ([a], [to_a], true) => add_four(&mut a.f32s_mut()[..rows], *columns, four_of(to_a)),
                ([a], [to_a], false) => add_four_scaled(&mut a.f32s_mut()[..rows], *columns, scalings, four_of(to_a)),
                _ => {}
            }
        }
    }
    for (number, (column, Scaling { offset, scale })) in rest.iter().zip(scalings).enumerate() {
        for (output, weights) in outputs.iter_mut().zip(weights) {
            let weight = weights[4 * fours.len() + number];
            add_scaled(&mut output.f32s_mut()[..rows], column, *offset, *scale, weight);
        }
    }
}

/// Adds to each sum the weight that its number stands for.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn add_from_table(sums: &mut [f32], numbers: &[i64], first: i64, weights: &[f32]) {
    let last = weights.len() as u64 - 1;
    for (sum, number) in sums.iter_mut().zip(numbers) {
        let place = (number.wrapping_sub(first) as u64).min(last);
        // SAFETY: it is at most the last place.
        *sum += unsafe { *weights.get_unchecked(place as usize) };
    }
}

#[inline(always)]
fn multiply_add(fused: bool, x: f32, weight: f32, sum: f32) -> f32 {
    // Without the instruction, `mul_add` is a slow function.
    if fused { x.mul_add(weight, sum) } else { x * weight + sum }
}

/// As [`add_four_scaled`] for two outputs, which a classifier of two classes has: columns are read and scaled once.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn add_four_to_two(sums: [&mut [f32]; 2], columns: [&[f32]; 4], scalings: &[Scaling; 4], weights: [[f32; 4]; 2]) {
    let fused = target_cfg_f!(any(target_feature = "fma", target_arch = "aarch64"));
    let [first, second] = sums;
    let second = &mut second[..first.len()];
    let [a, b, c, d] = columns.map(|column| &column[..first.len()]);
    let [sa, sb, sc, sd] = scalings;
    for (i, (first, second)) in first.iter_mut().zip(second).enumerate() {
        let values = [
            (a[i] - sa.offset) * sa.scale,
            (b[i] - sb.offset) * sb.scale,
            (c[i] - sc.offset) * sc.scale,
            (d[i] - sd.offset) * sd.scale,
        ];
        for (x, weight) in values.iter().zip(weights[0]) {
            *first = multiply_add(fused, *x, weight, *first);
        }
        for (x, weight) in values.iter().zip(weights[1]) {
            *second = multiply_add(fused, *x, weight, *second);
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn add_four_scaled(sums: &mut [f32], columns: [&[f32]; 4], scalings: &[Scaling; 4], weights: [f32; 4]) {
    let fused = target_cfg_f!(any(target_feature = "fma", target_arch = "aarch64"));
    let [a, b, c, d] = columns.map(|column| &column[..sums.len()]);
    let [sa, sb, sc, sd] = scalings;
    for (i, sum) in sums.iter_mut().enumerate() {
        let ab = multiply_add(fused, (a[i] - sa.offset) * sa.scale, weights[0], *sum);
        let ab = multiply_add(fused, (b[i] - sb.offset) * sb.scale, weights[1], ab);
        let cd = multiply_add(fused, (c[i] - sc.offset) * sc.scale, weights[2], ab);
        *sum = multiply_add(fused, (d[i] - sd.offset) * sd.scale, weights[3], cd);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn add_four(sums: &mut [f32], columns: [&[f32]; 4], weights: [f32; 4]) {
    let fused = target_cfg_f!(any(target_feature = "fma", target_arch = "aarch64"));
    let [a, b, c, d] = columns.map(|column| &column[..sums.len()]);
    for (i, sum) in sums.iter_mut().enumerate() {
        let ab = multiply_add(fused, b[i], weights[1], multiply_add(fused, a[i], weights[0], *sum));
        *sum = multiply_add(fused, d[i], weights[3], multiply_add(fused, c[i], weights[2], ab));
    }
}

/// Adds `column * weight` to `sums`.
pub(super) fn add_product(sums: &mut [f32], column: &[f32], weight: f32) {
    add_scaled(sums, column, 0.0, 1.0, weight);
}

/// `sums * factor + addend`
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
pub(super) fn scale_and_add(sums: &mut [f32], factor: f32, addend: f32) {
    let fused = target_cfg_f!(any(target_feature = "fma", target_arch = "aarch64"));
    sums.iter_mut().for_each(|sum| *sum = multiply_add(fused, *sum, factor, addend));
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma", "aarch64+neon"))]
fn add_scaled(sums: &mut [f32], column: &[f32], offset: f32, scale: f32, weight: f32) {
    let fused = target_cfg_f!(any(target_feature = "fma", target_arch = "aarch64"));
    for (sum, x) in sums.iter_mut().zip(column) {
        *sum = multiply_add(fused, (x - offset) * scale, weight, *sum);
    }
}

/// As [`Product`], in double precision.
#[derive(Debug)]
struct DoubleProduct {
    /// Of each output, those of all columns.
    weights: Vec<f64>,
    columns: usize,
    factor: f64,
    bias: Vec<f64>,
}

impl Kernel for DoubleProduct {
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        _: &mut TreeScratch,
    ) -> Result<(), String> {
        for (number, output) in outputs.iter_mut().enumerate() {
            let sums = &mut output.f64s_mut()[..rows];
            sums.fill(0.0);
            let weights = &self.weights[number * self.columns..][..self.columns];
            for (input, weight) in inputs.iter().zip(weights) {
                sums.iter_mut().zip(input.f64s()).for_each(|(sum, x)| *sum += x * weight);
            }
            sums.iter_mut().for_each(|sum| *sum = *sum * self.factor + self.bias[number]);
        }
        Ok(())
    }

    fn size(&self) -> usize {
        size_of_val(self.weights.as_slice())
    }
}

/// `columns · weights * factor + bias` for each output: `weights` holds those of the first output, then of the next.
pub(super) fn product(
    builder: &mut ProgramBuilder,
    columns: &[Operand],
    weights: Vec<f32>,
    factor: f32,
    bias: Vec<f32>,
) -> Result<Vec<Operand>> {
    if weights.len() != columns.len() * bias.len() {
        invalid!("{} weights for {} columns and {} outputs", weights.len(), columns.len(), bias.len());
    }
    let (terms, inputs) = terms(builder, columns);
    let outputs = vec![Kind::F32; bias.len()];
    let mut start = 0;
    let weighted = terms.iter().map(|term| {
        let of_output = |output: usize| {
            let first = output * columns.len() + start;
            weights[first..first + term.columns()].to_vec()
        };
        let weights = (0..bias.len()).map(of_output).collect();
        start += term.columns();
        Weighted::of(term, weights)
    });
    let terms = weighted.collect();
    builder.emit(Product { terms, factor, bias }, &inputs, &outputs)
}

impl Term {
    fn columns(&self) -> usize {
        match self {
            Self::Columns(scalings) => scalings.len(),
            Self::OneHot { columns, .. } => *columns,
        }
    }
}

/// Reads scaled columns before they are scaled, and categories in place of columns of zeros and ones.
fn terms(builder: &ProgramBuilder, columns: &[Operand]) -> (Vec<Term>, Vec<Operand>) {
    let (mut terms, mut inputs) = (vec![], vec![]);
    let mut at = 0;
    while at < columns.len() {
        let of_code = |column: &Operand, expected: Register, position: usize| {
            matches!(builder.origin(column), Some(Origin::OneHot { code, category, .. })
                if *code == expected && *category == position)
        };
        let scaling = match builder.origin(&columns[at]) {
            Some(Origin::OneHot { code, category: 0, of })
                if (0..*of).all(|i| columns.get(at + i).is_some_and(|column| of_code(column, *code, i))) =>
            {
                let code = Operand::Register(*code);
                let (input, first, categories) = match builder.origin(&code) {
                    Some(Origin::Code { source, first, codes }) => {
                        let category = |code: &i64| usize::try_from(*code).ok().filter(|code| code < of);
                        (Operand::Register(*source), *first, codes.iter().map(category).collect())
                    }
                    _ => (code, 0, (0..*of).map(Some).collect()),
                };
                terms.push(Term::OneHot { first, categories, columns: *of });
                inputs.push(input);
                at += of;
                continue;
            }
            Some(Origin::Scaled { source, offset, scale }) => {
                inputs.push(Operand::Register(*source));
                Scaling { offset: *offset, scale: *scale }
            }
            _ => {
                inputs.push(columns[at].clone());
                Scaling::NONE
            }
        };
        match terms.last_mut() {
            Some(Term::Columns(scalings)) => scalings.push(scaling),
            _ => terms.push(Term::Columns(vec![scaling])),
        }
        at += 1;
    }
    (terms, inputs)
}

fn floats(value: &Value) -> Result<Vec<f32>> {
    let float = |item: &Operand| match item {
        Operand::Constant(Scalar::F32(value)) => Some(*value),
        _ => None,
    };
    match value.items.iter().map(float).collect() {
        Some(floats) if value.rows.is_none() => Ok(floats),
        _ => unsupported!("multiplies with what is not constant"),
    }
}

fn doubles(value: &Value) -> Result<Vec<f64>> {
    let double = |item: &Operand| match item {
        Operand::Constant(Scalar::F64(value)) => Some(*value),
        _ => None,
    };
    match value.items.iter().map(double).collect() {
        Some(doubles) if value.rows.is_none() => Ok(doubles),
        _ => unsupported!("multiplies with what is not constant"),
    }
}

/// The columns of each output, one after the other, of a matrix `[columns, outputs]`.
fn by_output<T: Copy>(matrix: &[T], columns: usize, outputs: usize) -> Vec<T> {
    (0..outputs).flat_map(|output| (0..columns).map(move |column| matrix[column * outputs + output])).collect()
}

/// `columns · matrix * factor + bias`, where `matrix` holds `[columns, outputs]`.
fn multiply(
    builder: &mut ProgramBuilder,
    element: ElementType,
    columns: &[Operand],
    matrix: &Value,
    outputs: usize,
    factor: f32,
    bias: Option<&Value>,
) -> Result<Vec<Operand>> {
    if matrix.items.len() != columns.len() * outputs {
        invalid!("multiplies {} columns with {:?}", columns.len(), matrix.dims);
    }
    if matrix.items.len() > MOST_WEIGHTS && !builder.is_forced() {
        unsupported!("{} weights, with which ONNX Runtime is faster", matrix.items.len());
    }
    match element {
        ElementType::Float32 => {
            let weights = by_output(&floats(matrix)?, columns.len(), outputs);
            let bias = bias.map(floats).transpose()?.unwrap_or_else(|| vec![0.0; outputs]);
            product(builder, columns, weights, factor, bias)
        }
        ElementType::Float64 => {
            let weights = by_output(&doubles(matrix)?, columns.len(), outputs);
            let bias = bias.map(doubles).transpose()?.unwrap_or_else(|| vec![0.0; outputs]);
            let kernel = DoubleProduct { weights, columns: columns.len(), factor: factor.into(), bias };
            builder.emit(kernel, columns, &vec![Kind::F64; outputs])
        }
        element => unsupported!("multiplies {element}"),
    }
}

/// With the last two dimensions in the other order.
fn transposed(value: &Value) -> Result<Value> {
    let [rows, columns] = value.dims[..] else { invalid!("a matrix of {} dimensions", value.rank()) };
    let items = (0..columns).flat_map(|j| (0..rows).map(move |i| (i, j)));
    let items = items.map(|(i, j)| value.items[i * columns + j].clone()).collect();
    Ok(value.with_items(vec![columns, rows], value.rows.map(|axis| 1 - axis), items))
}

pub(super) fn mat_mul(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let (a, b) = (node.input(0)?, node.input(1)?);
    if a.element != b.element {
        invalid!("multiplies {} with {}", a.element, b.element);
    }
    if a.rows.is_none() && b.rows.is_some() {
        // A·B = (Bᵀ·Aᵀ)ᵀ
        if a.rank() != 2 || b.rank() != 2 || b.rows != Some(1) {
            unsupported!("multiplies {:?} with rows in {:?}", a.dims, b.dims);
        }
        let product = times(builder, &transposed(b)?, &transposed(a)?)?;
        return Ok(vec![transposed(&product)?]);
    }
    Ok(vec![times(builder, a, b)?])
}

/// `a · b`, where `a` has the rows and `b` is constant.
fn times(builder: &mut ProgramBuilder, a: &Value, b: &Value) -> Result<Value> {
    if b.rows.is_some() {
        unsupported!("multiplies rows with rows");
    }
    let Some(width) = a.dims.last().copied().filter(|width| *width > 0) else {
        unsupported!("multiplies {:?}", a.dims);
    };
    if a.rows == Some(a.rank() - 1) {
        unsupported!("adds up rows");
    }
    let (outputs, keeps) = match b.dims[..] {
        [columns] if columns == width => (1, false),
        [columns, outputs] if columns == width => (outputs, true),
        [_, _] | [_] => invalid!("multiplies {:?} with {:?}", a.dims, b.dims),
        _ => unsupported!("multiplies with {} dimensions", b.rank()),
    };
    let mut items = vec![];
    for columns in a.items.chunks_exact(width) {
        items.extend(multiply(builder, a.element, columns, b, outputs, 1.0, None)?);
    }
    let mut dims = a.dims[..a.rank() - 1].to_vec();
    if keeps {
        dims.push(outputs);
    }
    Ok(a.with_items(dims, a.rows, items))
}

pub(super) fn gemm(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let (mut a, mut b) = (node.input(0)?.clone(), node.input(1)?.clone());
    if a.element != b.element {
        invalid!("multiplies {} with {}", a.element, b.element);
    }
    if node.flag("transA", false) {
        a = transposed(&a)?;
    }
    if node.flag("transB", false) {
        b = transposed(&b)?;
    }
    let ([_, width], [columns, outputs], Some(0)) = (&a.dims[..], &b.dims[..], a.rows) else {
        unsupported!("multiplies {:?} with {:?}", a.dims, b.dims);
    };
    if width != columns || b.rows.is_some() {
        unsupported!("multiplies {:?} with {:?}", a.dims, b.dims);
    }
    let (outputs, beta) = (*outputs, node.float_or("beta", 1.0));
    let bias = match node.optional(2) {
        None => None,
        Some(c) if c.element != a.element => invalid!("adds {} to {}", c.element, a.element),
        Some(c) if c.rows.is_some() => {
            // The product, and then the sum.
            let product = multiply(builder, a.element, &a.items, &b, outputs, node.float_or("alpha", 1.0), None)?;
            let product = a.with_items(vec![1, outputs], Some(0), product);
            return Ok(vec![super::binary::sum(builder, &product, c, beta)?]);
        }
        Some(c) => {
            let form = Value { items: vec![], rows: None, dims: vec![1, outputs], ..c.clone() };
            let (dims, _) = broadcast_form(&[c, &form])?;
            if dims != [1, outputs] {
                unsupported!("adds {:?}", c.dims);
            }
            let items = c.broadcast(&dims).into_iter().map(|item| match c.items[item].constant() {
                Some(Scalar::F32(value)) => Ok(Operand::Constant(Scalar::F32(value * beta))),
                Some(Scalar::F64(value)) => Ok(Operand::Constant(Scalar::F64(value * f64::from(beta)))),
                _ => unsupported!("adds what is not constant"),
            });
            Some(c.with_items(dims, None, items.collect::<Result<_>>()?))
        }
    };
    let items = multiply(builder, a.element, &a.items, &b, outputs, node.float_or("alpha", 1.0), bias.as_ref())?;
    Ok(vec![a.with_items(vec![1, outputs], Some(0), items)])
}
