//! Tree ensembles: from the attributes of their nodes to compiled trees, and from sums of leaves to scores and labels.
//!
//! The rules for scores are those of ONNX Runtime, which go beyond the operators' specification.

mod finish;
mod read;
mod read_v5;

use super::cast::cast_to;
use super::class_names::ClassNames;
use super::post_transform::PostTransform;
use crate::builder::Node;
use crate::builder::ProgramBuilder;
use crate::builder::{Operand, Result, Value, kind_of, unsupported};
use crate::program::{Buffer, Kernel, Kind, Slice};
use crate::tensor::ElementType;
use crate::trees::{BLOCK, Combine, CompiledEnsemble, Ensemble, Number, TreeScratch};
use finish::{Classifier, Presence, Regressor, presences};

/// Columns → sums of the leaves → outputs.
#[derive(Debug)]
struct Trees<T> {
    ensemble: CompiledEnsemble<T>,
    finish: Finish<T>,
}

#[derive(Debug)]
enum Finish<T> {
    Regressor(Regressor<T>),
    Classifier(Classifier<T>),
}

/// The kinds of numbers that columns hold and ensembles compute with.
trait ColumnNumber: Number {
    fn column(slice: Slice<'_>) -> &[Self];
    /// The type of the scores where they have that of the columns.
    const ELEMENT: ElementType;
    fn of_f32(value: f32) -> Self;
    fn to_f64(self) -> f64;
    fn of_f64(value: f64) -> Self;
    fn divide(self, count: usize) -> Self;
    fn sums(scratch: &mut TreeScratch) -> &mut Vec<Self>;
}

impl ColumnNumber for f32 {
    const ELEMENT: ElementType = ElementType::Float32;

    fn to_f64(self) -> f64 {
        self.into()
    }

    fn column(slice: Slice<'_>) -> &[Self] {
        slice.f32s()
    }

    fn of_f32(value: f32) -> Self {
        value
    }

    fn of_f64(value: f64) -> Self {
        value as f32
    }

    fn divide(self, count: usize) -> Self {
        self / count as f32
    }

    fn sums(scratch: &mut TreeScratch) -> &mut Vec<Self> {
        &mut scratch.sums
    }
}

impl ColumnNumber for f64 {
    const ELEMENT: ElementType = ElementType::Float64;

    fn to_f64(self) -> f64 {
        self
    }

    fn column(slice: Slice<'_>) -> &[Self] {
        slice.f64s()
    }

    fn of_f32(value: f32) -> Self {
        value.into()
    }

    fn of_f64(value: f64) -> Self {
        value
    }

    fn divide(self, count: usize) -> Self {
        self / count as f64
    }

    fn sums(scratch: &mut TreeScratch) -> &mut Vec<Self> {
        &mut scratch.double_sums
    }
}

impl<T: ColumnNumber> Kernel for Trees<T> {
    fn run(
        &self,
        rows: usize,
        inputs: &[Slice<'_>],
        outputs: &mut [Buffer],
        scratch: &mut TreeScratch,
    ) -> Result<(), String> {
        let columns: Vec<_> = inputs.iter().map(|input| T::column(*input)).collect();
        let mut sums = std::mem::take(T::sums(scratch));
        sums.resize(self.ensemble.outputs() * BLOCK, T::ZERO);
        self.ensemble.score(&columns, rows, scratch, &mut sums);
        match &self.finish {
            Finish::Regressor(regressor) => regressor.finish(rows, &sums, outputs),
            Finish::Classifier(classifier) => classifier.finish(rows, &sums, outputs),
        }
        *T::sums(scratch) = sums;
        Ok(())
    }

    fn most_rows(&self) -> usize {
        BLOCK
    }

    fn size(&self) -> usize {
        self.ensemble.size()
    }
}

/// How the trees' values become one, by its name and by the number of version 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aggregate {
    Average,
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn combine(self) -> Combine {
        match self {
            Self::Average | Self::Sum => Combine::Sum,
            Self::Min => Combine::Min,
            Self::Max => Combine::Max,
        }
    }
}

/// What is read from a node before it is compiled.
struct Read<T> {
    ensemble: Ensemble<T>,
    base_values: Vec<T>,
    aggregate: Aggregate,
    transform: PostTransform,
}

/// The columns of the input, as floats or as doubles: integers are compared as floats.
fn columns_of(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Value> {
    let value = node.input(0)?;
    match value.element {
        ElementType::Float64 => Ok(value.clone()),
        _ => cast_to(builder, value, ElementType::Float32),
    }
}

pub(super) fn regressor(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = columns_of(builder, node)?;
    match value.element {
        ElementType::Float64 => {
            regress(builder, &value, read::regressor::<f64>(node, value.columns()?.len())?, ElementType::Float32)
        }
        _ => regress(builder, &value, read::regressor::<f32>(node, value.columns()?.len())?, ElementType::Float32),
    }
}

pub(super) fn ensemble(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = columns_of(builder, node)?;
    match value.element {
        ElementType::Float64 => {
            regress(builder, &value, read_v5::ensemble::<f64>(node, value.columns()?.len())?, f64::ELEMENT)
        }
        _ => regress(builder, &value, read_v5::ensemble::<f32>(node, value.columns()?.len())?, f32::ELEMENT),
    }
}

/// Doubles have double scores only from version 5 on, `TreeEnsemble`.
fn regress<T: ColumnNumber>(
    builder: &mut ProgramBuilder,
    value: &Value,
    read: Read<T>,
    element: ElementType,
) -> Result<Vec<Value>> {
    let Read { mut ensemble, base_values, aggregate, transform } = read;
    let targets = ensemble.targets;
    let presences = presences(&mut ensemble, aggregate.combine());
    let trees = (aggregate == Aggregate::Average).then_some(ensemble.trees.len());
    let finish = Finish::Regressor(Regressor { base_values, average: trees, presences, transform });
    let kinds = vec![kind_of(element)?; targets];
    let scores = emit(builder, value.columns()?, ensemble, aggregate.combine(), finish, &kinds)?;
    Ok(vec![Value::of_rows(element, vec![1, targets], scores)])
}

pub(super) fn classifier(builder: &mut ProgramBuilder, node: &Node<'_>) -> Result<Vec<Value>> {
    let value = columns_of(builder, node)?;
    let names = ClassNames::of(node, "classlabels_int64s", "classlabels_strings");
    match value.element {
        ElementType::Float64 => classify::<f64>(builder, node, &value, &names),
        _ => classify::<f32>(builder, node, &value, &names),
    }
}

fn classify<T: ColumnNumber>(
    builder: &mut ProgramBuilder,
    node: &Node<'_>,
    value: &Value,
    names: &ClassNames,
) -> Result<Vec<Value>> {
    let columns = value.columns()?;
    let (read, only_class, all_positive) = read::classifier::<T>(node, columns.len(), names.len())?;
    let Read { mut ensemble, base_values, transform, .. } = read;
    let presences = presences(&mut ensemble, Combine::Sum);
    let binary = names.len() == 2 && only_class;
    match (names.len(), presences.as_slice()) {
        (1, _) if names.are_texts() => unsupported!("a single class that is a text"),
        (1, _) if base_values.len() > 1 => unsupported!("two base values for one class"),
        // What ONNX Runtime leaves unwritten.
        (2, [_, second]) if *second != Presence::Always => {
            if transform == PostTransform::Probit && base_values.len() < 2 {
                unsupported!("the probit of a single score for two classes");
            }
            if base_values.len() == 1 && !binary {
                unsupported!("a base value for a class without scores");
            }
        }
        _ => {}
    }
    let codes = match names.len() {
        1 => vec![0, 1],
        // ONNX Runtime gives 0 and 1 here, whatever the labels are.
        2 if !binary && !names.are_texts() => vec![0, 1],
        _ => names.codes().to_vec(),
    };
    let classes = names.len();
    let finish =
        Finish::Classifier(Classifier { classes, base_values, presences, transform, codes, binary, all_positive });
    let kinds = [vec![Kind::I64], vec![Kind::F32; classes]].concat();
    let mut outputs = emit(builder, columns, ensemble, Combine::Sum, finish, &kinds)?;
    let scores = outputs.split_off(1);
    Ok(vec![names.value(outputs.remove(0)), Value::of_rows(ElementType::Float32, vec![1, classes], scores)])
}

/// Compiles the ensemble over those of the columns that it looks at.
fn emit<T: ColumnNumber>(
    builder: &mut ProgramBuilder,
    columns: &[Operand],
    mut ensemble: Ensemble<T>,
    combine: Combine,
    finish: Finish<T>,
    kinds: &[Kind],
) -> Result<Vec<Operand>> {
    let used = ensemble.keep_used_columns();
    let inputs: Vec<_> = used.iter().map(|column| columns[*column].clone()).collect();
    let ensemble = match CompiledEnsemble::compile(&ensemble, combine) {
        Ok(ensemble) => ensemble,
        Err(reason) => unsupported!("{reason}"),
    };
    if inputs.is_empty() {
        // Trees of one leaf: the same for all rows, which a column of any kind tells the number of.
        let Some(any) = columns.first() else { unsupported!("trees without features") };
        return builder.emit(Trees { ensemble, finish }, std::slice::from_ref(any), kinds);
    }
    builder.emit(Trees { ensemble, finish }, &inputs, kinds)
}
