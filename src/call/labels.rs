//! Names for the classes of a model: `OPTIONS (labels 'labels.txt')`.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::error::{Error, Result, bail, error};

/// A file of labels may have this many bytes, at most.
const LARGEST: u64 = 4 << 20;

/// The classes' names, in the order of the output's columns; or the file that holds them, one in each line, until it is read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum GivenLabels {
    /// The names themselves.
    Names(Vec<String>),
    /// The path of a file on this machine.
    File(String),
}

impl GivenLabels {
    /// The names; a file is looked for where it says, and beside the model's file `model`.
    ///
    /// # Errors
    /// A file that can't be read, that is too large, or that names no class.
    pub(crate) fn read(self, model: Option<&Path>) -> Result<Self> {
        let Self::File(file) = self else { return Ok(self) };
        let beside = model.and_then(Path::parent).map(|folder| folder.join(&file)).filter(|path| path.is_file());
        let path = if Path::new(&file).is_file() {
            file.clone().into()
        } else {
            beside.unwrap_or_else(|| file.clone().into())
        };
        let unreadable = |cause| {
            error!(
                InvalidOption,
                "option 'labels': the file '{file}' can't be read; names may also be given as '[\"cat\", \"dog\"]'"
            )
            .with_source(cause)
        };
        let metadata = std::fs::metadata(&path).map_err(unreadable)?;
        if !metadata.is_file() || metadata.len() > LARGEST {
            bail!(InvalidOption, "option 'labels': '{file}' is no file of at most {LARGEST} bytes");
        }
        let text = std::fs::read_to_string(&path).map_err(unreadable)?;
        let names: Vec<_> =
            text.trim_start_matches('\u{feff}').lines().map(|line| line.trim_end().to_owned()).collect();
        if names.is_empty() {
            bail!(InvalidOption, "option 'labels': the file '{file}' is empty");
        }
        Ok(Self::Names(names))
    }

    /// The names, if they were read.
    pub(crate) fn names(&self) -> Option<&[String]> {
        match self {
            Self::Names(names) => Some(names),
            Self::File(_) => None,
        }
    }
}

impl fmt::Display for GivenLabels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Names(names) => write!(f, "{}", serde_json::Value::from(names.as_slice())),
            Self::File(path) => f.write_str(path),
        }
    }
}

impl FromStr for GivenLabels {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if !text.trim_start().starts_with('[') {
            return Ok(Self::File(text.to_owned()));
        }
        match serde_json::from_str::<Vec<String>>(text) {
            Ok(names) if !names.is_empty() => Ok(Self::Names(names)),
            _ => bail!(
                InvalidOption,
                "option 'labels' is '{text}': expected the path of a file, or '[\"cat\", \"dog\"]'"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_come_from_a_list_or_from_a_file_beside_the_model() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("names.txt"), "\u{feff}cat\r\ndog \n").expect("a file");
        let file: GivenLabels = "names.txt".parse().expect("a path");
        let read = file.read(Some(&folder.path().join("model.onnx"))).expect("its lines");
        assert_eq!(read.to_string(), r#"["cat","dog"]"#);
        assert_eq!(read.to_string().parse::<GivenLabels>().expect("a list"), read);
        assert!("[1, 2]".parse::<GivenLabels>().is_err());
        let missing = GivenLabels::File("nothing.txt".into()).read(None).expect_err("no such file");
        assert!(missing.to_string().contains("'nothing.txt' can't be read"), "{missing}");
    }
}
