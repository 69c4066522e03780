//! What CREATE MODEL asks for.

use std::fmt;

use crate::call::{FeatureName, ModelOptions};
use crate::catalog::fold_name;
use crate::error::{Result, bail};
use crate::storage::{StorageOptions, redacted};

/// `CREATE [OR REPLACE] MODEL [IF NOT EXISTS] name [FEATURES (a, b, …)] FROM 'uri' [OPTIONS (key value, …)]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateModel {
    /// The folded name.
    pub name: String,
    /// Whether a name that is there gets a new version.
    pub or_replace: bool,
    /// Whether a name that is there is no error.
    pub if_not_exists: bool,
    /// The features' names, in order; empty if not given.
    pub features: Vec<FeatureName>,
    /// Where the model is.
    pub uri: String,
    /// How it is made and called.
    pub options: CreateOptions,
}

impl CreateModel {
    /// `CREATE MODEL name FROM 'uri'`
    ///
    /// # Errors
    /// What is no name.
    pub fn new(name: &str, uri: &str) -> Result<Self> {
        Ok(Self {
            name: fold_name(name)?,
            or_replace: false,
            if_not_exists: false,
            features: vec![],
            uri: uri.to_owned(),
            options: CreateOptions::default(),
        })
    }
}

/// Without what may be secret.
impl fmt::Display for CreateModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let replace = if self.or_replace { "OR REPLACE " } else { "" };
        write!(f, "CREATE {replace}MODEL {} FROM '{}'", self.name, redacted(&self.uri))
    }
}

/// How a version is made and called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateOptions {
    /// How it is called.
    pub model: ModelOptions,
    /// The SHA-256 that its content must have, in lower-case hexadecimal digits.
    pub sha256: Option<String>,
    /// The tokenizer of a model of texts, if it does not stand beside it: a file `tokenizer.json` of this machine, or its folder.
    pub tokenizer: Option<String>,
    /// Whether the catalog keeps a copy of its files. It does, unless it lasts as long as the process.
    pub copy: Option<bool>,
    /// Whether it is loaded, and run on made-up rows.
    pub validate: bool,
    /// Whether the name stands for it from now on.
    pub activate: bool,
    /// Whether it may have another signature than the version that the name stands for.
    pub allow_signature_change: bool,
    /// How the place that it comes from is reached.
    pub storage: StorageOptions,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self {
            model: ModelOptions::default(),
            sha256: None,
            tokenizer: None,
            copy: None,
            validate: true,
            activate: true,
            allow_signature_change: false,
            storage: StorageOptions::default(),
        }
    }
}

impl CreateOptions {
    /// The names of the options beside those of [`ModelOptions`].
    pub const NAMES: [&str; 6] = ["sha256", "tokenizer", "copy", "validate", "activate", "allow_signature_change"];

    /// Options from their names and values.
    ///
    /// # Errors
    /// As [`ModelOptions::from_pairs`].
    pub(crate) fn from_pairs(pairs: Vec<(String, String)>) -> Result<Self> {
        let mut options = Self::default();
        let mut of_model = vec![];
        let mut seen = vec![];
        for (name, value) in pairs {
            let name = name.to_lowercase();
            if seen.contains(&name) {
                bail!(InvalidOption, "option '{name}' is given twice");
            }
            seen.push(name.clone());
            let yes_or_no = || match value.to_lowercase().as_str() {
                "true" => Ok(true),
                "false" => Ok(false),
                _ => bail!(InvalidOption, "option '{name}' is '{value}': expected true or false"),
            };
            match name.as_str() {
                "sha256" => {
                    let digits = value.to_lowercase();
                    if digits.len() != 64 || !digits.chars().all(|c| c.is_ascii_hexdigit()) {
                        bail!(InvalidOption, "option 'sha256' is '{value}': expected 64 hexadecimal digits");
                    }
                    options.sha256 = Some(digits);
                }
                "tokenizer" => options.tokenizer = Some(value),
                "copy" => options.copy = Some(yes_or_no()?),
                "validate" => options.validate = yes_or_no()?,
                "activate" => options.activate = yes_or_no()?,
                "allow_signature_change" => options.allow_signature_change = yes_or_no()?,
                _ if options.storage.push(&name, &value) => {}
                _ => of_model.push((name, value)),
            }
        }
        let of_model = of_model.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        options.model = ModelOptions::from_pairs_among(of_model, &Self::NAMES)?;
        Ok(options)
    }
}
