//! What a call of a model's version sees: so that another version can be told to fit in its place.

use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_predict_native::{Dimension, ElementType, Signature, TensorSpec};
use serde::{Deserialize, Serialize};

use crate::call::{CallSignature, FeatureName};
use crate::encode::{InputEncoder, list_type, map_type, vector_type};

/// Features and outputs of a version, as texts that outlast this program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Interface {
    /// The features, in order; none if the model takes any number of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<Feature>,
    /// The graph's inputs.
    pub inputs: Vec<TensorNote>,
    /// The graph's outputs that calls give.
    pub outputs: Vec<TensorNote>,
    /// The Arrow type of a prediction; unknown if the model was never run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returns: Option<String>,
}

/// One feature.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Feature {
    /// Its name, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Element type and shape of one value: `float`, `float[224,224,3]`.
    #[serde(rename = "type")]
    pub value_type: String,
    /// The input of the graph whose columns it is one of, if there are several inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
}

/// One input or output of the graph.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TensorNote {
    /// The name in the graph.
    pub name: String,
    /// Element type and shape, rows first: `float[N,4]`.
    #[serde(rename = "type")]
    pub tensor_type: String,
}

impl From<&TensorSpec> for TensorNote {
    fn from(spec: &TensorSpec) -> Self {
        Self { name: spec.name.clone(), tensor_type: spec.type_line() }
    }
}

impl Interface {
    /// Of a model that was run: its `signature`, as it was seen, and that of its calls.
    pub(crate) fn of(signature: &Signature, call: &CallSignature) -> Self {
        let interface = Self::declared(signature, call.encoder(), call.features().unwrap_or_default());
        Self { returns: Some(type_text(call.returns())), ..interface }
    }

    /// How calls are planned, read from the texts; `None` if the version was never run, or is of types that this program
    /// does not know.
    pub(crate) fn call_signature(&self) -> Option<CallSignature> {
        let mut inputs = self.inputs.iter().map(TensorNote::spec).collect::<Option<Vec<_>>>()?;
        let returns = self.return_type()?;
        let names: Option<Vec<_>> = self.features.iter().map(|feature| feature.name.clone()).collect();
        let names = names.filter(|names| !names.is_empty());
        // Names for a matrix of unknown width settle its width.
        if let (Some([_, _, ..]), [matrix]) = (names.as_deref(), inputs.as_mut_slice())
            && let [_, width @ Dimension::Dynamic(_)] = matrix.shape.as_mut_slice()
        {
            *width = Dimension::Fixed(names.as_ref().map_or(0, Vec::len));
        }
        let has_columns =
            |input: &TensorSpec| self.features.iter().any(|feature| feature.input.as_ref() == Some(&input.name));
        let by_column: Vec<_> = inputs.iter().map(has_columns).collect();
        let encoder = match by_column.contains(&true) {
            true => InputEncoder::with_columns(inputs, by_column),
            false => InputEncoder::new(inputs),
        };
        Some(CallSignature::new(encoder, names, returns))
    }

    /// The features' names; none if they have none.
    pub(crate) fn feature_names(&self) -> Vec<FeatureName> {
        let named = |feature: &Feature| Some(FeatureName { name: feature.name.clone()?, input: feature.input.clone() });
        self.features.iter().filter_map(named).collect()
    }

    /// The Arrow type that `returns` is the text of.
    fn return_type(&self) -> Option<DataType> {
        let text = self.returns.as_deref()?;
        let Some(mut rest) = text.strip_prefix("Struct(") else {
            return parse_type(text).filter(|(_, rest)| rest.is_empty()).map(|(data_type, _)| data_type);
        };
        // The outputs' names may hold anything, but they are known.
        let mut fields = vec![];
        for output in &self.outputs {
            let (data_type, after) = parse_type(rest.strip_prefix(output.name.as_str())?.strip_prefix(": ")?)?;
            fields.push(Field::new(&output.name, data_type, true));
            rest = after.strip_prefix(", ").unwrap_or(after);
        }
        (rest == ")").then(|| DataType::Struct(fields.into()))
    }

    /// Of a model that was not run: `encoder` fills its inputs, and `names` are those of its features, if they have names.
    pub(crate) fn declared(signature: &Signature, encoder: &InputEncoder, names: &[String]) -> Self {
        let Signature { inputs, outputs } = signature;
        let mut given = names.iter();
        let features = match (encoder.matrix(), names) {
            // A list column.
            (Some(matrix), [name]) if matrix.row_elements().is_some_and(|width| width != 1) => {
                vec![Feature { name: Some(name.clone()), value_type: matrix.row_type_line(), input: None }]
            }
            (Some(matrix), _) => {
                let width = encoder.width().unwrap_or(names.len());
                let element = matrix.element.to_string();
                let feature = |i| Feature { name: names.get(i).cloned(), value_type: element.clone(), input: None };
                // A wide vector is one thing, not thousands of features.
                if width <= WIDEST || !names.is_empty() { (0..width).map(feature).collect() } else { vec![] }
            }
            (None, _) => {
                let features = encoder.inputs().flat_map(|(input, by_column)| {
                    let count = if by_column { input.row_elements().unwrap_or(1) } else { 1 };
                    let value_type = if by_column { input.element.to_string() } else { input.row_type_line() };
                    let names: Vec<_> = given.by_ref().take(count).collect();
                    (0..count).map(move |i| Feature {
                        name: Some(names.get(i).map_or(&input.name, |name| *name).clone()),
                        value_type: value_type.clone(),
                        input: by_column.then(|| input.name.clone()),
                    })
                });
                features.collect()
            }
        };
        let notes = |specs: &[TensorSpec]| specs.iter().map(TensorNote::from).collect();
        Self { features, inputs: notes(inputs), outputs: notes(outputs), returns: None }
    }

    /// What a caller of `self` would notice if `new` took its place; `None` if nothing.
    pub fn difference(&self, new: &Self) -> Option<String> {
        let row_types = |notes: &[TensorNote]| -> Vec<String> { notes.iter().map(TensorNote::row_type).collect() };
        for (i, (before, now)) in self.features.iter().zip(&new.features).enumerate() {
            if before != now {
                return Some(format!("feature {} was {before}, and is now {now}", i + 1));
            }
        }
        if self.features.len() != new.features.len() {
            return Some(format!("it took {} features, and now takes {}", self.features.len(), new.features.len()));
        }
        // Inputs are features of their own, or a matrix, whose width may be too large for them.
        let (before, now) = (row_types(&self.inputs), row_types(&new.inputs));
        if self.features.is_empty() && before != now {
            return Some(format!("its input was {}, and is now {}", before.join(", "), now.join(", ")));
        }
        if let (Some(before), Some(now)) = (&self.returns, &new.returns) {
            if lists_without_size(before) != lists_without_size(now) {
                return Some(format!("a call gave {before}, and now gives {now}"));
            }
            let lengths = |notes: &[TensorNote]| -> Vec<_> { notes.iter().map(TensorNote::row_lengths).collect() };
            let (before, now) = (lengths(&self.outputs), lengths(&new.outputs));
            let differ = |(before, now): (&Option<Vec<usize>>, &Option<Vec<usize>>)| {
                before.is_some() && now.is_some() && before != now
            };
            let changed = before.len() == now.len() && before.iter().zip(&now).any(differ);
            return changed
                .then(|| format!("its outputs were {}, and are now {}", line(&self.outputs), line(&new.outputs)));
        }
        let (before, now) = (line(&self.outputs), line(&new.outputs));
        (before != now).then(|| format!("its outputs were {before}, and are now {now}"))
    }
}

/// Outputs, each with the type of a row's value.
fn line(outputs: &[TensorNote]) -> String {
    let outputs: Vec<_> = outputs.iter().map(|note| format!("{} {}", note.name, note.row_type())).collect();
    outputs.join(", ")
}

/// The text of a type, with lists in place of lists of a fixed size, as versions of some time ago have it.
fn lists_without_size(type_text: &str) -> String {
    let mut parts = type_text.split("FixedSizeList(");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str("List(");
        text.push_str(part.split_once(" x ").map_or(part, |(_, inner)| inner));
    }
    text
}

/// The type of predictions as a text, which must not change with Arrow's own: versions are compared by it.
fn type_text(data_type: &DataType) -> String {
    let field = |field: &FieldRef| type_text(field.data_type());
    match data_type {
        DataType::List(item) => format!("List({})", field(item)),
        DataType::FixedSizeList(item, size) => format!("Vector({size} x {})", field(item)),
        DataType::Struct(fields) => {
            let fields: Vec<_> = fields.iter().map(|it| format!("{}: {}", it.name(), field(it))).collect();
            format!("Struct({})", fields.join(", "))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) if pair.len() == 2 => format!("Map({}, {})", field(&pair[0]), field(&pair[1])),
            other => format!("Map({})", type_text(other)),
        },
        other => match SCALARS.iter().find(|(_, scalar)| scalar == other) {
            Some((name, _)) => (*name).to_owned(),
            None => other.to_string(), // no output is of another type
        },
    }
}

/// The types of single values, with their names.
const SCALARS: [(&str, DataType); 13] = [
    ("Boolean", DataType::Boolean),
    ("Int8", DataType::Int8),
    ("Int16", DataType::Int16),
    ("Int32", DataType::Int32),
    ("Int64", DataType::Int64),
    ("UInt8", DataType::UInt8),
    ("UInt16", DataType::UInt16),
    ("UInt32", DataType::UInt32),
    ("UInt64", DataType::UInt64),
    ("Float16", DataType::Float16),
    ("Float32", DataType::Float32),
    ("Float64", DataType::Float64),
    ("Utf8", DataType::Utf8),
];

/// The type at the start of `text`, which [`type_text`] wrote, and what follows it. Lists of a fixed size, which versions of
/// some time ago have, are lists.
fn parse_type(text: &str) -> Option<(DataType, &str)> {
    parse_nested(text, DEEPEST)
}

/// Lists within lists, at most: what another process wrote must not take this one's stack.
const DEEPEST: usize = 32;

fn parse_nested(text: &str, depth: usize) -> Option<(DataType, &str)> {
    let parse_type = |text| depth.checked_sub(1).and_then(|depth| parse_nested(text, depth));
    if let Some(inner) = text.strip_prefix("List(") {
        let (item, rest) = parse_type(inner)?;
        return Some((list_type(item), rest.strip_prefix(')')?));
    }
    if let Some(inner) = text.strip_prefix("Vector(") {
        let (size, inner) = inner.split_once(" x ")?;
        let (item, rest) = parse_type(inner)?;
        return Some((vector_type(item, size.parse().ok()?), rest.strip_prefix(')')?));
    }
    if let Some(inner) = text.strip_prefix("FixedSizeList(") {
        let (item, rest) = parse_type(inner.split_once(" x ")?.1)?;
        return Some((list_type(item), rest.strip_prefix(')')?));
    }
    if let Some(inner) = text.strip_prefix("Map(") {
        let (key, rest) = parse_type(inner)?;
        let (value, rest) = parse_type(rest.strip_prefix(", ")?)?;
        return Some((map_type(key, value), rest.strip_prefix(')')?));
    }
    let end = text.find([',', ')']).unwrap_or(text.len());
    let (_, scalar) = SCALARS.iter().find(|(name, _)| *name == &text[..end])?;
    Some((scalar.clone(), &text[end..]))
}

/// Features that are listed one by one, at most.
const WIDEST: usize = 4096;

impl TensorNote {
    /// What the text says.
    fn spec(&self) -> Option<TensorSpec> {
        let (element, shape) = self.tensor_type.split_once('[')?;
        let sizes = shape.strip_suffix(']')?.split(',').filter(|size| !size.is_empty());
        let shape = sizes.map(|size| match size.parse() {
            Ok(size) => Dimension::Fixed(size),
            Err(_) => Dimension::Dynamic((size != "?").then(|| size.to_owned())),
        });
        let shape = shape.collect();
        Some(TensorSpec { name: self.name.clone(), element: ElementType::from_name(element)?, shape })
    }

    /// The sizes of a row's value, where all are known; none for a single value.
    fn row_lengths(&self) -> Option<Vec<usize>> {
        let row = self.row_type();
        let sizes = row.split_once('[')?.1.trim_end_matches(']');
        let sizes = sizes.split(',').filter(|size| !size.is_empty());
        let sizes: Option<Vec<usize>> = sizes.map(|size| size.trim().parse().ok()).collect();
        sizes.map(|sizes| sizes.into_iter().filter(|size| *size != 1).collect())
    }

    /// The type without the rows, whose name says nothing.
    fn row_type(&self) -> String {
        match self.tensor_type.split_once('[') {
            Some((element, shape)) => {
                format!("{element}[{}", shape.split_once(',').map_or("]", |(_, row_shape)| row_shape))
            }
            None => self.tensor_type.clone(),
        }
    }
}

impl std::fmt::Display for Feature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => write!(f, "'{name}' ({})", self.value_type),
            None => f.write_str(&self.value_type),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(features: &[(&str, &str)], output: &str, returns: Option<&str>) -> Interface {
        let feature = |&(name, value_type): &(&str, &str)| Feature {
            name: (!name.is_empty()).then(|| name.to_owned()),
            value_type: value_type.to_owned(),
            input: None,
        };
        Interface {
            features: features.iter().map(feature).collect(),
            inputs: vec![],
            outputs: vec![TensorNote { name: "y".into(), tensor_type: output.into() }],
            returns: returns.map(str::to_owned),
        }
    }

    #[test]
    fn what_a_caller_notices_is_a_difference() {
        let base = interface(&[("age", "float"), ("plan", "string")], "float[N,1]", Some("Float32"));
        assert_eq!(base.difference(&base), None);
        for (other, expected) in [
            (interface(&[("age", "float"), ("tier", "string")], "float[N,1]", Some("Float32")), "feature 2 was 'plan'"),
            (interface(&[("age", "float")], "float[N,1]", Some("Float32")), "took 2 features, and now takes 1"),
            (
                interface(&[("age", "float"), ("plan", "string")], "", Some("Int64")),
                "gave Float32, and now gives Int64",
            ),
            (interface(&[("age", "float"), ("plan", "string")], "float[N,2]", None), "outputs were y float[1]"),
        ] {
            let found = base.difference(&other).expect(expected);
            assert!(found.contains(expected), "{found}");
        }
        let fixed = interface(&[], "float[N,3]", Some("Struct(label: Int64, p: FixedSizeList(3 x Float32))"));
        let list = |shape| interface(&[], shape, Some("Struct(label: Int64, p: List(Float32))"));
        assert_eq!(fixed.difference(&list("float[M,3]")), None, "a list is a list");
        let found = fixed.difference(&list("float[M,4]")).expect("another number of classes");
        assert_eq!(found, "its outputs were y float[3], and are now y float[4]");
        let batch = interface(&[("age", "float"), ("plan", "string")], "float[batch,1]", None);
        assert_eq!(base.difference(&batch), None, "the name of the rows says nothing");
    }
}
