//! Converts a graph to floats of half the size, where most of its time goes and little depends on the digits.
//!
//! It is what training in mixed precision does (Micikevicius and others, "Mixed Precision Training", 2018). Products of matrices and
//! convolutions take and give half floats. What only moves or combines their results takes half floats where all that it is given are such
//! floats anyway. All else, such as softmax, normalization and sums of many values, is computed in the floats that it was; so are inputs and
//! outputs of the model. Between the two stand nodes that cast, one for each value.
//!
//! Weights that half floats can't hold stay as they are, and so do the nodes that use them. Products of the model's inputs stay, too: these are
//! the features of a table, as large as they happen to be.

mod constants;
mod operators;
mod types;

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use half::{bf16, f16};

use super::proto::{AttributeProto, GraphProto, NodeProto};
use super::weights::WeightData;
use super::{Content, Model};
use constants::Constants;
use types::{FLOAT, Types};

/// Floats of 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// With 11 digits in base 2, up to 65,504.
    Fp16,
    /// With 8 digits in base 2, as large as floats of 32 bits.
    Bf16,
}

impl Precision {
    /// Its number among ONNX's types.
    fn onnx(self) -> i32 {
        match self {
            Self::Fp16 => 10,
            Self::Bf16 => 16,
        }
    }

    /// The number that such floats hold for `value`.
    fn rounded(self, value: f32) -> f32 {
        match self {
            Self::Fp16 => f16::from_f32(value).to_f32(),
            Self::Bf16 => bf16::from_f32(value).to_f32(),
        }
    }

    /// `values` as such floats.
    fn convert(self, values: &[f32]) -> WeightData {
        match self {
            Self::Fp16 => WeightData::Float16(values.iter().map(|value| f16::from_f32(*value)).collect()),
            Self::Bf16 => WeightData::BFloat16(values.iter().map(|value| bf16::from_f32(*value)).collect()),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fp16 => "fp16",
            Self::Bf16 => "bf16",
        })
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_lowercase().as_str() {
            "fp16" => Ok(Self::Fp16),
            "bf16" => Ok(Self::Bf16),
            _ => Err("expected fp16 or bf16".to_owned()),
        }
    }
}

impl Model {
    /// The same model with its products, and what lies between them, computed in floats of 16 bits, and the number of nodes that are; `None`
    /// if that can be none. It takes and gives what this one does.
    ///
    /// ```
    /// # fn main() -> Result<(), datafusion_predict_native::Error> {
    /// use datafusion_predict_native::{Model, Precision};
    ///
    /// let model = Model::read("../tests/models/neural/digits_cnn.onnx")?;
    /// let (half, nodes) = model.in_precision(Precision::Fp16).expect("it has convolutions");
    /// assert!(nodes >= 2 && half.signature() == model.signature());
    /// # Ok(()) }
    /// ```
    pub fn in_precision(&self, precision: Precision) -> Option<(Arc<Self>, usize)> {
        let content = self.content.as_ref();
        let opset = *self.opsets().get("")?;
        let mut proto = content.proto.clone();
        // Until version 4, all initializers stood among the inputs, and none of them could be given.
        if proto.ir_version.is_some_and(|version| version < 4) {
            let graph = proto.graph.as_mut()?;
            let constants: HashSet<_> = graph.initializer.iter().map(|tensor| tensor.name.clone()).collect();
            graph.input.retain(|input| !constants.contains(&input.name));
            proto.ir_version = Some(4);
        }
        let (weights, nodes) = convert(proto.graph.as_mut()?, &content.weights, opset, precision);
        let content = Content {
            sha256: content.sha256.clone(),
            size: content.size,
            external_files: vec![],
            companions: content.companions.clone(),
            proto,
            token_table: None,
            weights,
            read: vec![], // no file has these weights
            zip_maps: content.zip_maps.clone(),
            sequences: content.sequences.clone(),
            signature: content.signature.clone(),
            optional_inputs: content.optional_inputs.clone(),
            refused_outputs: content.refused_outputs.clone(),
            metadata: content.metadata.clone(),
        };
        (nodes > 0).then(|| (Arc::new(Self { uri: self.uri.clone(), path: None, content: Arc::new(content) }), nodes))
    }
}

/// Converts `graph`, whose operators are those of `opset` and whose large weights are `weights`; the large weights that it has then, and the
/// number of nodes that were converted.
fn convert(
    graph: &mut GraphProto,
    weights: &[super::Weight],
    opset: i64,
    precision: Precision,
) -> (Vec<super::Weight>, usize) {
    let mut conversion = Conversion {
        precision,
        opset,
        suffix: free_suffix(graph, precision),
        types: Types::declared(graph),
        constants: Constants::of(graph, weights, precision),
        halves: HashSet::new(),
        restored: HashSet::new(),
        rounded: HashSet::new(),
        raw: graph.input.iter().map(|input| input.name.clone()).collect(),
        nodes: Vec::with_capacity(graph.node.len()),
        converted: 0,
    };
    for node in std::mem::take(&mut graph.node) {
        conversion.types.learn(&node);
        conversion.note_raw(&node);
        match conversion.rule(&node) {
            Some(rule) => conversion.push_half(node, rule),
            None => conversion.push_as_it_is(node),
        }
    }
    graph.output.iter().for_each(|output| conversion.restore(&output.name));
    let Conversion { halves, restored, constants, nodes, converted, .. } = conversion;
    graph.node = nodes;
    // What was declared of a value that is half now is not true any more.
    graph.value_info.retain(|value| !halves.contains(&value.name) || restored.contains(&value.name));
    (constants.replace(graph, weights), converted)
}

/// A suffix for the names of half floats, with which no name of the graph ends.
fn free_suffix(graph: &GraphProto, precision: Precision) -> String {
    let mut suffix = format!("__{precision}");
    let mut names = vec![];
    for node in &graph.node {
        names_used(node, &mut names);
        names.extend(node.output.iter().cloned());
    }
    while names.iter().any(|name| name.ends_with(&suffix)) {
        suffix.push('_');
    }
    suffix
}

struct Conversion {
    precision: Precision,
    opset: i64,
    suffix: String,
    types: Types,
    constants: Constants,
    /// Values that nodes now give as half floats, under a name with the suffix.
    halves: HashSet<String>,
    /// Those of `halves` that a node casts back to floats of 32 bits, which have the old name.
    restored: HashSet<String>,
    /// Floats that were cast to half floats.
    rounded: HashSet<String>,
    /// The model's inputs, and what nodes make of them that only move values.
    raw: HashSet<String>,
    nodes: Vec<NodeProto>,
    converted: usize,
}

impl Conversion {
    /// Notes what `node` gives, if it only moves values of the model's inputs.
    fn note_raw(&mut self, node: &NodeProto) {
        let moves = operators::MOVERS.contains(&node.op_type.as_str());
        // The others say where to: a table of vectors is not what its indices are.
        let moved =
            if node.op_type == "Concat" { node.input.as_slice() } else { &node.input[..node.input.len().min(1)] };
        if moves && moved.iter().any(|name| self.raw.contains(name)) {
            self.raw.extend(node.output.iter().cloned());
        }
    }

    /// How `node` is converted, if it is.
    fn rule(&mut self, node: &NodeProto) -> Option<operators::Rule> {
        let rule = operators::rule(node, self.opset, self.precision)?;
        let mut has_values = false;
        for (_, name) in rule.inputs(node) {
            let fits = match self.constants.fits(name) {
                Some(fits) => fits,
                None => {
                    has_values = true;
                    self.types.is_float(name)
                        && (rule.is_product || self.halves.contains(name))
                        && !self.raw.contains(name)
                }
            };
            if !fits {
                return None;
            }
        }
        has_values.then_some(rule)
    }

    fn push_half(&mut self, mut node: NodeProto, rule: operators::Rule) {
        let inputs: Vec<_> = rule.inputs(&node).map(|(place, name)| (place, name.to_owned())).collect();
        for (place, name) in inputs {
            let half = format!("{name}{}", self.suffix);
            if self.constants.fits(&name).is_some() {
                self.constants.need(&name, &half);
            } else if !self.halves.contains(&name) && self.rounded.insert(name.clone()) {
                self.nodes.push(cast(&name, &half, self.precision.onnx()));
            }
            node.input[place] = half;
        }
        for output in rule.outputs(&mut node).filter(|output| !output.is_empty()) {
            self.halves.insert(output.clone());
            output.push_str(&self.suffix);
        }
        self.nodes.push(node);
        self.converted += 1;
    }

    fn push_as_it_is(&mut self, node: NodeProto) {
        let mut used = vec![];
        names_used(&node, &mut used);
        used.iter().for_each(|name| self.restore(name));
        self.nodes.push(node);
    }

    /// Gives the value `name` as a float, if it is half now.
    fn restore(&mut self, name: &str) {
        if self.halves.contains(name) && self.restored.insert(name.to_owned()) {
            self.nodes.push(cast(&format!("{name}{}", self.suffix), name, FLOAT));
        }
    }
}

/// The names that `node` reads, with those that its subgraphs do.
fn names_used(node: &NodeProto, names: &mut Vec<String>) {
    names.extend(node.input.iter().cloned());
    for attribute in &node.attribute {
        for graph in attribute.g.as_deref().into_iter().chain(&attribute.graphs) {
            graph.node.iter().for_each(|node| names_used(node, names));
            names.extend(graph.output.iter().map(|output| output.name.clone()));
        }
    }
}

fn cast(from: &str, to: &str, onnx: i32) -> NodeProto {
    const INTEGER: i32 = 2; // the type of such attributes
    let to_type = AttributeProto { name: "to".into(), i: Some(onnx.into()), r#type: INTEGER, ..Default::default() };
    NodeProto {
        input: vec![from.into()],
        output: vec![to.into()],
        name: format!("{from} as {to}"),
        op_type: "Cast".into(),
        attribute: vec![to_type],
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::model::proto::{ModelProto, ValueInfoProto};

    /// Names are computed before they are used, once, and weights have what they say.
    fn check(model: &Model) {
        let graph = model.graph().expect("a graph");
        let mut known: HashSet<&str> = graph.input.iter().map(|input| input.name.as_str()).collect();
        known.extend(graph.initializer.iter().map(|tensor| tensor.name.as_str()));
        known.insert("");
        for node in &graph.node {
            let mut used = vec![];
            names_used(node, &mut used);
            if node.attribute.iter().all(|attribute| attribute.g.is_none()) {
                used.iter().for_each(|name| assert!(known.contains(name.as_str()), "{name} of {node:?}"));
            }
            for output in node.output.iter().filter(|output| !output.is_empty()) {
                assert!(known.insert(output), "{output} twice");
            }
        }
        graph.output.iter().for_each(|output| assert!(known.contains(output.name.as_str()), "{}", output.name));
        for weight in model.weights() {
            assert_eq!(weight.shape.iter().product::<i64>() as usize, weight.data.len(), "{}", weight.name);
            assert!(graph.initializer.iter().any(|tensor| tensor.name == weight.name));
        }
    }

    fn tests_model(path: &str) -> Arc<Model> {
        Model::read(&format!("../tests/models/{path}")).expect("a model")
    }

    #[test]
    fn products_and_what_lies_between_them_are_half() {
        let model = tests_model("neural/digits_cnn.onnx");
        let (half, nodes) = model.in_precision(Precision::Fp16).expect("it has convolutions");
        check(&half);
        let all = model.operators().count();
        assert!(nodes > 3 && nodes < all, "{nodes} of {all}");
        assert_eq!(half.signature(), model.signature());
        let operators: Vec<_> = half.operators().collect();
        assert_eq!(operators.first(), Some(&"Conv"), "inputs are not rounded: {operators:?}");
        assert!(operators.contains(&"Cast"), "{operators:?}");
        let model = tests_model("precision/layers.onnx");
        let (half, _) = model.in_precision(Precision::Fp16).expect("it has products");
        check(&half);
        let bytes = |model: &Model| model.weights().iter().map(|weight| weight.data.size()).sum::<usize>();
        assert_eq!((bytes(&model), bytes(&half)), (64 * 256 * 4, 64 * 256 * 2));
    }

    #[test]
    fn constants_of_old_models_are_constants_though_they_stand_among_the_inputs() {
        let file = std::fs::read("../tests/models/neural/digits_cnn.onnx").expect("the model");
        let mut old = ModelProto::decode(file.as_slice()).expect("a model");
        old.ir_version = Some(3);
        let graph = old.graph.as_mut().expect("a graph");
        let float = graph.input[0].r#type.clone();
        graph.input.extend(graph.initializer.iter().map(|tensor| ValueInfoProto {
            name: tensor.name.clone(),
            r#type: float.clone(),
            ..Default::default()
        }));
        let old = Model::from_bytes("old", old.encode_to_vec().into()).expect("a model");
        let (half, nodes) = old.in_precision(Precision::Fp16).expect("it has convolutions");
        check(&half);
        let (new, new_nodes) =
            tests_model("neural/digits_cnn.onnx").in_precision(Precision::Fp16).expect("it has, too");
        assert_eq!((nodes, half.weights().len()), (new_nodes, new.weights().len()));
        assert_eq!(half.graph().expect("a graph").input.len(), 1);
    }

    #[test]
    fn all_models_of_the_tests_stay_well_formed() {
        let mut converted = 0;
        for folder in ["neural", "precision", "texts/encoder", "texts/classifier", "texts/plain", "images/classifier"] {
            let files = std::fs::read_dir(format!("../tests/models/{folder}")).expect("the models");
            let files = files.map(|file| file.expect("an entry").path());
            for path in files.filter(|path| path.extension().is_some_and(|extension| extension == "onnx")) {
                let model = Model::read(&path.display().to_string()).expect("a model");
                for precision in [Precision::Fp16, Precision::Bf16] {
                    if let Some((half, _)) = model.in_precision(precision) {
                        check(&half);
                        converted += 1;
                    }
                }
            }
        }
        assert!(converted >= 8, "{converted}");
        assert!(tests_model("sklearn/iris_forest.onnx").in_precision(Precision::Fp16).is_none(), "trees have none");
    }
}
