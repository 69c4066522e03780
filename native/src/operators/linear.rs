//! Linear models of ai.onnx.ml.

use super::cast::cast_to;
use super::class_names::{ClassNames, greatest};
use super::post_transform::PostTransform;
use super::product::product;
use crate::builder::Node;
use crate::builder::ProgramBuilder;
use crate::builder::{Result, Value, invalid, kind_of, unsupported};
use crate::program::{Buffer, Kernel, Kind, Slice};
use crate::tensor::ElementType;
use crate::trees::TreeScratch;

pub(super) fn regressor(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
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
    let scores = product(builder, columns, node.floats("coefficients").to_vec(), 1.0, bias)?;
    let scores = builder.emit(Transform(PostTransform::of(node)?), &scores, &vec![Kind::F32; targets])?;
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
            [only] => {
                let (negative, positive) = (self.codes[0], self.codes[1]);
                let each = label.iter_mut().zip(only.f32s());
                // Without a branch, which would go wrong every other time.
                each.for_each(|(label, sum)| *label = negative ^ (negative ^ positive) & -i64::from(*sum > 0.0));
            }
            scores => {
                let scores: Vec<_> = scores.iter().map(|scores| scores.f32s()).collect();
                greatest(&scores, &self.codes, label);
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

pub(super) fn classifier(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = cast_to(builder, node.input(0)?, ElementType::Float32)?;
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
    let sums = product(builder, columns, node.floats("coefficients").to_vec(), 1.0, intercepts.to_vec())?;
    let scores = if second { 2 } else { targets };
    let kinds = [vec![Kind::I64], vec![Kind::F32; scores]].concat();
    let mut outputs = builder.emit(Classify { codes, transform, second }, &sums, &kinds)?;
    let scores = outputs.split_off(1);
    let scores = Value::of_rows(ElementType::Float32, vec![1, scores.len()], scores);
    Ok(vec![names.value(outputs.remove(0)), scores])
}
