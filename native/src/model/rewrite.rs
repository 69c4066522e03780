//! Rewrites a graph when it is read, so that engines run it everywhere and give tensors.

use super::labels::ClassLabels;
use super::proto::{
    AttributeProto, Dimension, DimensionValue, GraphProto, NodeProto, TensorShapeProto, TensorTypeProto, TypeProto,
    TypeValue, ValueInfoProto,
};
use super::signature::SequenceOutput;
use crate::tensor::ElementType;

const FLOAT: i32 = 1;

/// The type of attributes that are texts.
const TEXT: i32 = 3;

/// The type of a matrix of `rows` and `columns`, which are names.
fn matrix_of(element: i32, columns: &str) -> TypeProto {
    let dims = [DimensionValue::Param("N".into()), DimensionValue::Param(columns.into())];
    let dim = dims.map(|value| Dimension { value: Some(value), denotation: String::new() }).into();
    let tensor = TensorTypeProto { elem_type: element, shape: Some(TensorShapeProto { dim }) };
    TypeProto { value: Some(TypeValue::Tensor(tensor)), denotation: String::new() }
}

/// Replaces each ZipMap, scikit-learn's list of dictionaries, by its tensor of probabilities.
///
/// Reading such dictionaries costs many times what the model costs; the Arrow map is built from the labels, which are
/// returned with the output's name.
pub(super) fn replace_zip_maps(graph: &mut GraphProto) -> Vec<(String, ClassLabels)> {
    let mut zip_maps = vec![];
    for node in graph.node.iter_mut().filter(|node| is_zip_map(node)) {
        node.op_type = "Identity".into();
        node.domain.clear();
        let labels = ClassLabels::of_attributes(node);
        node.attribute.clear();
        for output in graph.output.iter_mut().filter(|output| node.output.contains(&output.name)) {
            output.r#type = Some(matrix_of(FLOAT, "classes"));
            zip_maps.extend(labels.clone().map(|labels| (output.name.clone(), labels)));
        }
    }
    zip_maps
}

fn is_zip_map(node: &NodeProto) -> bool {
    node.op_type == "ZipMap" && node.domain == "ai.onnx.ml"
}

/// Replaces each output that is a sequence of tensors by these, which are returned with the sequence's name.
///
/// scikit-learn's classifiers of several outputs give such a sequence: the probabilities for each of them. One that a graph puts
/// together otherwise stays, and is refused.
pub(super) fn replace_sequences(graph: &mut GraphProto) -> Vec<SequenceOutput> {
    let element_of = |output: &ValueInfoProto| match output.r#type.as_ref()?.value.as_ref()? {
        TypeValue::Sequence(sequence) => match sequence.elem_type.as_ref()?.value.as_ref()? {
            TypeValue::Tensor(tensor) => Some(tensor.elem_type),
            _ => None,
        },
        _ => None,
    };
    let (mut sequences, mut parts) = (vec![], vec![]);
    let nodes = &graph.node;
    graph.output.retain(|output| {
        let known = |element: &i32| ElementType::from_onnx(*element).is_some();
        let Some(element) = element_of(output).filter(known) else { return true };
        let maker = nodes.iter().find(|node| node.op_type == "SequenceConstruct" && node.output.contains(&output.name));
        let computed = |name: &String| nodes.iter().any(|node| node.output.contains(name));
        let Some(maker) = maker.filter(|maker| !maker.input.is_empty() && maker.input.iter().all(computed)) else {
            return true;
        };
        parts.extend(maker.input.iter().map(|name| (name.clone(), element)));
        sequences.push(SequenceOutput { name: output.name.clone(), parts: maker.input.clone(), hidden: vec![] });
        false
    });
    for (name, element) in parts {
        if !graph.output.iter().any(|output| output.name == name) {
            let r#type = Some(matrix_of(element, "columns"));
            graph.output.push(ValueInfoProto { name: name.clone(), r#type, ..Default::default() });
            let holders = sequences.iter_mut().filter(|sequence| sequence.parts.contains(&name));
            holders.for_each(|sequence| sequence.hidden.push(name.clone()));
        }
    }
    sequences
}

/// Makes nodes that change the case of texts use a locale that each Linux has.
///
/// ONNX Runtime asks the system for the locale that a StringNormalizer names, `en_US` if none, and fails on the many machines
/// that lack it. The letters' cases are the same in `C.UTF-8`; other languages' locales, which may differ, stay.
pub(super) fn use_locale_of_system(graph: &mut GraphProto) {
    const LOCALE: &str = "C.UTF-8";
    if !cfg!(target_os = "linux") {
        return;
    }
    for node in graph.node.iter_mut().filter(|node| node.op_type == "StringNormalizer") {
        match node.attribute.iter_mut().find(|attribute| attribute.name == "locale") {
            Some(locale) => {
                let named = locale.s.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
                if named.is_empty() || named.starts_with("en_") || named == "C" || named == "POSIX" {
                    locale.s = Some(LOCALE.into());
                }
            }
            None => node.attribute.push(AttributeProto {
                name: "locale".into(),
                s: Some(LOCALE.into()),
                r#type: TEXT,
                ..Default::default()
            }),
        }
    }
}
