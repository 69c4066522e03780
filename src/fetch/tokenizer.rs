//! A model, and a tokenizer that does not stand beside it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use datafusion_predict_native::Model;
use sha2::{Digest, Sha256};

use super::Fetched;
use crate::error::{Error, Result, bail, error};
use crate::storage::{Place, hex};

/// `fetched` in a folder below `root` where the file `tokenizer` stands beside it: of one disk, without a copy. From there on the two
/// are one model, which that folder has.
///
/// # Errors
/// A tokenizer that is not on this machine; files that can't be read or put there.
pub(crate) fn with_tokenizer(fetched: Fetched, tokenizer: &str, root: &Path) -> Result<Fetched> {
    let file = match Place::of(tokenizer)? {
        Place::Local(path) if path.is_dir() => path.join(Model::TOKENIZER),
        Place::Local(path) => path,
        Place::Remote(_) => bail!(
            InvalidOption,
            "option 'tokenizer' is '{tokenizer}': expected a file of this machine, such as 'models/minilm/{}'",
            Model::TOKENIZER
        ),
    };
    let unreadable = |cause: io::Error| -> Error {
        error!(Unreadable, "option 'tokenizer': '{}' can't be read", file.display()).with_source(cause)
    };
    let json = fs::read(&file).map_err(unreadable)?;
    let (external, companions) = Model::external_files(&fetched.uri, &fetched.path)?;
    if !companions.contains(&Model::TOKENIZER) {
        bail!(InvalidOption, "option 'tokenizer' is for a model of texts, whose graph takes 'input_ids'");
    }
    let (Some(beside), Some(name)) = (fetched.path.parent(), fetched.path.file_name()) else {
        bail!(Unreadable, "'{}' is no file", fetched.path.display())
    };
    let companions = companions.iter().filter(|name| **name != Model::TOKENIZER).map(|name| (*name).to_owned());
    let names = external.into_iter().chain(companions.filter(|name| beside.join(name).is_file()));
    let files: Vec<PathBuf> = std::iter::once(PathBuf::from(name)).chain(names.map(PathBuf::from)).collect();

    let failed = |cause: io::Error| -> Error {
        error!(Unreadable, "'{}' can't be put beside its tokenizer", fetched.uri).with_source(cause)
    };
    let mut hash = Sha256::new_with_prefix(&json);
    for file in &files {
        let path = beside.join(file);
        let state = fs::metadata(&path).map_err(failed)?;
        let changed = state.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        hash.update(format!("{} {} {changed:?}\n", path.display(), state.len()));
    }
    let folder = root.join(&hex(hash.finalize())[..32]);
    if !folder.is_dir() {
        // Whole, or not there.
        fs::create_dir_all(root).map_err(failed)?;
        let parts = tempfile::tempdir_in(root).map_err(failed)?;
        for file in &files {
            let (from, to) = (beside.join(file), parts.path().join(file));
            to.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed)?;
            fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(drop)).map_err(failed)?;
        }
        fs::write(parts.path().join(Model::TOKENIZER), &json).map_err(failed)?;
        if let Err(cause) = fs::rename(parts.path(), &folder)
            && !folder.is_dir()
        {
            return Err(failed(cause));
        }
    }
    let path = folder.join(name);
    Ok(Fetched { uri: path.display().to_string(), path, ..fetched })
}
