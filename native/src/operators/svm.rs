//! Support vector machines.

use super::cast::cast_to;
use super::class_names::ClassNames;
use super::post_transform::{PostTransform, logistic};
use super::product::{add_product, product, scale_and_add};
use super::unary::tanh;
use crate::builder::Node;
use crate::builder::ProgramBuilder;
use crate::builder::{Result, Value, invalid, unsupported};
use crate::program::{Buffer, Kernel, Kind, Slice};
use crate::tensor::ElementType;
use crate::trees::TreeScratch;

#[derive(Debug, Clone, Copy)]
enum KernelFunction {
    Linear,
    Poly { gamma: f32, coef0: f32, degree: f32 },
    Rbf { gamma: f32 },
    Sigmoid { gamma: f32, coef0: f32 },
}

impl KernelFunction {
    fn of(node: &Node<'_>) -> Result<Self> {
        let (gamma, coef0, degree) = match node.floats("kernel_params") {
            [] => (0.0, 0.0, 0.0),
            [gamma, coef0, degree, ..] => (*gamma, *coef0, *degree),
            other => invalid!("kernel_params has {} values", other.len()),
        };
        Ok(match node.text_or("kernel_type", "LINEAR").as_str() {
            "LINEAR" => Self::Linear,
            "POLY" => Self::Poly { gamma, coef0, degree },
            "RBF" => Self::Rbf { gamma },
            "SIGMOID" => Self::Sigmoid { gamma, coef0 },
            other => invalid!("kernel_type is '{other}'"),
        })
    }

    /// Its value for each row and one support vector.
    fn evaluate(self, columns: &[Slice<'_>], vector: &[f32], values: &mut [f32]) {
        values.fill(0.0);
        for (column, of_vector) in columns.iter().zip(vector) {
            match self {
                Self::Rbf { .. } => {
                    let pairs = values.iter_mut().zip(column.f32s());
                    pairs.for_each(|(sum, x)| *sum += (x - of_vector) * (x - of_vector));
                }
                _ => add_product(values, column.f32s(), *of_vector),
            }
        }
        match self {
            Self::Linear => {}
            Self::Rbf { gamma } => values.iter_mut().for_each(|sum| *sum = (-gamma * *sum).exp()),
            Self::Sigmoid { gamma, coef0 } => {
                scale_and_add(values, gamma, coef0);
                values.iter_mut().for_each(|sum| *sum = tanh(*sum));
            }
            Self::Poly { gamma, coef0, degree } => {
                scale_and_add(values, gamma, coef0);
                values.iter_mut().for_each(|base| {
                    *base = match degree {
                        2.0 => *base * *base,
                        3.0 => *base * *base * *base,
                        degree => base.powf(degree),
                    };
                });
            }
        }
    }
}

/// Support vectors of equal length, one after the other.
#[derive(Debug)]
struct SupportVectors {
    function: KernelFunction,
    vectors: Vec<f32>,
    length: usize,
}

impl SupportVectors {
    fn of(node: &Node<'_>, count: usize, columns: usize) -> Result<Self> {
        let vectors = node.floats("support_vectors").to_vec();
        if count == 0 || columns == 0 || vectors.len() != count.saturating_mul(columns) {
            invalid!("support_vectors has {} values for {count} vectors of {columns} features", vectors.len());
        }
        Ok(Self { function: KernelFunction::of(node)?, vectors, length: columns })
    }

    /// Calls `each` with the number of each vector and the rows' values for it.
    fn for_each(&self, inputs: &[Slice<'_>], rows: usize, mut each: impl FnMut(usize, &[f32])) {
        let mut values = vec![0.0; rows];
        for (number, vector) in self.vectors.chunks_exact(self.length).enumerate() {
            self.function.evaluate(inputs, vector, &mut values);
            each(number, &values);
        }
    }
}

#[derive(Debug)]
struct Regress {
    vectors: SupportVectors,
    coefficients: Vec<f32>,
    rho: f32,
    one_class: bool,
}

impl Kernel for Regress {
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        _: &mut TreeScratch,
    ) -> Result<(), String> {
        // In the order of ONNX Runtime's product: blocks of vectors, whose sums are added to what was there.
        const BLOCK_OF_VECTORS: usize = 128;
        let output = &mut outputs[0].f32s_mut()[..rows];
        output.fill(self.rho);
        let mut sums = vec![0.0; rows];
        self.vectors.for_each(inputs, rows, |number, values| {
            add_product(&mut sums, values, self.coefficients[number]);
            if (number + 1).is_multiple_of(BLOCK_OF_VECTORS) || number + 1 == self.coefficients.len() {
                output.iter_mut().zip(&sums).for_each(|(output, sum)| *output += sum);
                sums.fill(0.0);
            }
        });
        if self.one_class {
            output.iter_mut().for_each(|sum| *sum = sign(*sum));
        }
        Ok(())
    }

    fn size(&self) -> usize {
        size_of_val(self.vectors.vectors.as_slice()) + size_of_val(self.coefficients.as_slice())
    }
}

fn sign(x: f32) -> f32 {
    if x > 0.0 { 1.0 } else { -1.0 }
}

#[derive(Debug)]
struct Sign;

impl Kernel for Sign {
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        _: &mut TreeScratch,
    ) -> Result<(), String> {
        outputs[0].f32s_mut()[..rows].iter_mut().zip(inputs[0].f32s()).for_each(|(to, x)| *to = sign(*x));
        Ok(())
    }
}

pub(super) fn regressor(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = node.input(0)?;
    if value.element != ElementType::Float32 {
        unsupported!("takes {}", value.element);
    }
    let columns = value.columns()?;
    let coefficients = node.floats("coefficients").to_vec();
    let Some(rho) = node.floats("rho").first().copied() else { invalid!("has no rho") };
    let one_class = node.flag("one_class", false);
    let scores = match usize::try_from(node.int_or("n_supports", 0)) {
        Ok(0) => {
            let scores = product(builder, columns, coefficients, 1.0, vec![rho])?;
            if one_class { builder.emit(Sign, &scores, &[Kind::F32])? } else { scores }
        }
        Ok(count) => {
            let vectors = SupportVectors::of(node, count, columns.len())?;
            if coefficients.len() != count {
                invalid!("{} coefficients for {count} support vectors", coefficients.len());
            }
            builder.emit(Regress { vectors, coefficients, rho, one_class }, columns, &[Kind::F32])?
        }
        Err(_) => invalid!("n_supports is {}", node.int_or("n_supports", 0)),
    };
    Ok(vec![Value::of_rows(ElementType::Float32, vec![1, 1], scores)])
}

/// A classifier by pairs of classes, each of which gets a vote.
#[derive(Debug)]
struct Pairs {
    vectors: SupportVectors,
    /// The class of each support vector.
    class_of: Vec<usize>,
    classes: usize,
    /// One row of coefficients for each class but one.
    coefficients: Vec<f32>,
    rho: Vec<f32>,
    /// Of each pair, the two numbers of Platt's scaling.
    probabilities: Option<(Vec<f32>, Vec<f32>)>,
    codes: Vec<i64>,
    transform: PostTransform,
}

impl Pairs {
    fn pairs(&self) -> Vec<(usize, usize)> {
        (0..self.classes).flat_map(|i| (i + 1..self.classes).map(move |j| (i, j))).collect()
    }
}

impl Kernel for Pairs {
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        _: &mut TreeScratch,
    ) -> Result<(), String> {
        let pairs = self.pairs();
        let count = self.class_of.len();
        let mut sums = vec![vec![0.0f64; rows]; pairs.len()];
        self.vectors.for_each(inputs, rows, |number, values| {
            let class = self.class_of[number];
            for (sums, (i, j)) in sums.iter_mut().zip(&pairs) {
                let row = match class {
                    class if class == *i => j - 1,
                    class if class == *j => *i,
                    _ => continue,
                };
                let coefficient = self.coefficients[row * count + number];
                sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += f64::from(coefficient * value));
            }
        });
        for (sums, rho) in sums.iter_mut().zip(&self.rho) {
            sums.iter_mut().for_each(|sum| *sum += f64::from(*rho));
        }
        let (label, scores) = outputs.split_at_mut(1);
        let label = label[0].i64s_mut();
        let mut votes = vec![0; self.classes];
        let mut of_row = vec![0.0f32; scores.len()];
        for row in 0..rows {
            votes.fill(0);
            for (sums, (i, j)) in sums.iter().zip(&pairs) {
                votes[if sums[row] > 0.0 { *i } else { *j }] += 1;
            }
            let most = votes.iter().max().copied().unwrap_or(0);
            let best = votes.iter().position(|votes| *votes == most).unwrap_or(0);
            label[row] = self.codes[best];
            match &self.probabilities {
                Some((a, b)) => {
                    let decisions: Vec<f32> = sums.iter().map(|sums| sums[row] as f32).collect();
                    couple(&decisions, a, b, self.classes, &mut of_row);
                }
                None if self.classes == 2 => {
                    // One decision for two classes; with a transform, as if it were a probability.
                    let decision = sums[0][row] as f32;
                    of_row[1] = decision;
                    of_row[0] = match self.transform {
                        PostTransform::None | PostTransform::Logistic => -decision,
                        _ => 1.0 - decision,
                    };
                }
                None => of_row.iter_mut().zip(&sums).for_each(|(score, sums)| *score = sums[row] as f32),
            }
            scores.iter_mut().zip(&of_row).for_each(|(scores, score)| scores.f32s_mut()[row] = *score);
        }
        if self.probabilities.is_some() || self.classes > 2 || self.transform == PostTransform::Logistic {
            let mut scores: Vec<_> = scores.iter_mut().map(|scores| &mut scores.f32s_mut()[..rows]).collect();
            self.transform.apply(&mut scores);
        }
        Ok(())
    }

    fn size(&self) -> usize {
        size_of_val(self.vectors.vectors.as_slice()) + size_of_val(self.coefficients.as_slice())
    }
}

/// Probabilities of the classes from the decisions of all pairs. Source: T.-F. Wu, C.-J. Lin, R. C. Weng, "Probability
/// estimates for multi-class classification by pairwise coupling", JMLR 5 (2004), the second method.
fn couple(decisions: &[f32], a: &[f32], b: &[f32], classes: usize, p: &mut [f32]) {
    let mut pairwise = vec![0.0f32; classes * classes];
    let mut pair = 0;
    for i in 0..classes {
        for j in i + 1..classes {
            let mut probability = [decisions[pair] * a[pair] + b[pair]];
            logistic(&mut probability);
            let probability = 1.0 - probability[0];
            // NaN stays NaN, which leaves all classes equal.
            let probability = if probability < 1e-7 { 1e-7 } else { probability };
            let probability = if probability > 1.0 - 1e-7 { 1.0 - 1e-7 } else { probability };
            pairwise[i * classes + j] = probability;
            pairwise[j * classes + i] = 1.0 - probability;
            pair += 1;
        }
    }
    let r = |i: usize, j: usize| pairwise[i * classes + j];
    let mut q = vec![0.0f32; classes * classes];
    let eps = 0.005 / classes as f32;
    for i in 0..classes {
        p[i] = 1.0 / classes as f32;
        for j in 0..classes {
            if i != j {
                q[i * classes + i] += r(j, i) * r(j, i);
                q[i * classes + j] = if j < i { q[j * classes + i] } else { -r(j, i) * r(i, j) };
            }
        }
    }
    let mut qp = vec![0.0f32; classes];
    for _ in 0..100 {
        let mut pqp = 0.0;
        for i in 0..classes {
            qp[i] = 0.0;
            for j in 0..classes {
                qp[i] += q[i * classes + j] * p[j];
            }
            pqp += p[i] * qp[i];
        }
        let most = qp.iter().map(|qp| (qp - pqp).abs()).fold(0.0, f32::max);
        if most < eps {
            break;
        }
        for i in 0..classes {
            let diff = (-qp[i] + pqp) / q[i * classes + i];
            p[i] += diff;
            pqp = (pqp + diff * (diff * q[i * classes + i] + 2.0 * qp[i])) / (1.0 + diff) / (1.0 + diff);
            for j in 0..classes {
                qp[j] = (qp[j] + diff * q[i * classes + j]) / (1.0 + diff);
                p[j] /= 1.0 + diff;
            }
        }
    }
}

/// The greatest of the scores of a linear machine decides.
#[derive(Debug)]
struct LinearScores {
    codes: Vec<i64>,
    all_positive: bool,
    transform: PostTransform,
}

impl Kernel for LinearScores {
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        _: &mut TreeScratch,
    ) -> Result<(), String> {
        let (label, scores) = outputs.split_at_mut(1);
        for (row, label) in label[0].i64s_mut()[..rows].iter_mut().enumerate() {
            let mut best = 0;
            for class in 1..inputs.len() {
                if inputs[class].f32s()[row] > inputs[best].f32s()[row] {
                    best = class;
                }
            }
            let most = inputs[best].f32s()[row];
            let second = inputs.len() == 2 && if self.all_positive { most >= 0.5 } else { most > 0.0 };
            *label = self.codes[if second { 1 } else { best }];
        }
        for (input, output) in inputs.iter().zip(scores.iter_mut()) {
            output.f32s_mut()[..rows].copy_from_slice(input.f32s());
        }
        if inputs.len() > 1 || self.transform == PostTransform::Probit {
            let mut scores: Vec<_> = scores.iter_mut().map(|scores| &mut scores.f32s_mut()[..rows]).collect();
            self.transform.apply(&mut scores);
        }
        Ok(())
    }
}

pub(super) fn classifier(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = cast_to(builder, node.input(0)?, ElementType::Float32)?;
    let columns = value.columns()?;
    let names = ClassNames::of(node, "classlabels_ints", "classlabels_strings");
    let (classes, transform) = (names.len(), PostTransform::of(node)?);
    if classes < 2 {
        unsupported!("{classes} classes");
    }
    let coefficients = node.floats("coefficients").to_vec();
    let all_positive = coefficients.iter().all(|value| *value >= 0.0);
    let rho = node.floats("rho").to_vec();
    let sizes = node.ints("vectors_per_class").iter().map(|count| usize::try_from(*count).ok());
    let Some(sizes) = sizes.collect::<Option<Vec<_>>>() else { invalid!("a negative number of vectors") };
    let count = sizes.iter().try_fold(0usize, |sum, count| sum.checked_add(*count)).unwrap_or(usize::MAX);
    if count == 0 {
        let Some(rho) = rho.first().copied() else { invalid!("has no rho") };
        let scores = product(builder, columns, coefficients, 1.0, vec![rho; classes])?;
        let kinds = [vec![Kind::I64], vec![Kind::F32; classes]].concat();
        let kernel = LinearScores { codes: names.codes().to_vec(), all_positive, transform };
        let mut outputs = builder.emit(kernel, &scores, &kinds)?;
        let scores = outputs.split_off(1);
        return Ok(vec![
            names.value(outputs.remove(0)),
            Value::of_rows(ElementType::Float32, vec![1, classes], scores),
        ]);
    }
    if sizes.len() != classes {
        invalid!("vectors of {} classes for {classes}", sizes.len());
    }
    let vectors = SupportVectors::of(node, count, columns.len())?;
    let pairs = classes * (classes - 1) / 2;
    let (a, b) = (node.floats("prob_a"), node.floats("prob_b"));
    if coefficients.len() < (classes - 1) * count || rho.len() < pairs {
        invalid!("{} coefficients and {} values of rho for {classes} classes", coefficients.len(), rho.len());
    }
    let probabilities = match (a.len(), b.len()) {
        (0, 0) => None,
        (a_len, b_len) if a_len >= pairs && b_len >= pairs => Some((a.to_vec(), b.to_vec())),
        _ => invalid!("{} and {} numbers for the probabilities of {pairs} pairs", a.len(), b.len()),
    };
    if transform == PostTransform::Probit && probabilities.is_none() && classes == 2 {
        unsupported!("the probit of a single score for two classes"); // ONNX Runtime leaves one unwritten
    }
    let scores = if probabilities.is_some() || classes == 2 { classes } else { pairs };
    let class_of = sizes.iter().enumerate().flat_map(|(class, count)| vec![class; *count]).collect();
    let codes = names.codes().to_vec();
    let kernel = Pairs { vectors, class_of, classes, coefficients, rho, probabilities, codes, transform };
    let kinds = [vec![Kind::I64], vec![Kind::F32; scores]].concat();
    let mut outputs = builder.emit(kernel, columns, &kinds)?;
    let scores = outputs.split_off(1);
    let scores = Value::of_rows(ElementType::Float32, vec![1, scores.len()], scores);
    Ok(vec![names.value(outputs.remove(0)), scores])
}
