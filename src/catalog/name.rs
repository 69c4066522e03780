//! How models are named.

use std::str::FromStr;

use crate::error::{Error, Result, bail, error};

/// The longest name, in bytes.
const LONGEST: usize = 255;

/// A name as `predict` takes it: `churn`, `churn@champion`, `churn/3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelReference {
    /// The folded name.
    pub name: String,
    /// Which of the name's versions.
    pub version: VersionReference,
}

/// Which version of a model is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionReference {
    /// The one that the name stands for now.
    Current,
    /// The one with this number.
    Number(u64),
    /// The one that this alias stands for.
    Alias(String),
}

fn may_stand_in_names(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

/// Whether `name`, which is folded already, is one.
pub(super) fn is_name(name: &str) -> bool {
    (1..=LONGEST).contains(&name.len()) && !name.starts_with(['-', '.']) && name.chars().all(may_stand_in_names)
}

/// The name of a model or of an alias, folded like an SQL identifier: to lower case, unless it stands in double quotes.
///
/// # Errors
/// An empty name, one over 255 bytes, and any character but ASCII letters and digits, `_`, `-` and `.`: others look alike,
/// or have several spellings.
pub(crate) fn fold_name(name: &str) -> Result<String> {
    let quoted = name.strip_prefix('"').and_then(|name| name.strip_suffix('"'));
    let folded = quoted.map_or_else(|| name.to_lowercase(), str::to_owned);
    let wrong = folded.chars().find(|&c| !may_stand_in_names(c));
    match wrong {
        Some(wrong) => {
            bail!(InvalidStatement, "'{name}' is no name: '{wrong}' is not a letter (a to z), a digit, '_', '-' or '.'")
        }
        None if folded.starts_with(['-', '.']) => {
            bail!(InvalidStatement, "'{name}' is no name: it starts with '{}'", &folded[..1])
        }
        None if folded.is_empty() => bail!(InvalidStatement, "a name is empty"),
        None if folded.len() > LONGEST => {
            bail!(InvalidStatement, "a name has {} bytes, at most {LONGEST} are allowed", folded.len())
        }
        None => Ok(folded),
    }
}

/// An alias, folded as a model's name is.
///
/// # Errors
/// As [`fold_name`]; and what is taken for a version's number: `3`, `v3`.
pub(crate) fn fold_alias(name: &str) -> Result<String> {
    let alias = fold_name(name)?;
    match version_number(&alias) {
        Some(_) => bail!(InvalidStatement, "'{name}' is no alias: it is a version's number"),
        None => Ok(alias),
    }
}

/// The number in `3` or `v3`.
pub(crate) fn version_number(text: &str) -> Option<u64> {
    text.strip_prefix(['v', 'V']).unwrap_or(text).parse().ok()
}

/// True for what looks like a model's file or URL, as in `predict('model.onnx', …)`. A model's name may end in `.onnx`, too, so
/// this only explains a name that is not known.
pub(super) fn looks_like_file(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    text.contains("://") || [".onnx", ".ort", ".pkl", ".joblib", ".pt", ".pth"].iter().any(|end| lower.ends_with(end))
}

/// The error for a call that gives a file in place of a name. A call opens no files, or any query could.
pub(super) fn is_a_file(text: &str) -> Error {
    error!(
        UnknownModel,
        "'{text}' is a file, and a call takes the name of a model: CREATE MODEL m FROM '{text}' makes one, then predict('m', …) calls it"
    )
}

impl FromStr for ModelReference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if looks_like_file(text) && text.contains(['/', '\\']) {
            return Err(is_a_file(text));
        }
        let (name, version) = match (text.split_once('@'), text.rsplit_once('/')) {
            (Some((name, alias)), _) => (name, VersionReference::Alias(fold_name(alias)?)),
            (None, Some((name, number))) => {
                let number = number.parse().map_err(|_| {
                    error!(UnknownModel, "'{text}' names no version: expected a number after '/', found '{number}'")
                })?;
                (name, VersionReference::Number(number))
            }
            (None, None) => (text, VersionReference::Current),
        };
        Ok(Self { name: fold_name(name)?, version })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_name_a_version() {
        let parse = |text: &str| text.parse::<ModelReference>().map(|reference| (reference.name, reference.version));
        assert_eq!(parse("Churn").expect("a name"), ("churn".into(), VersionReference::Current));
        assert_eq!(parse("\"Churn\"/3").expect("a version"), ("Churn".into(), VersionReference::Number(3)));
        assert_eq!(parse("churn@Best").expect("an alias"), ("churn".into(), VersionReference::Alias("best".into())));
        for wrong in ["", "a b", "a/x", "a/b/1", "a@", "a@b/1", "a'b", ".", "-a", "é", &"a".repeat(256)] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
