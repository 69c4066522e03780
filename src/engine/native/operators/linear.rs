//! Products with constant matrices: linear models, and the layers of small networks.

use multiversion::multiversion;
use multiversion::target::target_cfg_f;

use super::elementwise::cast_to;
use super::post_transform::PostTransform;
use crate::engine::native::compile::{Compiler, Origin};
use crate::engine::native::node::Node;
use crate::engine::native::program::{Buffer, Kernel, Kind, Register, Slice, Texts};
use crate::engine::native::trees::{BLOCK, TreeScratch};
use crate::engine::native::value::{Operand, Result, Scalar, Value, broadcast_form, invalid, kind_of, unsupported};
use crate::tensor::ElementType;

/// Weights of one product, at most: for larger ones ONNX Runtime is faster.
const MOST_WEIGHTS: usize = 1 << 14;

/// What a weight is multiplied with.
#[derive(Debug, Clone, PartialEq)]
enum Term {
    /// A column: `(x - offset) * scale`, with 0 and 1 as it is.
    Column { offset: f32, scale: f32 },
    /// So many columns of which one is 1, at the position that the input says, or none.
    OneHot { categories: usize },
}

/// `x · W + b`, each sum in the order of the columns, as ONNX Runtime's matrix products make them.
#[derive(Debug)]
struct Product<T> {
    /// One for each input of the kernel.
    terms: Vec<Term>,
    /// Of each output, those of all columns.
    weights: Vec<T>,
    columns: usize,
    factor: T,
    bias: Vec<T>,
}

impl Kernel for Product<f32> {
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        _: &mut TreeScratch,
    ) -> Result<(), String> {
        let plain = Term::Column { offset: 0.0, scale: 1.0 };
        for (number, output) in outputs.iter_mut().enumerate() {
            let sums = &mut output.f32s_mut()[..rows];
            sums.fill(0.0);
            let mut weights = &self.weights[number * self.columns..][..self.columns];
            let mut at = 0;
            while at < self.terms.len() {
                if self.terms[at..].iter().take(4).filter(|term| **term == plain).count() == 4 {
                    let columns = [0, 1, 2, 3].map(|i| inputs[at + i].f32s());
                    add_four(sums, columns, [weights[0], weights[1], weights[2], weights[3]]);
                    weights = &weights[4..];
                    at += 4;
                    continue;
                }
                match self.terms[at] {
                    Term::Column { offset, scale } => {
                        add_scaled(sums, inputs[at].f32s(), offset, scale, weights[0]);
                        weights = &weights[1..];
                    }
                    Term::OneHot { categories } => {
                        let (of_categories, rest) = weights.split_at(categories);
                        for (sum, code) in sums.iter_mut().zip(inputs[at].i64s()) {
                            // No position, -1, is none of the categories.
                            *sum += of_categories.get(*code as usize).copied().unwrap_or(0.0);
                        }
                        weights = rest;
                    }
                }
                at += 1;
            }
            scale_and_add(sums, self.factor, self.bias[number]);
        }
        Ok(())
    }

    fn size(&self) -> usize {
        size_of_val(self.weights.as_slice())
    }
}

#[inline(always)]
fn multiply_add(fused: bool, x: f32, weight: f32, sum: f32) -> f32 {
    // Without the instruction, `mul_add` is a slow function.
    if fused { x.mul_add(weight, sum) } else { x * weight + sum }
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

impl Kernel for Product<f64> {
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
    compiler: &mut Compiler,
    columns: &[Operand],
    weights: Vec<f32>,
    factor: f32,
    bias: Vec<f32>,
) -> Result<Vec<Operand>> {
    if weights.len() != columns.len() * bias.len() {
        invalid!("{} weights for {} columns and {} outputs", weights.len(), columns.len(), bias.len());
    }
    let (terms, inputs) = terms(compiler, columns);
    let outputs = vec![Kind::F32; bias.len()];
    let kernel = Product { terms, weights, columns: columns.len(), factor, bias };
    compiler.emit(kernel, &inputs, &outputs)
}

/// Reads scaled columns before they are scaled, and positions in place of columns of zeros and ones.
fn terms(compiler: &Compiler, columns: &[Operand]) -> (Vec<Term>, Vec<Operand>) {
    let (mut terms, mut inputs) = (vec![], vec![]);
    let mut at = 0;
    while at < columns.len() {
        let of_code = |column: &Operand, expected: Register, position: usize| {
            matches!(compiler.origin(column), Some(Origin::OneHot { code, category, .. })
                if *code == expected && *category == position)
        };
        match compiler.origin(&columns[at]) {
            Some(Origin::OneHot { code, category: 0, of })
                if (0..*of).all(|i| columns.get(at + i).is_some_and(|column| of_code(column, *code, i))) =>
            {
                terms.push(Term::OneHot { categories: *of });
                inputs.push(Operand::Register(*code));
                at += of;
            }
            Some(Origin::Scaled { source, offset, scale }) => {
                terms.push(Term::Column { offset: *offset, scale: *scale });
                inputs.push(Operand::Register(*source));
                at += 1;
            }
            _ => {
                terms.push(Term::Column { offset: 0.0, scale: 1.0 });
                inputs.push(columns[at].clone());
                at += 1;
            }
        }
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
    compiler: &mut Compiler,
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
    if matrix.items.len() > MOST_WEIGHTS && !compiler.is_forced() {
        unsupported!("{} weights, with which ONNX Runtime is faster", matrix.items.len());
    }
    match element {
        ElementType::Float32 => {
            let weights = by_output(&floats(matrix)?, columns.len(), outputs);
            let bias = bias.map(floats).transpose()?.unwrap_or_else(|| vec![0.0; outputs]);
            product(compiler, columns, weights, factor, bias)
        }
        ElementType::Float64 => {
            let weights = by_output(&doubles(matrix)?, columns.len(), outputs);
            let bias = bias.map(doubles).transpose()?.unwrap_or_else(|| vec![0.0; outputs]);
            let terms = vec![Term::Column { offset: 0.0, scale: 1.0 }; columns.len()];
            let kernel = Product { terms, weights, columns: columns.len(), factor: factor.into(), bias };
            compiler.emit(kernel, columns, &vec![Kind::F64; outputs])
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

pub(super) fn mat_mul(compiler: &mut Compiler, node: &Node<'_>) -> Result<Vec<Value>> {
    let (a, b) = (node.input(0)?, node.input(1)?);
    if a.element != b.element {
        invalid!("multiplies {} with {}", a.element, b.element);
    }
    if a.rows.is_none() && b.rows.is_some() {
        // A·B = (Bᵀ·Aᵀ)ᵀ
        if a.rank() != 2 || b.rank() != 2 || b.rows != Some(1) {
            unsupported!("multiplies {:?} with rows in {:?}", a.dims, b.dims);
        }
        let product = times(compiler, &transposed(b)?, &transposed(a)?)?;
        return Ok(vec![transposed(&product)?]);
    }
    Ok(vec![times(compiler, a, b)?])
}

/// `a · b`, where `a` has the rows and `b` is constant.
fn times(compiler: &mut Compiler, a: &Value, b: &Value) -> Result<Value> {
    if b.rows.is_some() {
        unsupported!("multiplies rows with rows");
    }
    let Some(width) = a.dims.last().copied() else { invalid!("multiplies a single number") };
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
    for columns in a.items.chunks_exact(width.max(1)) {
        items.extend(multiply(compiler, a.element, columns, b, outputs, 1.0, None)?);
    }
    let mut dims = a.dims[..a.rank() - 1].to_vec();
    if keeps {
        dims.push(outputs);
    }
    Ok(a.with_items(dims, a.rows, items))
}

pub(super) fn gemm(compiler: &mut Compiler, node: &Node<'_>) -> Result<Vec<Value>> {
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
            let product = multiply(compiler, a.element, &a.items, &b, outputs, node.float_or("alpha", 1.0), None)?;
            let product = a.with_items(vec![1, outputs], Some(0), product);
            return Ok(vec![super::elementwise::sum(compiler, &product, c, beta)?]);
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
    let items = multiply(compiler, a.element, &a.items, &b, outputs, node.float_or("alpha", 1.0), bias.as_ref())?;
    Ok(vec![a.with_items(vec![1, outputs], Some(0), items)])
}

pub(super) fn regressor(compiler: &mut Compiler, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    if value.element != ElementType::Float32 {
        unsupported!("takes {}", value.element);
    }
    let columns = value.columns()?;
    let targets = match usize::try_from(node.int_or("targets", 1)) {
        Ok(targets) if targets > 0 && targets <= node.floats("coefficients").len() => targets,
        _ => invalid!("targets is {}", node.int_or("targets", 1)),
    };
    let intercepts = node.floats("intercepts");
    let bias = if intercepts.len() == targets { intercepts.to_vec() } else { vec![0.0; targets] };
    let scores = product(compiler, columns, node.floats("coefficients").to_vec(), 1.0, bias)?;
    let scores = compiler.emit(Transform(PostTransform::of(node)?), &scores, &vec![Kind::F32; targets])?;
    Ok(vec![Value::of_rows(ElementType::Float32, vec![1, targets], scores)])
}

/// The post-transform of scores.
#[derive(Debug)]
struct Transform(PostTransform);

impl Kernel for Transform {
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        _: &mut TreeScratch,
    ) -> Result<(), String> {
        for (input, output) in inputs.iter().zip(outputs.iter_mut()) {
            output.f32s_mut()[..rows].copy_from_slice(input.f32s());
        }
        // Of a single score only the probit is taken.
        if inputs.len() > 1 || self.0 == PostTransform::Probit {
            let mut scores: Vec<_> = outputs.iter_mut().map(|output| &mut output.f32s_mut()[..rows]).collect();
            self.0.apply(&mut scores);
        }
        Ok(())
    }
}

/// The labels of a classifier's classes.
#[derive(Debug, Clone)]
pub(super) struct ClassNames {
    ints: Vec<i64>,
    texts: Option<Texts>,
}

impl ClassNames {
    pub(super) fn of(node: &Node<'_>, ints: &str, texts: &str) -> Self {
        let texts = node.texts(texts);
        match texts.is_empty() {
            true => Self { ints: node.ints(ints).to_vec(), texts: None },
            false => Self { ints: (0..texts.len() as i64).collect(), texts: Some(texts.into()) },
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ints.len()
    }

    pub(super) fn are_texts(&self) -> bool {
        self.texts.is_some()
    }

    /// What stands for each class in a column: its label, or the position of its text.
    pub(super) fn codes(&self) -> &[i64] {
        &self.ints
    }

    /// The column of labels.
    pub(super) fn value(&self, label: Operand) -> Value {
        let element = if self.texts.is_some() { ElementType::String } else { ElementType::Int64 };
        Value { texts: self.texts.clone(), ..Value::of_rows(element, vec![1], vec![label]) }
    }
}

/// Label and scores from the sums of a linear classifier.
#[derive(Debug)]
struct Classify {
    codes: Vec<i64>,
    transform: PostTransform,
    /// Whether one sum stands for two classes.
    second: bool,
}

impl Kernel for Classify {
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        _: &mut TreeScratch,
    ) -> Result<(), String> {
        let (label, scores) = outputs.split_at_mut(1);
        let label = &mut label[0].i64s_mut()[..rows];
        match inputs {
            [only] => label.iter_mut().zip(only.f32s()).for_each(|(label, sum)| {
                *label = self.codes[usize::from(*sum > 0.0)];
            }),
            _ => {
                for (row, label) in label.iter_mut().enumerate() {
                    let mut best = 0;
                    for class in 1..inputs.len() {
                        if inputs[class].f32s()[row] > inputs[best].f32s()[row] {
                            best = class;
                        }
                    }
                    *label = self.codes[best];
                }
            }
        }
        if !self.second {
            for (input, output) in inputs.iter().zip(scores.iter_mut()) {
                output.f32s_mut()[..rows].copy_from_slice(input.f32s());
            }
            if inputs.len() > 1 || self.transform == PostTransform::Probit {
                let mut scores: Vec<_> = scores.iter_mut().map(|output| &mut output.f32s_mut()[..rows]).collect();
                self.transform.apply(&mut scores);
            }
            return Ok(());
        }
        let sums = inputs[0].f32s();
        let (first, second) = scores.split_at_mut(1);
        let (first, second) = (&mut first[0].f32s_mut()[..rows], &mut second[0].f32s_mut()[..rows]);
        second.copy_from_slice(sums);
        if self.transform == PostTransform::Logistic {
            super::post_transform::logistic(second);
        }
        first.iter_mut().zip(second.iter()).for_each(|(first, second)| *first = 1.0 - second);
        Ok(())
    }
}

pub(super) fn classifier(compiler: &mut Compiler, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = cast_to(compiler, node.input(0)?, ElementType::Float32)?;
    kind_of(value.element)?;
    let columns = value.columns()?;
    let names = ClassNames::of(node, "classlabels_ints", "classlabels_strings");
    let intercepts = node.floats("intercepts");
    let (targets, transform) = (intercepts.len(), PostTransform::of(node)?);
    let second = targets == 1 && names.len() == 2;
    if second && transform == PostTransform::Probit {
        unsupported!("the probit of a single score for two classes"); // ONNX Runtime leaves one unwritten
    }
    let codes = match (targets, names.len()) {
        (0, _) => invalid!("has no intercepts"),
        (1, 2) => names.codes().to_vec(),
        (1, _) if names.are_texts() => unsupported!("one score for {} classes", names.len()),
        (1, _) => vec![0, 1],
        (targets, classes) if classes >= targets => names.codes().to_vec(),
        (targets, classes) => invalid!("{classes} labels for {targets} classes"),
    };
    let sums = product(compiler, columns, node.floats("coefficients").to_vec(), 1.0, intercepts.to_vec())?;
    let scores = if second { 2 } else { targets };
    let kinds = [vec![Kind::I64], vec![Kind::F32; scores]].concat();
    let mut outputs = compiler.emit(Classify { codes, transform, second }, &sums, &kinds)?;
    let scores = outputs.split_off(1);
    let scores = Value::of_rows(ElementType::Float32, vec![1, scores.len()], scores);
    Ok(vec![names.value(outputs.remove(0)), scores])
}

const _: () = assert!(BLOCK.is_multiple_of(64), "whole vectors");
