//! A model as data: what an ONNX file says, without anything that runs it.

mod companions;
mod file;
mod graph;
mod hash;
mod labels;
mod lookalike;
mod metadata;
mod precision;
#[doc(hidden)]
pub mod proto;
mod reader;
mod rewrite;
mod signature;
mod token_table;
mod weights;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

pub use labels::{ClassLabels, Labels};
pub use metadata::Metadata;
pub use precision::Precision;
pub use signature::{Dimension, RefusedOutput, SequenceOutput, Signature, TensorSpec};
pub use token_table::TokenTable;
pub use weights::{Weight, WeightData, WeightPlace};

use crate::error::{Result, bail};
use file::FileState;
use proto::ModelProto;

/// The files on this machine that a model was read from.
#[derive(Debug, Clone)]
pub struct ModelFiles {
    /// The ONNX file.
    pub path: PathBuf,
    /// The other files, by their names beside it: external weights, and what says what its numbers stand for.
    pub external: Vec<String>,
    /// The SHA-256 of all, as [`Model::sha256`] gives it.
    pub sha256: String,
}

/// An ONNX model that was read, checked and prepared for engines. Immutable, and shared by all that use it.
///
/// The large weights stand apart from the graph, so that they are in memory once, however many sessions run it.
///
/// ```
/// # fn main() -> Result<(), datafusion_predict_native::Error> {
/// use datafusion_predict_native::Model;
///
/// let model = Model::read("../tests/models/sklearn/iris_forest.onnx")?;
/// for input in &model.signature().inputs {
///     println!("{input}"); // float[N,4]
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Model {
    uri: String,
    /// Where the file is, unless it came as bytes.
    path: Option<PathBuf>,
    /// Models that are the same file have it once.
    content: Arc<Content>,
}

/// The decoded content of a model's files: all that does not depend on where they are.
#[derive(Debug)]
struct Content {
    sha256: String,
    size: u64,
    external_files: Vec<String>,
    companions: BTreeMap<String, Bytes>,
    proto: ModelProto,
    /// The vectors of a static embedding model.
    token_table: Option<TokenTable>,
    weights: Vec<Weight>,
    /// The files that were read.
    read: Vec<FileState>,
    /// The outputs that were maps from label to probability, and the labels.
    zip_maps: Vec<(String, ClassLabels)>,
    sequences: Vec<SequenceOutput>,
    signature: Signature,
    optional_inputs: Vec<TensorSpec>,
    refused_outputs: Vec<RefusedOutput>,
    metadata: Metadata,
}

impl Model {
    /// The name of the file that makes a model whose graph takes `input_ids` one of texts, if it stands beside it.
    pub const TOKENIZER: &str = "tokenizer.json";

    /// The name of the file that makes a model whose graph takes four dimensions one of images, if it stands beside it.
    pub const PREPROCESSOR: &str = "preprocessor_config.json";

    /// Reads the model at `uri`: the path or `file://` URL of an ONNX file, or of a folder that holds `model.onnx`, or the
    /// `model.safetensors` of a static embedding model.
    ///
    /// # Errors
    /// A path that can't be read, a file that is no ONNX model, external weights outside the model's folder.
    pub fn read(uri: &str) -> Result<Arc<Self>> {
        Self::read_file(uri, &file::local_file(uri)?)
    }

    /// Reads the file at `path`, which came from `uri`.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_file(uri: &str, path: &Path) -> Result<Arc<Self>> {
        Self::of_file(uri, file::read(uri, path)?)
    }

    /// Reads the file at `path`, as [`read_file`](Self::read_file), but shares graph and weights with a model of the same content that
    /// is in memory already.
    ///
    /// `known` gives that model by its SHA-256. `has_size` says whether there is one of that many bytes: only then a large file is
    /// hashed before it is decoded, so that it need not be decoded at all.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_unless_known(
        uri: &str,
        path: &Path,
        has_size: impl Fn(u64) -> bool,
        known: impl Fn(&str) -> Option<Arc<Self>>,
    ) -> Result<Arc<Self>> {
        // The same file with a tokenizer is another model.
        if !companions::may_be_beside(path)
            && let Some(size) = file::size(path).filter(|size| has_size(*size))
            && let Some(known) = file::hash_of(path, size).and_then(|hash| known(&hash))
        {
            return Ok(Arc::new(Self {
                uri: uri.to_owned(),
                path: Some(path.to_owned()),
                content: known.content.clone(),
            }));
        }
        let Self { uri, path, content } = Self::decoded(uri, file::read(uri, path)?)?;
        let content = known(&content.sha256).map_or(content, |known| known.content.clone());
        Ok(Arc::new(Self { uri, path, content }))
    }

    /// The external weights that the file at `path` names, by their names beside it; and the names of other files that belong
    /// to such a model where they stand beside it.
    ///
    /// # Errors
    /// A file that can't be read or that is no ONNX model.
    pub fn external_files(uri: &str, path: &Path) -> Result<(Vec<String>, &'static [&'static str])> {
        let mut file = file::read(uri, path)?;
        Ok((file.external_files().into_iter().collect(), file.expected_companions()))
    }

    /// The model whose file is in memory. `name` stands for its URI; it has no external weights.
    ///
    /// # Errors
    /// Bytes that are no ONNX model.
    pub fn from_bytes(name: &str, bytes: Bytes) -> Result<Arc<Self>> {
        Self::of_file(name, file::from_bytes(name, bytes)?)
    }

    fn of_file(uri: &str, file: file::ModelFile) -> Result<Arc<Self>> {
        Self::decoded(uri, file).map(Arc::new)
    }

    fn decoded(uri: &str, mut file: file::ModelFile) -> Result<Self> {
        if file.proto.graph.as_ref().is_none_or(|graph| graph.output.is_empty()) {
            bail!(InvalidModel, "'{uri}' is not an ONNX model: there is no graph in it");
        }
        let external_files = file.external_files();
        let beside = file.companions();
        let (hash, size) = file.hash(uri, &external_files, &beside)?;
        let companions = companions::read(uri, beside)?;
        let mut proto = std::mem::take(&mut file.proto);
        let token_table = file.token_table.take();
        let weights = weights::split_off(uri, &mut proto, &file)?;
        let zip_maps = proto.graph.as_mut().map(rewrite::replace_zip_maps).unwrap_or_default();
        let sequences = proto.graph.as_mut().map(rewrite::replace_sequences).unwrap_or_default();
        proto.graph.iter_mut().for_each(rewrite::use_locale_of_system);
        let no_graph = proto::GraphProto::default();
        let graph = proto.graph.as_ref().unwrap_or(&no_graph);
        let (signature, refused_outputs) = Signature::declared(uri, graph)?;
        let optional_inputs = signature::optional_inputs(uri, graph);
        let metadata = Metadata::of(&proto);
        let (read, uri, path) = (file.states(), uri.to_owned(), file.path);
        let mut external_files: Vec<_> = external_files.into_iter().collect();
        external_files.extend(companions.keys().cloned());
        let sha256 = hash.wait()?;
        let content = Content {
            sha256,
            size,
            external_files,
            companions,
            proto,
            token_table,
            weights,
            read,
            zip_maps,
            sequences,
            signature,
            optional_inputs,
            refused_outputs,
            metadata,
        };
        Ok(Self { uri, path, content: Arc::new(content) })
    }

    /// Where the model was read from.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The SHA-256 of the file, of its external weights and of what stands beside it, in hexadecimal digits.
    pub fn sha256(&self) -> &str {
        &self.content.sha256
    }

    /// The files, unless the model came as bytes.
    pub fn files(&self) -> Option<ModelFiles> {
        let (path, external) = (self.path.clone()?, self.content.external_files.clone());
        Some(ModelFiles { path, external, sha256: self.content.sha256.clone() })
    }

    /// The content of the file `name` that stands beside a model of texts or of images, such as `tokenizer.json`.
    pub fn companion(&self, name: &str) -> Option<&Bytes> {
        self.content.companions.get(name)
    }

    /// The vectors of the tokens, if it is a static embedding model: its graph is then one that no runtime knows.
    pub fn token_table(&self) -> Option<&TokenTable> {
        self.content.token_table.as_ref()
    }

    /// Whether it could be read again.
    pub fn has_file(&self) -> bool {
        self.path.is_some()
    }

    /// Size of the file and of its external weights, in bytes.
    pub fn size(&self) -> u64 {
        self.content.size
    }

    /// Bytes that it takes in memory, about: the file, whose parts are not copied, and the lists of numbers in its nodes, which
    /// the file holds in fewer bytes.
    pub fn bytes_in_memory(&self) -> u64 {
        let nodes = self.content.proto.graph.iter().flat_map(|graph| &graph.node);
        let lists = nodes.flat_map(|node| &node.attribute).map(|attribute| {
            size_of_val(attribute.ints.as_slice())
                + size_of_val(attribute.floats.as_slice())
                + size_of_val(attribute.strings.as_slice())
        });
        let file = self.content.token_table.as_ref().map_or(self.content.size, |table| table.size() as u64);
        file + lists.sum::<usize>() as u64
    }

    /// Inputs and outputs as the file declares them.
    pub fn signature(&self) -> &Signature {
        &self.content.signature
    }

    /// The inputs that the signature lacks, since they may be left out: each has a default in the file.
    pub fn optional_inputs(&self) -> &[TensorSpec] {
        &self.content.optional_inputs
    }

    /// The outputs that the signature lacks, since they can't become columns: sequences, maps, sparse tensors, and elements
    /// that have no Arrow type.
    pub fn refused_outputs(&self) -> &[RefusedOutput] {
        &self.content.refused_outputs
    }

    /// The outputs that were sequences of tensors. The [signature](Self::signature) has their parts instead.
    pub fn sequences(&self) -> &[SequenceOutput] {
        &self.content.sequences
    }

    /// Producer, operator sets, documentation.
    pub fn metadata(&self) -> &Metadata {
        &self.content.metadata
    }

    /// The graph, without the large [weights](Self::weights).
    pub fn graph(&self) -> Option<&proto::GraphProto> {
        self.content.proto.graph.as_ref()
    }

    /// The version of each operator set that the graph is written in, by its domain.
    pub fn opsets(&self) -> HashMap<&str, i64> {
        let sets = self.content.proto.opset_import.iter();
        sets.map(|set| (if set.domain == "ai.onnx" { "" } else { set.domain.as_str() }, set.version)).collect()
    }

    /// Whether the graph has operators that give missing values (NaN) a meaning: an imputer, or trees that track them.
    pub fn handles_missing_values(&self) -> bool {
        self.content.proto.graph.as_ref().is_some_and(graph::handles_missing_values)
    }

    /// Whether no row can make a run fail: all inputs are floats, and no operator looks anything up by their values.
    pub fn takes_any_row(&self) -> bool {
        self.content.signature.inputs.iter().all(|input| input.element.is_float())
            && self.content.proto.graph.as_ref().is_some_and(graph::is_total)
    }

    /// Whether all inputs are floats, and none of them is looked up or counted with: a run that fails on some would fail on
    /// others, too.
    pub fn takes_floats_as_they_are(&self) -> bool {
        self.content.signature.inputs.iter().all(|input| input.element.is_float())
            && !self.content.proto.graph.as_ref().is_some_and(graph::looks_up)
    }

    /// Whether the graph's weights are those of trees, which stand in its nodes.
    pub fn has_trees(&self) -> bool {
        self.content.proto.graph.as_ref().is_some_and(graph::has_trees)
    }

    /// The labels of `output`, if the file gives it as maps from label to probability (scikit-learn's ZipMap).
    pub fn zip_map(&self, output: &str) -> Option<&ClassLabels> {
        self.content.zip_maps.iter().find(|(name, _)| name == output).map(|(_, labels)| labels)
    }

    /// The classes that the columns of `output` stand for, where the graph tells.
    pub fn class_labels(&self, output: &str) -> Option<ClassLabels> {
        if let Some(labels) = self.zip_map(output) {
            return Some(labels.clone());
        }
        self.content.proto.graph.as_ref().and_then(|graph| graph::class_labels(graph, output))
    }

    /// The operators of the graph, one for each node, in order.
    pub fn operators(&self) -> impl Iterator<Item = &str> {
        self.content.proto.graph.iter().flat_map(|graph| graph.node.iter().map(|node| node.op_type.as_str()))
    }

    /// The large weights, which [`onnx_bytes`](Self::onnx_bytes) only name.
    pub fn weights(&self) -> &[Weight] {
        &self.content.weights
    }

    /// Values for each row between two layers, at most: the widest sum of a matrix' rows and columns.
    pub fn widest_layer(&self) -> Option<usize> {
        self.content.proto.graph.as_ref().and_then(|graph| graph::widest_layer(graph, &self.content.weights))
    }

    /// True while the files that the model was read from are there, and nobody has changed them since, as far as their sizes and
    /// times of change tell.
    pub fn files_are_unchanged(&self) -> bool {
        self.content.read.iter().all(FileState::is_unchanged)
    }

    /// As [`onnx_bytes`](Self::onnx_bytes), where the large weights are marked as external data in the files that the model was
    /// read from, and the folder of these; `None` if they are not there, or no longer as they were.
    pub fn onnx_bytes_with_files(&self, outputs: &[&str]) -> Option<(Vec<u8>, PathBuf)> {
        let Content { proto, weights, read, .. } = self.content.as_ref();
        let folder = read.first()?.folder()?.to_owned();
        if !self.files_are_unchanged() {
            return None;
        }
        let mut proto = with_outputs(proto, outputs);
        weights::point_to_files(&mut proto, weights).then(|| (proto.encode_to_vec(), folder))
    }

    /// The graph as an ONNX file that computes `outputs` only (all if empty), its large weights marked as external.
    pub fn onnx_bytes(&self, outputs: &[&str]) -> Vec<u8> {
        if outputs.is_empty() {
            return self.content.proto.encode_to_vec();
        }
        with_outputs(&self.content.proto, outputs).encode_to_vec()
    }
}

/// The model that computes `outputs` only, or all if there are none.
fn with_outputs(proto: &ModelProto, outputs: &[&str]) -> ModelProto {
    let mut proto = proto.clone();
    if let Some(graph) = proto.graph.as_mut().filter(|_| !outputs.is_empty()) {
        graph.output.retain(|output| outputs.contains(&output.name.as_str()));
    }
    proto
}
