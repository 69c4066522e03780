//! Reads a model's bytes, and the external weights beside them.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::proto::{DataLocation, GraphProto, ModelProto, TensorProto};
use crate::error::{Result, bail, error};
use prost::Message;

/// A model's file, and what its external weights need to be read.
pub(super) struct ModelSource {
    pub bytes: Bytes,
    /// Over the file and its external weights.
    pub sha256: String,
    /// Bytes of the file and its external weights.
    pub size: u64,
    folder: PathBuf,
}

/// Reads the file at `uri`, or `model.onnx` in the folder at `uri`.
pub(super) fn read(uri: &str) -> Result<ModelSource> {
    let path = match uri.split_once("://") {
        Some(("file", path)) => PathBuf::from(path),
        Some((scheme, _)) => {
            bail!(Unreadable, "'{uri}' can't be read: the scheme '{scheme}' is not supported, give a path or file://")
        }
        None => PathBuf::from(uri),
    };
    let path = if path.is_dir() { path.join("model.onnx") } else { path };
    let unreadable = |cause: io::Error| error!(Unreadable, "'{uri}' can't be read").with_source(cause);
    if !fs::metadata(&path).map_err(unreadable)?.is_file() {
        bail!(Unreadable, "'{uri}' can't be read: it is not a file");
    }
    let bytes = Bytes::from(fs::read(&path).map_err(unreadable)?);
    if bytes.is_empty() {
        bail!(InvalidModel, "'{uri}' is not an ONNX model: the file is empty");
    }
    let folder = path.parent().map(Path::to_owned).unwrap_or_default();
    let mut source = ModelSource { size: bytes.len() as u64, sha256: String::new(), bytes, folder };
    source.hash(uri)?;
    Ok(source)
}

impl ModelSource {
    /// The hash covers each external file as a whole, after its name, in the order of the names.
    fn hash(&mut self, uri: &str) -> Result<()> {
        let mut hash = Sha256::new();
        hash.update(&self.bytes);
        let mut locations = match ModelProto::decode(self.bytes.clone()) {
            Ok(ModelProto { graph: Some(graph), .. }) => external_locations(&graph),
            _ => vec![], // reported by the caller, which decodes as well
        };
        locations.sort();
        locations.dedup();
        for location in &locations {
            hash.update(location.as_bytes());
            let path = self.path_inside(uri, location)?;
            let unreadable = |cause: io::Error| {
                error!(Unreadable, "'{uri}': external weights '{location}' can't be read").with_source(cause)
            };
            let mut file = fs::File::open(path).map_err(unreadable)?;
            self.size += io::copy(&mut file, &mut HashWriter(&mut hash)).map_err(unreadable)?;
        }
        self.sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(())
    }

    /// The bytes of a tensor that stands in another file of the model's folder.
    pub(super) fn external(&self, uri: &str, tensor: &TensorProto) -> Result<Bytes> {
        use std::io::{Read, Seek, SeekFrom};
        let entry =
            |key: &str| tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str());
        let number = |key: &str| entry(key).map(str::parse::<u64>).transpose();
        let name = &tensor.name;
        let (Some(location), Ok(offset), Ok(length)) = (entry("location"), number("offset"), number("length")) else {
            bail!(InvalidModel, "'{uri}': the external data of weight '{name}' is not described as ONNX asks");
        };
        let path = self.path_inside(uri, location)?;
        let unreadable = |cause: io::Error| {
            error!(Unreadable, "'{uri}': weight '{name}' can't be read from '{location}'").with_source(cause)
        };
        let mut file = fs::File::open(path).map_err(unreadable)?;
        let size = file.metadata().map_err(unreadable)?.len();
        let offset = offset.unwrap_or(0);
        let length = length.unwrap_or(size.saturating_sub(offset));
        if offset.checked_add(length).is_none_or(|end| end > size) {
            bail!(InvalidModel, "'{uri}': weight '{name}' lies beyond the end of '{location}' ({size} bytes)");
        }
        file.seek(SeekFrom::Start(offset)).map_err(unreadable)?;
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        file.read_exact(&mut bytes).map_err(unreadable)?;
        Ok(bytes.into())
    }

    /// `location` within the model's folder; what leads out of it, by name or by link, is refused.
    fn path_inside(&self, uri: &str, location: &str) -> Result<PathBuf> {
        let outside = || error!(InvalidModel, "'{uri}': external weights '{location}' are outside the model's folder");
        if !Path::new(location).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(outside());
        }
        let unreadable = |cause: io::Error| {
            error!(Unreadable, "'{uri}': external weights '{location}' can't be read").with_source(cause)
        };
        let folder = if self.folder.as_os_str().is_empty() { Path::new(".") } else { &self.folder };
        let folder = folder.canonicalize().map_err(unreadable)?;
        let path = folder.join(location).canonicalize().map_err(unreadable)?;
        if path.starts_with(&folder) { Ok(path) } else { Err(outside()) }
    }
}

struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location == Some(DataLocation::External as i32)
}

/// Where the graph's tensors, those of its nodes and subgraphs too, have external data.
fn external_locations(graph: &GraphProto) -> Vec<String> {
    let mut locations = vec![];
    let mut visit = |tensor: &TensorProto| {
        if is_external(tensor) {
            locations.extend(
                tensor.external_data.iter().filter(|entry| entry.key == "location").map(|entry| entry.value.clone()),
            );
        }
    };
    super::graph::visit_tensors(graph, &mut visit);
    locations
}
