//! Static embedding models: a vector for each token of a vocabulary, in a file of the format safetensors.
//!
//! The layout is that of model2vec: `embeddings` has the vectors; where there are `weights`, a token's vector is multiplied by its
//! own, and where there is a `mapping`, it says which vector a token has. Beside it stands the tokenizer, `tokenizer.json`.
//!
//! To all other modules such a file is a graph of one node of our own, which takes numbers of tokens and gives their vectors.

use half::f16;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::proto::{
    Dimension, DimensionValue, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto,
    TensorTypeProto, TypeProto, TypeValue, ValueInfoProto,
};
use crate::error::{Result, bail, error};

/// The domain of the graph's only node, which no runtime knows.
const DOMAIN: &str = "datafusion-predict";

/// The vectors of the tokens of a vocabulary.
#[derive(Debug)]
pub struct TokenTable {
    /// One vector after the other.
    values: Vec<f32>,
    /// Values of a vector, at least one.
    width: usize,
    /// For each token the place of its vector; the token's number, if it is not given.
    mapping: Option<Vec<usize>>,
    /// For each token what its vector is multiplied by.
    weights: Option<Vec<f32>>,
}

impl TokenTable {
    /// Values of a vector.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The tokens that have a vector.
    pub fn tokens(&self) -> usize {
        self.mapping.as_ref().map_or(self.values.len() / self.width, Vec::len)
    }

    /// Adds the vector of a token to `vectors`; `None` if it has none.
    pub fn push_vector(&self, token: usize, vectors: &mut Vec<f32>) -> Option<()> {
        let place = self.mapping.as_ref().map_or(Some(token), |mapping| mapping.get(token).copied())?;
        let vector = self.values.get(place.checked_mul(self.width)?..)?.get(..self.width)?;
        match &self.weights {
            None => vectors.extend_from_slice(vector),
            Some(weights) => {
                let weight = weights.get(token)?;
                vectors.extend(vector.iter().map(|value| value * weight));
            }
        }
        Some(())
    }

    /// Bytes in memory.
    pub(super) fn size(&self) -> usize {
        let (mapping, weights) = (self.mapping.as_deref().unwrap_or(&[]), self.weights.as_deref().unwrap_or(&[]));
        size_of_val(self.values.as_slice()) + size_of_val(mapping) + size_of_val(weights)
    }
}

/// Returns true for the first bytes of a safetensors file, which are the length of a header and the header's JSON.
pub(super) fn is_safetensors(start: &[u8]) -> bool {
    let Some((length, rest)) = start.split_first_chunk::<8>() else { return false };
    u64::from_le_bytes(*length) < 100 << 20 && rest.first() == Some(&b'{')
}

/// The vectors in a file.
///
/// # Errors
/// A file that is not whole, or that holds something else.
pub(super) fn read(uri: &str, bytes: &[u8]) -> Result<TokenTable> {
    let file = SafeTensors::deserialize(bytes).map_err(|cause| {
        error!(InvalidModel, "'{uri}' is no whole file in the format safetensors").with_source(cause)
    })?;
    let find = |names: &[&str]| names.iter().find_map(|name| file.tensor(name).ok());
    let Some(vectors) = find(&["embeddings", "embedding.weight"]) else {
        let names = file.names().into_iter().take(5).collect::<Vec<_>>().join(", ");
        bail!(
            InvalidModel,
            "'{uri}' holds no static embeddings: expected a tensor 'embeddings', found {names}; other models are read as ONNX"
        );
    };
    let &[rows, width] = vectors.shape() else {
        bail!(InvalidModel, "'{uri}': its embeddings have the shape {:?}, expected vectors by tokens", vectors.shape());
    };
    if width == 0 {
        bail!(InvalidModel, "'{uri}': its embeddings have no values");
    }
    let values = floats(uri, "embeddings", &vectors)?;
    let mapping = find(&["mapping"]).map(|mapping| integers(uri, &mapping)).transpose()?;
    let weights = find(&["weights"]).map(|weights| floats(uri, "weights", &weights)).transpose()?;
    let tokens = mapping.as_ref().map_or(rows, Vec::len);
    if weights.as_ref().is_some_and(|weights| weights.len() != tokens) {
        bail!(InvalidModel, "'{uri}': it has {tokens} tokens, but another number of weights");
    }
    let astray = mapping.iter().flatten().enumerate().find(|(_, row)| **row >= rows);
    if let Some((token, row)) = astray {
        bail!(InvalidModel, "'{uri}': token {token} has vector {row}, but there are {rows}");
    }
    Ok(TokenTable { values, width, mapping, weights })
}

fn floats(uri: &str, name: &str, tensor: &TensorView) -> Result<Vec<f32>> {
    macro_rules! numbers {
        ($type:ty, $to:expr) => {
            tensor.data().as_chunks().0.iter().map(|bytes| $to(<$type>::from_le_bytes(*bytes))).collect()
        };
    }
    Ok(match tensor.dtype() {
        Dtype::F32 => numbers!(f32, |value| value),
        Dtype::F64 => numbers!(f64, |value| value as f32),
        Dtype::F16 => numbers!(f16, f16::to_f32),
        Dtype::BF16 => numbers!(half::bf16, half::bf16::to_f32),
        Dtype::I8 => numbers!(i8, f32::from),
        other => bail!(InvalidModel, "'{uri}': its {name} are of type {other:?}, expected floats"),
    })
}

fn integers(uri: &str, tensor: &TensorView) -> Result<Vec<usize>> {
    let numbers: Vec<i64> = match tensor.dtype() {
        Dtype::I64 => tensor.data().as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect(),
        Dtype::I32 => tensor.data().as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes).into()).collect(),
        other => bail!(InvalidModel, "'{uri}': its mapping is of type {other:?}, expected integers"),
    };
    // One below 0 is no row of the vectors.
    Ok(numbers.into_iter().map(|number| usize::try_from(number).unwrap_or(usize::MAX)).collect())
}

/// The graph that stands for such a model: `input_ids`, texts by tokens, to `token_embeddings`.
pub(super) fn graph(table: &TokenTable) -> ModelProto {
    let value = |name: &str, elem_type, width: Option<usize>| {
        let open =
            |name: &str| Dimension { value: Some(DimensionValue::Param(name.to_owned())), ..Dimension::default() };
        let fixed = |size: usize| Dimension { value: Some(DimensionValue::Value(size as i64)), ..Dimension::default() };
        let dim = [open("texts"), open("tokens")].into_iter().chain(width.map(fixed)).collect();
        let tensor = TensorTypeProto { elem_type, shape: Some(TensorShapeProto { dim }) };
        let r#type = Some(TypeProto { value: Some(TypeValue::Tensor(tensor)), ..TypeProto::default() });
        ValueInfoProto { name: name.to_owned(), r#type, ..ValueInfoProto::default() }
    };
    let node = NodeProto {
        op_type: "TokenTable".to_owned(),
        domain: DOMAIN.to_owned(),
        input: vec!["input_ids".to_owned()],
        output: vec!["token_embeddings".to_owned()],
        ..NodeProto::default()
    };
    let (int64, float) = (7, 1); // as TensorProto.DataType numbers them
    let graph = GraphProto {
        node: vec![node],
        input: vec![value("input_ids", int64, None)],
        output: vec![value("token_embeddings", float, Some(table.width))],
        ..GraphProto::default()
    };
    let opset = OperatorSetIdProto { domain: DOMAIN.to_owned(), version: 1 };
    ModelProto { graph: Some(graph), opset_import: vec![opset], ..ModelProto::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of `tensors`: name, type, shape and bytes.
    fn file(tensors: &[(&str, &str, &str, &[u8])]) -> Vec<u8> {
        let (mut header, mut data) = (vec![], vec![]);
        for (name, dtype, shape, bytes) in tensors {
            let places = format!("[{},{}]", data.len(), data.len() + bytes.len());
            header.push(format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{places}}}"#));
            data.extend_from_slice(bytes);
        }
        let header = format!("{{{}}}", header.join(","));
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
    }

    fn bytes<const N: usize, T: Copy>(values: &[T], to: fn(T) -> [u8; N]) -> Vec<u8> {
        values.iter().flat_map(|value| to(*value)).collect()
    }

    fn vectors_of(table: &TokenTable, tokens: &[usize]) -> Option<Vec<f32>> {
        let mut vectors = vec![];
        tokens.iter().try_for_each(|token| table.push_vector(*token, &mut vectors))?;
        Some(vectors)
    }

    #[test]
    fn vectors_are_mapped_and_weighed() {
        let vectors = bytes(&[1.0f32, 2.0, 3.0, 4.0], f32::to_le_bytes);
        let plain = file(&[("embeddings", "F32", "[2,2]", &vectors)]);
        assert!(is_safetensors(&plain[..64]) && !is_safetensors(b"\x08\x07pytorch"));
        let table = read("m", &plain).expect("vectors");
        assert_eq!((table.tokens(), vectors_of(&table, &[1, 0])), (2, Some(vec![3.0, 4.0, 1.0, 2.0])));
        assert_eq!(vectors_of(&table, &[2]), None);
        let mapping = bytes(&[1i64, 1, 0], i64::to_le_bytes);
        let weights = bytes(&[1.0f64, 0.5, 2.0], f64::to_le_bytes);
        let all = file(&[
            ("embeddings", "F32", "[2,2]", &vectors),
            ("mapping", "I64", "[3]", &mapping),
            ("weights", "F64", "[3]", &weights),
        ]);
        let table = read("m", &all).expect("vectors");
        assert_eq!(vectors_of(&table, &[0, 1, 2]), Some(vec![3.0, 4.0, 1.5, 2.0, 2.0, 4.0]));
        assert_eq!((table.tokens(), vectors_of(&table, &[3])), (3, None));
    }

    #[test]
    fn what_is_no_table_is_refused() {
        let vectors = bytes(&[1.0f32, 2.0], f32::to_le_bytes);
        let refused = |bytes: &[u8]| read("m", bytes).expect_err("no table").to_string();
        assert!(refused(b"\x02\0\0\0\0\0\0\0{}").contains("holds no static embeddings"));
        let whole = file(&[("embeddings", "F32", "[1,2]", &vectors)]);
        assert!(refused(&whole[..whole.len() - 1]).contains("no whole file"));
        assert!(refused(&file(&[("embeddings", "F32", "[2]", &vectors)])).contains("the shape [2]"));
        let mapping = bytes(&[-1i32], i32::to_le_bytes);
        let astray = file(&[("embeddings", "F32", "[1,2]", &vectors), ("mapping", "I32", "[1]", &mapping)]);
        assert!(refused(&astray).contains("token 0 has vector"));
        assert!(refused(&file(&[("layer.weight", "F32", "[1,2]", &vectors)])).contains("found layer.weight"));
    }
}
