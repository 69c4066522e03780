//! Names for features, and how arguments fill the inputs by them.

use datafusion_predict_native::{Dimension, TensorSpec};

use super::axes::{self, Input, RowAxis};
use crate::call::FeatureName;
use crate::encode::InputEncoder;
use crate::error::{Result, bail};

/// How arguments fill the inputs, and the features' names: those given, or those of the inputs if each is a feature. Names for
/// the columns of a matrix of unknown width settle its width.
///
/// # Errors
/// Names that do not fit the inputs.
pub(super) fn name_features(
    label: &str,
    inputs: &mut [Input],
    axes: &[RowAxis],
    given: &[FeatureName],
) -> Result<(InputEncoder, Option<Vec<String>>)> {
    let names: Vec<_> = given.iter().map(|feature| feature.name.clone()).collect();
    if let Some((_, twice)) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
        bail!(InvalidStatement, "model '{label}': feature '{twice}' is named twice");
    }
    if given.iter().any(|feature| feature.input.is_some()) {
        let by_column = settle_matrices(label, inputs, axes, given)?;
        let encoder = InputEncoder::with_columns(of_calls(inputs, axes), by_column);
        check_groups(label, &encoder, given)?;
        return Ok((encoder, Some(names)));
    }
    let encoder = InputEncoder::new(of_calls(inputs, axes));
    if names.is_empty() {
        let each = encoder.matrix().is_none() || encoder.width() == Some(1);
        let names = each.then(|| encoder.inputs().map(|(input, _)| input.name.clone()).collect());
        return Ok((encoder, names));
    }
    check_order(label, &encoder, &names)?;
    match encoder.width() {
        // One name for a matrix is that of a list column.
        _ if names.len() == 1 && encoder.matrix().is_some() => Ok((encoder, Some(names))),
        Some(width) if width != names.len() => {
            let (matrix, _) = encoder.inputs().max_by_key(|(input, _)| input.row_elements()).unzip();
            let remedy = match matrix.filter(|_| encoder.matrix().is_none()) {
                Some(matrix) => format!("; those of a matrix are named after it: FEATURES ({} (…), …)", matrix.name),
                None => String::new(),
            };
            bail!(InvalidStatement, "model '{label}' takes {width} features, FEATURES names {}{remedy}", names.len())
        }
        Some(_) => Ok((encoder, Some(names))),
        None => {
            let matrix = inputs.iter_mut().zip(axes).find(|(input, _)| input.constant.is_none());
            if let Some((input, axis)) = matrix
                && let Some(place) = (0..input.spec.shape.len()).find(|place| Some(*place) != *axis)
            {
                input.spec.shape[place] = Dimension::Fixed(names.len());
            }
            Ok((InputEncoder::new(of_calls(inputs, axes)), Some(names)))
        }
    }
}

/// The inputs that calls give, rows first.
fn of_calls(inputs: &[Input], axes: &[RowAxis]) -> Vec<TensorSpec> {
    let specs = axes::rows_first(inputs, axes).into_iter().zip(inputs);
    specs.filter(|(_, input)| input.constant.is_none()).map(|(spec, _)| spec).collect()
}

/// Whether `feature` is named as a column of the input `name`.
fn is_column_of(feature: &FeatureName, name: &str) -> bool {
    feature.input.as_ref().is_some_and(|input| input.eq_ignore_ascii_case(name))
}

/// Settles the widths of the matrices whose columns are named; for each input that calls give, whether it is one.
fn settle_matrices(label: &str, inputs: &mut [Input], axes: &[RowAxis], given: &[FeatureName]) -> Result<Vec<bool>> {
    let is_given = |input: &Input, name: &str| input.constant.is_none() && input.spec.name.eq_ignore_ascii_case(name);
    let named = given.iter().filter_map(|feature| feature.input.as_ref());
    if let Some(unknown) = named.clone().find(|name| !inputs.iter().any(|input| is_given(input, name))) {
        let there: Vec<_> = of_calls(inputs, axes).into_iter().map(|spec| spec.name).collect();
        bail!(
            InvalidStatement,
            "model '{label}' has no input '{unknown}' for FEATURES: there are {}",
            there.join(", ")
        );
    }
    let mut by_column = vec![];
    for (input, axis) in inputs.iter_mut().zip(axes).filter(|(input, _)| input.constant.is_none()) {
        let (name, rank) = (&input.spec.name, input.spec.shape.len());
        let columns = given.iter().filter(|feature| is_column_of(feature, name)).count();
        by_column.push(columns > 0);
        if columns == 0 {
            continue;
        }
        let Some(place) = (0..rank).find(|place| Some(*place) != *axis).filter(|_| rank == 2 && axis.is_some()) else {
            bail!(
                InvalidStatement,
                "model '{label}': FEATURES names columns of '{name}', which is no matrix of rows and columns"
            );
        };
        match &mut input.spec.shape[place] {
            Dimension::Fixed(width) if *width != columns => {
                bail!(InvalidStatement, "model '{label}': FEATURES names {columns} of the {width} columns of '{name}'")
            }
            width => *width = Dimension::Fixed(columns),
        }
    }
    Ok(by_column)
}

/// Checks that the columns of each matrix stand together, in the graph's order, and a name for each other input in its place.
fn check_groups(label: &str, encoder: &InputEncoder, given: &[FeatureName]) -> Result<()> {
    let mut rest = given.iter();
    let fits = encoder.inputs().all(|(input, by_column)| {
        let count = if by_column { input.row_elements().unwrap_or(1) } else { 1 };
        let fits = |feature: &FeatureName| {
            if by_column { is_column_of(feature, &input.name) } else { feature.input.is_none() }
        };
        let these: Vec<_> = rest.by_ref().take(count).collect();
        these.len() == count && these.into_iter().all(fits)
    });
    if fits && rest.next().is_none() {
        return Ok(());
    }
    let order: Vec<_> = encoder.inputs().map(|(input, _)| input.name.as_str()).collect();
    bail!(
        InvalidStatement,
        "model '{label}': FEATURES must name what its inputs take in their order, which is {}",
        order.join(", ")
    )
}

/// Checks that no input's name stands in another's place.
fn check_order(label: &str, encoder: &InputEncoder, names: &[String]) -> Result<()> {
    let inputs: Vec<_> = encoder.inputs().map(|(input, _)| input.name.clone()).collect();
    let is_swapped = |(name, input): (&String, &String)| name != input && inputs.contains(name);
    if inputs.len() > 1 && names.iter().zip(&inputs).any(is_swapped) {
        bail!(
            InvalidStatement,
            "model '{label}': FEATURES must name its inputs in their order, which is {}",
            inputs.join(", ")
        );
    }
    Ok(())
}
