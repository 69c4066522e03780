//! The files beside a graph that say what its numbers stand for: the tokenizer of a model of texts, and its settings.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::proto::GraphProto;
use crate::error::{Result, bail, error};

/// The tokenizer, without which the others say nothing.
pub(super) const TOKENIZER: &str = super::Model::TOKENIZER;

/// The files of a model of texts, as the libraries that train such models name them.
const OF_TEXTS: [&str; 6] = [
    "1_Pooling/config.json",
    "config.json",
    "modules.json",
    "sentence_bert_config.json",
    TOKENIZER,
    "tokenizer_config.json",
];

/// Bytes of such a file, at most: the largest vocabularies have 20 MB.
const LARGEST: u64 = 256 << 20;

/// The names of the files that may stand beside `graph`; none, if it takes no tokens.
pub(super) fn expected(graph: &GraphProto) -> &'static [&'static str] {
    let takes_tokens = graph.input.iter().any(|input| input.name == "input_ids");
    if takes_tokens { &OF_TEXTS } else { &[] }
}

/// Those of `expected` that stand in the folder of the file `path`, by their names; none without a tokenizer.
pub(super) fn beside(path: &Path, expected: &[&str]) -> BTreeMap<String, PathBuf> {
    let folder = path.parent().unwrap_or(Path::new(""));
    if !has_tokenizer(path) {
        return BTreeMap::new();
    }
    let there = expected.iter().map(|name| ((*name).to_owned(), folder.join(name)));
    there.filter(|(_, path)| path.is_file()).collect()
}

/// True if the folder of the model's file `path` has a tokenizer in it.
pub(super) fn has_tokenizer(path: &Path) -> bool {
    path.with_file_name(TOKENIZER).is_file()
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
