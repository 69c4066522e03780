//! Sizes for dimensions that a file leaves open: `OPTIONS (size.height 320, size.width 320)`.

use std::collections::BTreeMap;

use datafusion_predict_native::{Dimension, TensorSpec};

use crate::error::{Result, bail};

/// Elements of an input, at most: 1 GiB of float32.
const LARGEST: usize = 1 << 28;

/// Settles the dimensions of `inputs` that `sizes` name: by the name that the file gives them, or by input and place, counted
/// from 1 (`images.3`). Names are compared without case.
///
/// # Errors
/// A name that no open dimension has.
pub(super) fn settle(label: &str, inputs: &mut [TensorSpec], sizes: &BTreeMap<String, usize>) -> Result<()> {
    let mut used = vec![];
    for input in inputs.iter_mut() {
        for (place, dimension) in input.shape.iter_mut().enumerate() {
            let Dimension::Dynamic(name) = dimension else { continue };
            let by_place = format!("{}.{}", input.name, place + 1);
            let names = |known: &&String| {
                known.eq_ignore_ascii_case(&by_place)
                    || name.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(known))
            };
            if let Some((known, size)) = sizes.iter().find(|(known, _)| names(known)) {
                used.push(known);
                *dimension = Dimension::Fixed(*size);
            }
        }
    }
    let elements = |input: &TensorSpec| {
        let mut sizes = input.shape.iter().map(|dimension| dimension.size().unwrap_or(1));
        sizes.try_fold(1usize, |elements, size| elements.checked_mul(size))
    };
    if let Some(large) = inputs.iter().find(|input| elements(input).is_none_or(|elements| elements > LARGEST)) {
        bail!(InvalidOption, "model '{label}': input {large} is too large: at most {LARGEST} elements are supported");
    }
    let Some(unknown) = sizes.keys().find(|name| !used.contains(name)) else { return Ok(()) };
    let free = inputs.iter().flat_map(|input| {
        let open = input.shape.iter().enumerate().filter(|(_, dimension)| dimension.size().is_none());
        open.map(|(place, dimension)| match dimension {
            Dimension::Dynamic(Some(name)) => name.clone(),
            _ => format!("{}.{}", input.name, place + 1),
        })
    });
    let free: Vec<_> = free.collect();
    let there = if free.is_empty() { "none is open".to_owned() } else { format!("open are {}", free.join(", ")) };
    bail!(InvalidOption, "model '{label}' has no open dimension '{unknown}' (option 'size.{unknown}'): {there}")
}

/// The option that settles the dimension at `place`: `size.height`, `size.images.3`.
pub(super) fn name(input: &TensorSpec, place: usize) -> String {
    match input.shape.get(place) {
        Some(Dimension::Dynamic(Some(name))) => format!("size.{name}"),
        _ => format!("size.{}.{}", input.name, place + 1),
    }
}

#[cfg(test)]
mod tests {
    use datafusion_predict_native::ElementType;

    use super::*;

    #[test]
    fn dimensions_are_settled_by_name_and_by_place() {
        let open = |name: Option<&str>| Dimension::Dynamic(name.map(str::to_owned));
        let shape = vec![open(Some("batch")), Dimension::Fixed(3), open(Some("Height")), open(None)];
        let mut inputs = vec![TensorSpec { name: "Images".into(), element: ElementType::Float32, shape }];
        let sizes = BTreeMap::from([("height".to_owned(), 320), ("images.4".to_owned(), 240)]);
        settle("m", &mut inputs, &sizes).expect("both are open");
        assert_eq!(inputs[0].type_line(), "float[batch,3,320,240]");
        let error = settle("m", &mut inputs, &sizes).expect_err("they are settled").to_string();
        assert_eq!(error, "model 'm' has no open dimension 'height' (option 'size.height'): open are batch");
    }
}
