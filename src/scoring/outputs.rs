//! Which outputs of a graph calls give, and as which columns.

use datafusion_predict_native::{ClassLabels, Dimension, Labels, Model, SequenceOutput, TensorSpec};

use crate::call::ModelOptions;
use crate::encode::OutputColumn;
use crate::error::{Result, bail, error};

/// An output that calls give: a tensor, or a sequence of tensors.
pub(super) struct SelectedOutput {
    name: String,
    is_sequence: bool,
    pub tensors: Vec<TensorSpec>,
}

impl SelectedOutput {
    /// A tensor.
    pub(super) fn tensor(spec: &TensorSpec) -> Self {
        Self { name: spec.name.clone(), is_sequence: false, tensors: vec![spec.clone()] }
    }

    fn sequence(model: &Model, sequence: &SequenceOutput) -> Self {
        let outputs = &model.signature().outputs;
        let parts = sequence.parts.iter().filter_map(|part| outputs.iter().find(|output| output.name == *part));
        Self { name: sequence.name.clone(), is_sequence: true, tensors: parts.cloned().collect() }
    }

    /// What a row's value is; of a sequence, a list of its parts.
    pub(super) fn spec(&self) -> TensorSpec {
        let first = self.tensors[0].clone();
        if !self.is_sequence {
            return first;
        }
        let same = |place: usize, dim: &Dimension| {
            let equal = self.tensors.iter().all(|part| part.shape.get(place) == Some(dim));
            if equal { dim.clone() } else { Dimension::Dynamic(None) }
        };
        let mut shape: Vec<_> = first.shape.iter().enumerate().map(|(place, dim)| same(place, dim)).collect();
        shape.insert(1.min(shape.len()), Dimension::Fixed(self.tensors.len()));
        TensorSpec { name: self.name.clone(), shape, ..first }
    }
}

/// The outputs with the sizes of `tensors`, which are theirs in order.
pub(super) fn with_sizes(outputs: Vec<SelectedOutput>, mut tensors: &[TensorSpec]) -> Vec<SelectedOutput> {
    let sized = outputs.into_iter().map(|output| {
        let (these, rest) = tensors.split_at(output.tensors.len());
        tensors = rest;
        SelectedOutput { tensors: these.to_vec(), ..output }
    });
    sized.collect()
}

/// The outputs that calls give: the one that the options name, or that holds the classes' probabilities, else all.
pub(super) fn select_outputs(label: &str, model: &Model, options: &ModelOptions) -> Result<Vec<SelectedOutput>> {
    let (outputs, sequences) = (&model.signature().outputs, model.sequences());
    let is_part = |output: &&TensorSpec| sequences.iter().any(|sequence| sequence.hidden.contains(&output.name));
    let names = || {
        let tensors = outputs.iter().filter(|output| !is_part(output)).map(|output| output.name.as_str());
        tensors.chain(sequences.iter().map(|sequence| sequence.name.as_str()))
    };
    if let Some(wanted) = &options.output {
        let found = outputs.iter().find(|output| output.name == *wanted);
        let found = found.or_else(|| outputs.iter().find(|output| output.name.eq_ignore_ascii_case(wanted)));
        let sequence = sequences.iter().find(|sequence| sequence.name.eq_ignore_ascii_case(wanted));
        let refused = model.refused_outputs().iter().find(|output| output.name.eq_ignore_ascii_case(wanted));
        return match (found, sequence, refused) {
            (Some(output), _, _) => Ok(vec![SelectedOutput::tensor(output)]),
            (None, Some(sequence), _) => Ok(vec![SelectedOutput::sequence(model, sequence)]),
            (None, None, Some(refused)) => bail!(InvalidModel, "model '{label}': {}", refused.reason),
            (None, None, None) => bail!(
                InvalidOption,
                "model '{label}' has no output '{wanted}' (option 'output'): there are {}",
                names().collect::<Vec<_>>().join(", ")
            ),
        };
    }
    let Some(class) = &options.class else {
        if let Some(refused) = model.refused_outputs().first() {
            let names = names().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(" or ");
            bail!(
                InvalidModel,
                "model '{label}': {}; it can be called for another: OPTIONS (output {names})",
                refused.reason
            );
        }
        let tensors = outputs.iter().filter(|output| !is_part(output)).map(SelectedOutput::tensor);
        return Ok(tensors.chain(sequences.iter().map(|it| SelectedOutput::sequence(model, it))).collect());
    };
    let of_classes = |output: &&TensorSpec| {
        model.zip_map(&output.name).is_some() || (output.element.is_float() && output.shape.len() == 2)
    };
    match outputs.iter().filter(of_classes).collect::<Vec<_>>().as_slice() {
        [only] => Ok(vec![SelectedOutput::tensor(only)]),
        _ => bail!(
            InvalidOption,
            "model '{label}': class '{class}' of which output? Name it with the option 'output': {}",
            names().collect::<Vec<_>>().join(", ")
        ),
    }
}

/// The columns that the outputs become, with the classes' labels.
///
/// # Errors
/// A class or labels that the outputs do not have.
pub(super) fn output_columns(
    label: &str,
    model: &Model,
    options: &ModelOptions,
    outputs: &[SelectedOutput],
) -> Result<Vec<OutputColumn>> {
    let given = options.labels.as_ref().and_then(|labels| labels.names());
    let given = given.map(|names| ClassLabels::from(names.to_vec()));
    let Some(class) = &options.class else {
        if let Some(labels) = &given {
            check_labels(label, labels, outputs)?;
        }
        let columns = outputs.iter().map(|output| {
            if output.is_sequence {
                return OutputColumn::sequence(&output.name, &output.tensors).ok_or_else(|| {
                    error!(
                        InvalidModel,
                        "model '{label}': output '{}' is a sequence of tensors of several types", output.name
                    )
                });
            }
            let spec = &output.tensors[0];
            let labels = given.as_ref().filter(|labels| OutputColumn::takes_labels(spec, labels));
            let column = OutputColumn::new(spec, labels.or_else(|| model.zip_map(&spec.name)));
            // Classes that the model itself numbers are not counted from 0.
            let own = outputs.iter().find_map(|output| model.class_labels(&output.tensors[0].name));
            Ok(match own {
                Some(ClassLabels { labels: Labels::Ints(numbers) }) if labels.is_some() => column.of_classes(numbers),
                _ => column,
            })
        });
        return columns.collect();
    };
    if outputs[0].is_sequence {
        let name = &outputs[0].name;
        bail!(
            InvalidOption,
            "model '{label}': class '{class}' of which part of '{name}'? A call gives a list of all parts: OPTIONS (output '{name}')"
        );
    }
    let output = &outputs[0].tensors[0]; // a class selects one output
    let Some(width) = output.row_elements().filter(|_| output.shape.len() == 2) else {
        bail!(InvalidOption, "model '{label}': output '{}' has no classes (option 'class')", output.name);
    };
    let labels = given.or_else(|| model.class_labels(&output.name)).filter(|labels| labels.len() == width);
    let position = match &labels {
        Some(labels) => labels.position(class),
        None => class.parse().ok().filter(|position| *position < width),
    };
    let position = position.ok_or_else(|| {
        let classes = labels.map_or_else(|| format!("0 to {}", width - 1), |labels| labels.to_string());
        error!(InvalidOption, "model '{label}' has no class '{class}' (option 'class'): there are {classes}")
    })?;
    Ok(vec![OutputColumn::class(output, position)])
}

/// Checks that the names that the option `labels` gives are those of some output's classes.
fn check_labels(label: &str, labels: &ClassLabels, outputs: &[SelectedOutput]) -> Result<()> {
    let takes =
        |output: &&SelectedOutput| !output.is_sequence && OutputColumn::takes_labels(&output.tensors[0], labels);
    let numbers = |output: &&SelectedOutput| takes(output) && !output.tensors[0].element.is_float();
    if outputs.iter().filter(numbers).count() > 1 {
        bail!(
            InvalidOption,
            "model '{label}': option 'labels': which output is the number of a class? OPTIONS (output '…') names it"
        );
    }
    if let Labels::Strings(names) = &labels.labels
        && let Some((_, twice)) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name))
        && outputs.iter().any(|output| takes(&output) && !numbers(&output))
    {
        bail!(
            InvalidOption,
            "model '{label}': option 'labels' names '{twice}' twice, so a map of scores can't have both"
        );
    }
    if outputs.iter().any(|output| takes(&output)) {
        return Ok(());
    }
    let outputs: Vec<_> =
        outputs.iter().map(|output| format!("'{}' {}", output.name, output.spec().row_type_line())).collect();
    bail!(
        InvalidOption,
        "model '{label}': option 'labels' names {} classes, but no output has a score for each, or the number of one: there are {}",
        labels.len(),
        outputs.join(", ")
    )
}
