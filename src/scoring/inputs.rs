//! The inputs of a graph: which of them calls give, and what the options say of the others.

use datafusion_predict_native::{Dimension, Model, Tensor, TensorSpec};

use super::axes::{self, Input, RowAxis};
use super::constant::Constant;
use super::sizes;
use super::trial::fixed_rows;
use crate::call::ModelOptions;
use crate::error::{Result, bail};

/// The inputs of the graph, with the sizes and the constants that the options give.
pub(super) fn graph_inputs(label: &str, model: &Model, options: &ModelOptions) -> Result<Vec<Input>> {
    let mut specs = model.signature().inputs.clone();
    for name in options.constants.keys() {
        let same = |spec: &&TensorSpec| spec.name.eq_ignore_ascii_case(name);
        let optional = model.optional_inputs();
        if specs.iter().chain(optional).filter(same).count() > 1 {
            bail!(
                InvalidOption,
                "model '{label}': option 'constant.{name}': several inputs have that name but for its case"
            );
        }
        match (specs.iter().find(same), optional.iter().find(same)) {
            (Some(_), _) => {}
            (None, Some(default)) => specs.push(default.clone()),
            (None, None) => {
                let names: Vec<_> = specs.iter().chain(optional).map(|spec| spec.name.as_str()).collect();
                bail!(
                    InvalidOption,
                    "model '{label}' has no input '{name}' (option 'constant.{name}'): there are {}",
                    names.join(", ")
                );
            }
        }
    }
    sizes::settle(label, &mut specs, &options.sizes)?;
    let inputs = specs.into_iter().map(|spec| {
        let value = options.constants.iter().find(|(name, _)| spec.name.eq_ignore_ascii_case(name));
        let constant = value.map(|(_, value)| Constant::parse(label, &spec, value)).transpose()?;
        Ok(Input { spec, constant })
    });
    let inputs = inputs.collect::<Result<Vec<_>>>()?;
    if inputs.iter().all(|input| input.constant.is_some()) {
        bail!(
            InvalidOption,
            "model '{label}': all its inputs are constants (option 'constant.…'), so no row makes a difference"
        );
    }
    Ok(inputs)
}

/// The inputs that calls give, rows first, and the others' constants, each at the place of its input.
pub(super) fn of_calls(
    label: &str,
    inputs: &[Input],
    axes: &[RowAxis],
) -> Result<(Vec<TensorSpec>, Vec<Option<Tensor>>)> {
    let (mut given, mut constants) = (vec![], vec![]);
    let specs = axes::rows_first(inputs, axes);
    let fixed = fixed_rows(&specs);
    for (input, mut spec) in inputs.iter().zip(specs) {
        match &input.constant {
            Some(constant) => constants.push(Some(constant.row(label, &spec)?)),
            None => {
                // A constant may say how many rows a run takes.
                spec.shape[0] = fixed.map_or(spec.shape[0].clone(), Dimension::Fixed);
                given.push(spec);
                constants.push(None);
            }
        }
    }
    Ok((given, constants))
}

/// For each input that calls give, whether all rows of a run share its value.
pub(super) fn shared(inputs: &[Input], axes: &[RowAxis]) -> Vec<bool> {
    // Where no input has rows, a run has one.
    let alone = axes.iter().all(Option::is_none);
    let given = inputs.iter().zip(axes).filter(|(input, _)| input.constant.is_none());
    given.map(|(_, axis)| axis.is_none() && !alone).collect()
}
