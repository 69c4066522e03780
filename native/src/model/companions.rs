//! The files beside a graph that say what its numbers stand for: the tokenizer of a model of texts, how a model of images wants
//! them, and their settings.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::proto::{GraphProto, TypeValue, ValueInfoProto};
use crate::error::{Result, bail, error};

/// The tokenizer of a model of texts, without which the others say nothing.
const TOKENIZER: &str = super::Model::TOKENIZER;

/// The file that says how pictures are prepared for a model of images: their size, scale and mean.
const PREPROCESSOR: &str = super::Model::PREPROCESSOR;

/// The files of a model of texts, as the libraries that train such models name them.
const OF_TEXTS: [&str; 6] = [
    "1_Pooling/config.json",
    "config.json",
    "modules.json",
    "sentence_bert_config.json",
    TOKENIZER,
    "tokenizer_config.json",
];

/// The files of a model of images.
const OF_IMAGES: [&str; 2] = ["config.json", PREPROCESSOR];

/// Bytes of such a file, at most: the largest vocabularies have 20 MB.
const LARGEST: u64 = 256 << 20;

/// The names of the files that may stand beside `graph`; none, if it takes neither tokens nor what may be an image.
pub(super) fn expected(graph: &GraphProto) -> &'static [&'static str] {
    let takes = |kind: fn(&ValueInfoProto) -> bool| graph.input.iter().any(kind);
    if takes(|input| input.name == "input_ids") {
        &OF_TEXTS
    } else if takes(|input| rank(input) == 4) {
        &OF_IMAGES
    } else {
        &[]
    }
}

/// The number of dimensions of a tensor; 0 if it has no shape.
fn rank(input: &ValueInfoProto) -> usize {
    match input.r#type.as_ref().and_then(|kind| kind.value.as_ref()) {
        Some(TypeValue::Tensor(tensor)) => tensor.shape.as_ref().map_or(0, |shape| shape.dim.len()),
        _ => 0,
    }
}

/// Those of `expected` that stand in the folder of the file `path`, by their names; none without the one that says what the others
/// are for.
pub(super) fn beside(path: &Path, expected: &[&str]) -> BTreeMap<String, PathBuf> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let first = [TOKENIZER, PREPROCESSOR].into_iter().find(|first| expected.contains(first));
    if !first.is_some_and(|first| folder.join(first).is_file()) {
        return BTreeMap::new();
    }
    let there = expected.iter().map(|name| ((*name).to_owned(), folder.join(name)));
    there.filter(|(_, path)| path.is_file()).collect()
}

/// True if a file stands beside the model's file `path` that may belong to it.
pub(super) fn may_be_beside(path: &Path) -> bool {
    [TOKENIZER, PREPROCESSOR].into_iter().any(|name| path.with_file_name(name).is_file())
}

/// The content of the files `paths`.
pub(super) fn read(uri: &str, paths: BTreeMap<String, PathBuf>) -> Result<BTreeMap<String, Bytes>> {
    let each = paths.into_iter().map(|(name, path)| {
        let unreadable =
            |cause: io::Error| error!(Unreadable, "'{uri}': its file '{name}' can't be read").with_source(cause);
        let mut bytes = vec![];
        fs::File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
        if bytes.len() as u64 > LARGEST {
            bail!(InvalidModel, "'{uri}': its file '{name}' has more than {} MB", LARGEST >> 20);
        }
        Ok((name, bytes.into()))
    });
    each.collect()
}
