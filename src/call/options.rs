//! The options of `CREATE MODEL … OPTIONS (…)`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use datafusion_predict_native::Precision;
use serde::{Deserialize, Serialize};

use super::{GivenLabels, ImageOptions, TextOptions};
use crate::byte_size::ByteSize;
use crate::encode::BytesTaken;
use crate::engine::{Device, Devices, provider_option};
use crate::error::{Error, Result, bail, error};

/// What is done with a NULL among the features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NullPolicy {
    /// The row's prediction is NULL.
    Null,
    /// A NULL float is given to the model as NaN; a NULL of another type makes the prediction NULL.
    Nan,
    /// The query fails.
    Error,
}

impl fmt::Display for NullPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Nan => "nan",
            Self::Error => "error",
        })
    }
}

impl FromStr for NullPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_lowercase().as_str() {
            "null" => Ok(Self::Null),
            "nan" => Ok(Self::Nan),
            "error" => Ok(Self::Error),
            _ => bail!(InvalidOption, "option 'on_null' is '{text}': expected 'null', 'nan' or 'error'"),
        }
    }
}

/// What is done with a model for which the score of a row depends on the rows that are scored with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DependentRows {
    /// It is created, and CREATE MODEL says so.
    #[default]
    Warn,
    /// It is not created.
    Refuse,
    /// Each row is scored alone, also where it is not known whether that matters.
    OneByOne,
}

impl fmt::Display for DependentRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warn => "warn",
            Self::Refuse => "refuse",
            Self::OneByOne => "one_by_one",
        })
    }
}

impl FromStr for DependentRows {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_lowercase().as_str() {
            "warn" => Ok(Self::Warn),
            "refuse" => Ok(Self::Refuse),
            "one_by_one" => Ok(Self::OneByOne),
            _ => bail!(
                InvalidOption,
                "option 'on_dependent_rows' is '{text}': expected 'warn', 'refuse' or 'one_by_one'"
            ),
        }
    }
}

/// How a model is called. An option that is not given is chosen from the model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "BTreeMap<String, String>", try_from = "BTreeMap<String, String>")]
pub struct ModelOptions {
    /// The one output that calls give.
    pub output: Option<String>,
    /// The class whose probability calls give, as one number.
    pub class: Option<String>,
    /// What is done with NULL among the features.
    pub on_null: Option<NullPolicy>,
    /// Rows for each run.
    pub batch_size: Option<usize>,
    /// Where the model runs.
    pub device: Option<Devices>,
    /// Options of the device's provider, by their names (`provider.use_tf32 true`): those that are numbers, switches and choices.
    pub provider: BTreeMap<String, String>,
    /// Floats of 16 bits for most of the computation.
    pub precision: Option<Precision>,
    /// Bytes of the device's memory that the model may take, weights and runs together.
    pub max_device_memory: Option<ByteSize>,
    /// The longest that one run may take, such as `60s`; it is cancelled then, and the query fails.
    pub max_run: Option<Duration>,
    /// The text that stands for a NULL among texts: what the model was trained with in place of a missing value.
    pub missing_text: Option<String>,
    /// What is done if rows are not scored independently of each other.
    pub on_dependent_rows: Option<DependentRows>,
    /// What all rows have in an input, by its name in lower case (`constant.sr 16000`): such an input is no feature. A
    /// number, a text, a list in brackets, or `zeros`.
    pub constants: BTreeMap<String, String>,
    /// Sizes for dimensions of the inputs that the file leaves open, by their names in lower case (`size.height 320`), or by
    /// input and place (`size.images.3`).
    pub sizes: BTreeMap<String, usize>,
    /// Names for the classes: of the columns of a score for each, or of the numbers of the best.
    pub labels: Option<GivenLabels>,
    /// Which bytes of a column of bytes are given to a model that takes a fixed number.
    pub bytes: Option<BytesTaken>,
    /// What a value of bytes that is too short is padded with; 0 if not given.
    pub pad: Option<u32>,
    /// Bytes on disk for what was scored, which is not scored again; 0 keeps nothing.
    pub remember: Option<ByteSize>,
    /// How a model of texts is called.
    pub texts: TextOptions,
    /// How a model of images is called.
    pub images: ImageOptions,
}

impl ModelOptions {
    /// The names of all options but those of [`TextOptions`] and of [`ImageOptions`].
    const OF_ALL: [&str; 17] = [
        "output",
        "class",
        "on_null",
        "batch_size",
        "device",
        "provider.…",
        "precision",
        "max_device_memory",
        "max_run",
        "missing_text",
        "on_dependent_rows",
        "constant.…",
        "size.…",
        "labels",
        "bytes",
        "pad",
        "remember",
    ];

    /// Options from their names and values.
    ///
    /// # Errors
    /// An option that is not known, given twice, or that has a value it can't have.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        Self::from_pairs_among(pairs, &[])
    }

    /// As [`from_pairs`](Self::from_pairs), where there are `other` options, too, that may have been meant.
    pub(crate) fn from_pairs_among<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
        other: &[&str],
    ) -> Result<Self> {
        let mut options = Self::default();
        let mut seen = vec![];
        for (name, value) in pairs {
            let name = name.to_lowercase();
            let of_words_or_images = options.texts.take(&name, value)? || options.images.take(&name, value)?;
            match name.as_str() {
                _ if of_words_or_images => {}
                "output" => options.output = Some(value.to_owned()),
                "class" => options.class = Some(value.to_owned()),
                "on_null" => options.on_null = Some(value.parse()?),
                "batch_size" => {
                    let rows = value.parse().ok().filter(|&rows| rows > 0);
                    options.batch_size = Some(rows.ok_or_else(|| {
                        error!(InvalidOption, "option 'batch_size' is '{value}': expected a number of rows from 1 on")
                    })?);
                }
                "device" => options.device = Some(value.parse()?),
                "max_run" => {
                    let time = humantime::parse_duration(value).ok().filter(|time| !time.is_zero());
                    options.max_run = Some(time.ok_or_else(|| {
                        error!(
                            InvalidOption,
                            "option 'max_run' is '{value}': expected a time with its unit, such as 500ms or 60s"
                        )
                    })?);
                }
                "missing_text" => options.missing_text = Some(value.to_owned()),
                "on_dependent_rows" => options.on_dependent_rows = Some(value.parse()?),
                "labels" => options.labels = Some(value.parse()?),
                "bytes" => options.bytes = Some(value.parse()?),
                "pad" => {
                    options.pad = Some(value.parse().map_err(|_| {
                        error!(InvalidOption, "option 'pad' is '{value}': expected a number from 0 on, such as 256")
                    })?);
                }
                "precision" => {
                    let wrong = |expected| error!(InvalidOption, "option 'precision' is '{value}': {expected}");
                    options.precision = Some(value.parse().map_err(wrong)?);
                }
                "remember" => options.remember = Some(bytes(&name, value)?),
                "max_device_memory" => options.max_device_memory = Some(bytes(&name, value)?),
                _ if name.strip_prefix("provider.").is_some_and(|option| !option.is_empty()) => {
                    options.provider.insert(name["provider.".len()..].to_owned(), value.to_owned());
                }
                _ if name.strip_prefix("constant.").is_some_and(|input| !input.is_empty()) => {
                    options.constants.insert(name["constant.".len()..].to_owned(), value.to_owned());
                }
                _ if name.strip_prefix("size.").is_some_and(|dimension| !dimension.is_empty()) => {
                    let size = value.parse().ok().filter(|size| *size > 0);
                    let size = size.ok_or_else(|| {
                        error!(InvalidOption, "option '{name}' is '{value}': expected a size from 1 on")
                    })?;
                    options.sizes.insert(name["size.".len()..].to_owned(), size);
                }
                _ => {
                    let names = [Self::OF_ALL.as_slice(), &TextOptions::NAMES, &ImageOptions::NAMES, other].concat();
                    let near = datafusion_predict_udfs::nearest(&name, names.iter().copied());
                    let near = near.map(|near| format!("; did you mean '{near}'?"));
                    let near = near.unwrap_or_else(|| format!("; there are {}", names.join(", ")));
                    bail!(InvalidOption, "unknown option '{name}'{near}");
                }
            }
            if seen.contains(&name) {
                bail!(InvalidOption, "option '{name}' is given twice");
            }
            seen.push(name);
        }
        options.check_device()?;
        Ok(options)
    }

    /// Brings the options of a device to the spelling of its provider.
    fn check_device(&mut self) -> Result<()> {
        let device = self.device.clone().unwrap_or_default().first();
        let given = std::mem::take(&mut self.provider);
        let provider = given.iter().map(|(name, value)| provider_option(device, name, value));
        self.provider = provider.collect::<Result<_>>()?;
        if self.max_device_memory.is_some() && !matches!(device, Device::Cuda(_)) {
            bail!(
                InvalidOption,
                "option 'max_device_memory' is for device 'cuda': the memory of '{device}' can't be limited"
            );
        }
        Ok(())
    }
}

fn bytes(name: &str, value: &str) -> Result<ByteSize> {
    value.parse().map_err(|problem| error!(InvalidOption, "option '{name}': {problem}"))
}

impl ModelOptions {
    /// Whether everything is left to the model.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl From<ModelOptions> for BTreeMap<String, String> {
    fn from(options: ModelOptions) -> Self {
        let ModelOptions {
            output, class, on_null, batch_size, device, max_run, missing_text, on_dependent_rows, ..
        } = options;
        let constants = options.constants.into_iter().map(|(input, value)| (format!("constant.{input}"), value));
        let sizes = options.sizes.into_iter().map(|(name, size)| (format!("size.{name}"), size.to_string()));
        let pairs = [
            ("output", output),
            ("class", class),
            ("on_null", on_null.map(|policy| policy.to_string())),
            ("batch_size", batch_size.map(|rows| rows.to_string())),
            ("device", device.map(|device| device.to_string())),
            ("max_run", max_run.map(|time| humantime::format_duration(time).to_string())),
            ("missing_text", missing_text),
            ("on_dependent_rows", on_dependent_rows.map(|rows| rows.to_string())),
            ("labels", options.labels.map(|labels| labels.to_string())),
            ("bytes", options.bytes.map(|bytes| bytes.to_string())),
            ("pad", options.pad.map(|pad| pad.to_string())),
            ("remember", options.remember.map(|size| size.to_string())),
            ("precision", options.precision.map(|precision| precision.to_string())),
            ("max_device_memory", options.max_device_memory.map(|size| size.to_string())),
        ];
        let pairs = pairs.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let provider = options.provider.into_iter().map(|(name, value)| (format!("provider.{name}"), value));
        let of_kinds = options.texts.pairs().into_iter().chain(options.images.pairs());
        let of_kinds = of_kinds.map(|(name, value)| (name.to_owned(), value));
        pairs.chain(constants).chain(sizes).chain(provider).chain(of_kinds).collect()
    }
}

impl TryFrom<BTreeMap<String, String>> for ModelOptions {
    type Error = Error;

    fn try_from(pairs: BTreeMap<String, String>) -> Result<Self> {
        Self::from_pairs(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }
}
