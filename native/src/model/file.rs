//! Reads a model's bytes, and the external weights beside them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};

use super::companions;
use super::hash::{Hashing, PendingHash};
use super::lookalike::recognized;
use super::proto::{DataLocation, ModelProto, TensorProto};
use super::reader::FileBuf;
use super::token_table::{self, TokenTable};
use super::weights::WeightPlace;
use crate::error::{Error, Result, bail, error};

/// A model's file, decoded, and what its external weights need to be read.
pub(super) struct ModelFile {
    /// The vectors of a static embedding model.
    pub token_table: Option<TokenTable>,
    pub proto: ModelProto,
    /// Of the file.
    hash: Hashing,
    /// Bytes of the file.
    size: u64,
    /// For each large field, by the address of its buffer: the byte of the file at which it begins.
    offsets: HashMap<usize, u64>,
    /// The files that were read, as they were.
    read: RefCell<Vec<FileState>>,
    /// The file, beside which external weights may be; a model that came as bytes has none.
    pub path: Option<PathBuf>,
}

/// The names that a model's main file may have in its folder: an ONNX graph, or the vectors of static embeddings.
const MAIN_FILES: [&str; 2] = ["model.onnx", "model.safetensors"];

/// The file that the path or the `file://` URL `uri` names, or `model.onnx` in the folder that it names.
pub(super) fn local_file(uri: &str) -> Result<PathBuf> {
    let path = match uri.split_once("://") {
        Some(("file", path)) if path.starts_with('/') => PathBuf::from(path),
        Some(("file", _)) => bail!(Unreadable, "'{uri}' can't be read: expected file:///, and an absolute path"),
        Some((scheme, _)) => {
            bail!(Unreadable, "'{uri}' can't be read: the scheme '{scheme}' is not supported, give a path or file://")
        }
        None => PathBuf::from(uri),
    };
    match path.is_dir() {
        true => match MAIN_FILES.map(|file| path.join(file)).into_iter().find(|path| path.is_file()) {
            Some(main) => Ok(main),
            None => bail!(Unreadable, "'{uri}' is a folder without a file {}", MAIN_FILES.join(" or ")),
        },
        false => Ok(path),
    }
}

/// Reads and decodes the file at `path`; errors call it `uri`.
pub(super) fn read(uri: &str, path: &Path) -> Result<ModelFile> {
    let unreadable = |cause: io::Error| error!(Unreadable, "'{uri}' can't be read").with_source(cause);
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        bail!(Unreadable, "'{uri}' can't be read: it is not a file");
    }
    if metadata.len() == 0 {
        bail!(InvalidModel, "'{uri}' is not an ONNX model: the file is empty");
    }
    let start = first_bytes(path).map_err(unreadable)?;
    if token_table::is_safetensors(&start) {
        let bytes = Bytes::from(fs::read(path).map_err(unreadable)?);
        let table = token_table::read(uri, &bytes)?;
        let mut hash = Hashing::of_size(metadata.len());
        hash.update_shared(bytes);
        let read = RefCell::new(FileState::of(path, &metadata).into_iter().collect());
        return Ok(ModelFile {
            proto: token_table::graph(&table),
            token_table: Some(table),
            hash,
            size: metadata.len(),
            offsets: HashMap::new(),
            read,
            path: Some(path.to_owned()),
        });
    }
    if let Some(what) = recognized(&start) {
        bail!(InvalidModel, "'{uri}' is not an ONNX model: {what}");
    }
    let mut buf = fs::File::open(path).and_then(FileBuf::new).map_err(unreadable)?;
    let decoded = ModelProto::decode(&mut buf);
    let (hash, offsets) = buf.finish().map_err(unreadable)?;
    let proto = decoded.map_err(|cause| {
        error!(InvalidModel, "'{uri}' is not an ONNX model, or only a part of one").with_source(cause)
    })?;
    let read = RefCell::new(FileState::of(path, &metadata).into_iter().collect());
    Ok(ModelFile { proto, token_table: None, hash, size: metadata.len(), offsets, read, path: Some(path.to_owned()) })
}

/// Bytes of the file, if it can be read.
pub(super) fn size(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().filter(|metadata| metadata.is_file()).map(|metadata| metadata.len())
}

/// The hash of the file as that of a model without external weights, if it can be read and is large enough that reading it as a
/// model would cost more.
pub(super) fn hash_of(path: &Path, size: u64) -> Option<String> {
    if size < WORTH_HASHING_FIRST {
        return None;
    }
    let mut hash = Sha256::new();
    io::copy(&mut fs::File::open(path).ok()?, &mut HashWriter(&mut hash)).ok()?;
    Some(hex(hash))
}

const WORTH_HASHING_FIRST: u64 = 1 << 20;

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn first_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut start = vec![];
    fs::File::open(path)?.take(SHOWING).read_to_end(&mut start)?;
    Ok(start)
}

/// Bytes that show what a file is.
const SHOWING: u64 = 64;

/// Decodes a file that is in memory; errors call it `name`.
pub(super) fn from_bytes(name: &str, bytes: Bytes) -> Result<ModelFile> {
    if let Some(what) = recognized(&bytes[..bytes.len().min(SHOWING as usize)]) {
        bail!(InvalidModel, "'{name}' is not an ONNX model: {what}");
    }
    let size = bytes.len() as u64;
    let mut hash = Hashing::of_size(size);
    hash.update_shared(bytes.clone());
    let proto = ModelProto::decode(bytes).map_err(|cause| {
        error!(InvalidModel, "'{name}' is not an ONNX model, or only a part of one").with_source(cause)
    })?;
    let (offsets, read) = (HashMap::new(), RefCell::default());
    Ok(ModelFile { proto, token_table: None, hash, size, offsets, read, path: None })
}

impl ModelFile {
    /// Begins to hash the file with its external files and its companions, each as a whole after its name, in the order of the
    /// names; and their size together.
    pub(super) fn hash(
        &mut self,
        uri: &str,
        external_files: &BTreeSet<String>,
        companions: &BTreeMap<String, PathBuf>,
    ) -> Result<(PendingHash, u64)> {
        let file = std::mem::replace(&mut self.hash, Hashing::of_size(0));
        let mut size = self.size;
        let mut external = vec![];
        let weights = external_files.iter().map(|location| Ok((location, self.path_inside(uri, location)?)));
        let companions = companions.iter().map(|(name, path)| Ok((name, path.clone())));
        for file in weights.chain(companions).collect::<Result<Vec<_>>>()? {
            let (location, path) = file;
            let unreadable = unreadable_weights(uri, location);
            let file = fs::File::open(path).map_err(&unreadable)?;
            size += file.metadata().map_err(&unreadable)?.len();
            external.push((location.clone(), file));
        }
        let uri = uri.to_owned();
        let hash = move || {
            let mut hash = file.finish();
            for (location, mut file) in external {
                hash.update(location.as_bytes());
                io::copy(&mut file, &mut HashWriter(&mut hash)).map_err(unreadable_weights(&uri, &location))?;
            }
            Ok(hex(hash))
        };
        Ok((PendingHash::of(size, hash), size))
    }

    /// The names of the files that may stand beside it and belong to it.
    pub(super) fn expected_companions(&self) -> &'static [&'static str] {
        self.proto.graph.as_ref().map_or(&[], companions::expected)
    }

    /// Those that do, by their names.
    pub(super) fn companions(&self) -> BTreeMap<String, PathBuf> {
        let beside = self.path.as_ref().map(|path| companions::beside(path, self.expected_companions()));
        beside.unwrap_or_default()
    }

    /// The external files that the graph names, in order.
    pub(super) fn external_files(&mut self) -> BTreeSet<String> {
        let mut locations = BTreeSet::new();
        super::graph::visit_tensors(&mut self.proto, &mut |tensor| {
            let external = tensor.external_data.iter().filter(|_| is_external(tensor));
            locations.extend(external.filter(|entry| entry.key == "location").map(|entry| entry.value.clone()));
        });
        locations
    }

    /// The place in the model's file from which `bytes`, one of its large fields, was read; `None` if it was not read from there.
    pub(super) fn place(&self, bytes: &Bytes) -> Option<WeightPlace> {
        let file = self.path.as_ref()?.file_name()?.to_str()?.to_owned();
        let offset = *self.offsets.get(&(bytes.as_ptr() as usize))?;
        Some(WeightPlace { file, offset, length: bytes.len() as u64 })
    }

    /// The files that were read.
    pub(super) fn states(&self) -> Vec<FileState> {
        self.read.borrow().clone()
    }

    /// The bytes of a tensor that stands in another file of the model's folder, and where.
    pub(super) fn external(&self, uri: &str, tensor: &TensorProto) -> Result<(Bytes, WeightPlace)> {
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
        let mut file = fs::File::open(&path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        let size = metadata.len();
        if let Some(state) = FileState::of(&path, &metadata)
            && !self.read.borrow().contains(&state)
        {
            self.read.borrow_mut().push(state);
        }
        let offset = offset.unwrap_or(0);
        let length = length.unwrap_or(size.saturating_sub(offset));
        if offset.checked_add(length).is_none_or(|end| end > size) {
            bail!(InvalidModel, "'{uri}': weight '{name}' lies beyond the end of '{location}' ({size} bytes)");
        }
        if let Some(expected) = super::weights::expected_size(tensor).filter(|expected| *expected as u64 != length) {
            bail!(
                InvalidModel,
                "'{uri}': weight '{name}' of shape {:?} has {length} bytes, expected {expected}",
                tensor.dims
            );
        }
        file.seek(SeekFrom::Start(offset)).map_err(unreadable)?;
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        file.read_exact(&mut bytes).map_err(unreadable)?;
        Ok((bytes.into(), WeightPlace { file: location.to_owned(), offset, length }))
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
        let Some(folder) = self.path.as_deref().and_then(Path::parent) else {
            bail!(InvalidModel, "'{uri}': external weights '{location}' of a model that has no folder");
        };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let folder = folder.canonicalize().map_err(unreadable)?;
        let path = folder.join(location).canonicalize().map_err(unreadable)?;
        if path.starts_with(&folder) { Ok(path) } else { Err(outside()) }
    }
}

/// A file as it was when it was read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FileState {
    path: PathBuf,
    modified: SystemTime,
    size: u64,
}

impl FileState {
    fn of(path: &Path, metadata: &fs::Metadata) -> Option<Self> {
        Some(Self { path: std::path::absolute(path).ok()?, modified: metadata.modified().ok()?, size: metadata.len() })
    }

    /// The folder that it is in.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.path.parent()
    }

    /// True while nobody has changed the file since it was read, as far as its size and its time of change tell.
    pub(super) fn is_unchanged(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|metadata| Self::of(&self.path, &metadata).as_ref() == Some(self))
    }
}

fn unreadable_weights(uri: &str, location: &str) -> impl Fn(io::Error) -> Error {
    move |cause| error!(Unreadable, "'{uri}': external weights '{location}' can't be read").with_source(cause)
}

/// Hashes what is written.
struct HashWriter<'a>(pub &'a mut Sha256);

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
