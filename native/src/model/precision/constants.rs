//! Constants that nodes take as half floats.

use std::collections::{HashMap, HashSet};

use arrow::buffer::ScalarBuffer;
use bytes::Bytes;

use super::types::FLOAT;
use super::{Precision, names_used};
use crate::model::proto::{DataLocation, GraphProto, TensorProto};
use crate::model::weights::{self, LARGE, Weight, WeightData};

/// The most elements of a constant in which no single one may become zero, as an epsilon would.
const FEW: usize = 16;

/// The largest loss of a constant: the length of the vector of what its elements lose, relative to that of the elements.
///
/// Rounding alone loses at most 1/2048 in fp16 and 1/256 in bf16. More is lost where elements are so small that they have fewer digits.
const MOST_LOST: f64 = 1.0 / 250.0;

/// The floats that a graph has as constants: initializers, and what `Constant` nodes give.
pub(super) struct Constants {
    precision: Precision,
    /// By their names, with whether half floats can hold them.
    known: HashMap<String, Constant>,
    /// Those that are needed as half floats, with the names that they have then.
    needed: Vec<(String, String)>,
}

struct Constant {
    shape: Vec<i64>,
    /// A large weight's own memory, or a copy of a few.
    values: ScalarBuffer<f32>,
    /// Known once it was asked for.
    fits: Option<bool>,
}

impl Constants {
    /// Those of `graph`, of which `weights` stand apart. An initializer that is an input, too, is none: calls may give another value.
    pub(super) fn of(graph: &GraphProto, weights: &[Weight], precision: Precision) -> Self {
        let inputs: HashSet<_> = graph.input.iter().map(|input| input.name.as_str()).collect();
        let few = graph.initializer.iter().filter_map(|tensor| Some((tensor.name.clone(), small(tensor)?)));
        let large = weights.iter().filter_map(|weight| match &weight.data {
            WeightData::Float32(values) => {
                let constant = Constant { shape: weight.shape.clone(), values: values.clone(), fits: None };
                Some((weight.name.clone(), constant))
            }
            _ => None,
        });
        let of_nodes = graph.node.iter().filter(|node| node.op_type == "Constant").filter_map(|node| {
            let value = node.attribute("value")?.t.as_ref()?;
            Some((node.output.first()?.clone(), small(value)?))
        });
        let all = few.chain(large).chain(of_nodes);
        let known = all.filter(|(name, _)| !inputs.contains(name.as_str())).collect();
        Self { precision, known, needed: vec![] }
    }

    /// True if `name` is a constant whose values half floats can hold, false if they can't, and `None` if it is no constant.
    pub(super) fn fits(&mut self, name: &str) -> Option<bool> {
        let precision = self.precision;
        let constant = self.known.get_mut(name)?;
        Some(*constant.fits.get_or_insert_with(|| holds(precision, &constant.values)))
    }

    /// Notes that the constant `name` is needed as half floats, called `half`.
    pub(super) fn need(&mut self, name: &str, half: &str) {
        if !self.needed.iter().any(|(needed, _)| needed == name) {
            self.needed.push((name.to_owned(), half.to_owned()));
        }
    }

    /// Adds the constants that are needed as half floats to `graph`, and takes those out that no node uses any more; the weights that stand
    /// apart then.
    pub(super) fn replace(mut self, graph: &mut GraphProto, weights: &[Weight]) -> Vec<Weight> {
        let mut used = vec![];
        graph.node.iter().for_each(|node| names_used(node, &mut used));
        let mut used: HashSet<_> = used.into_iter().collect();
        used.extend(graph.output.iter().chain(&graph.input).map(|value| value.name.clone()));
        graph.initializer.retain(|tensor| used.contains(&tensor.name));
        let kept = weights.iter().filter(|weight| used.contains(&weight.name)).map(|weight| Weight {
            name: weight.name.clone(),
            shape: weight.shape.clone(),
            data: weight.data.clone(), // the same memory
            place: None,
        });
        let mut kept: Vec<_> = kept.collect();
        for (name, half) in std::mem::take(&mut self.needed) {
            let Some(constant) = self.known.remove(&name) else { continue };
            let data = self.precision.convert(&constant.values);
            let mut tensor = TensorProto {
                name: half.clone(),
                dims: constant.shape.clone(),
                data_type: self.precision.onnx(),
                ..Default::default()
            };
            if data.size() >= LARGE {
                tensor.data_location = Some(DataLocation::External as i32);
                tensor.external_data = weights::in_memory();
                kept.push(Weight { name: half, shape: constant.shape, data, place: None });
            } else {
                tensor.raw_data = Some(little_endian(&data));
            }
            graph.initializer.push(tensor);
        }
        kept
    }
}

/// Tells if `values` can be stored as half floats: none may become infinite, none of a [`FEW`] may become zero, and together they may lose
/// no more than [`MOST_LOST`].
fn holds(precision: Precision, values: &[f32]) -> bool {
    let (mut of_all, mut of_lost) = (0.0, 0.0);
    for value in values {
        let rounded = precision.rounded(*value);
        let is_lost = values.len() <= FEW && *value != 0.0 && rounded == 0.0;
        if rounded.is_finite() != value.is_finite() || is_lost {
            return false;
        }
        if value.is_finite() {
            of_all += f64::from(*value).powi(2);
            of_lost += (f64::from(*value) - f64::from(rounded)).powi(2);
        }
    }
    of_lost <= MOST_LOST.powi(2) * of_all
}

/// Reads a tensor of floats whose elements stand in the graph; `None` for others.
fn small(tensor: &TensorProto) -> Option<Constant> {
    if tensor.data_type != FLOAT || !tensor.external_data.is_empty() {
        return None;
    }
    let values = match &tensor.raw_data {
        Some(raw) => {
            let values = raw.chunks_exact(4).filter_map(|bytes| Some(f32::from_le_bytes(bytes.try_into().ok()?)));
            values.collect()
        }
        None => tensor.float_data.clone(),
    };
    let elements: i64 = tensor.dims.iter().product();
    let is_whole = usize::try_from(elements).is_ok_and(|elements| elements == values.len());
    is_whole.then(|| Constant { shape: tensor.dims.clone(), values: values.into(), fits: None })
}

fn little_endian(data: &WeightData) -> Bytes {
    match data {
        WeightData::Float16(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        WeightData::BFloat16(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        _ => Bytes::new(), // there are no others, see `Precision::convert`
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_half_floats_lose_is_measured() {
        let weights = |scale: f32| (1..1000).map(|i| scale * ((i * 7919) % 997 - 498) as f32).collect::<Vec<_>>();
        for (scale, fp16, bf16) in [(1.0, true, true), (1e-3, true, true), (1e-9, false, true), (1e3, false, true)] {
            assert_eq!(holds(Precision::Fp16, &weights(scale)), fp16, "{scale}");
            assert_eq!(holds(Precision::Bf16, &weights(scale)), bf16, "{scale}");
        }
        assert!(!holds(Precision::Fp16, &[1.0, 1e-12]), "an epsilon");
        assert!(holds(Precision::Fp16, &[0.0; 40]) && holds(Precision::Fp16, &[f32::INFINITY, 1.0]));
    }
}
