//! How a job deals with what may go wrong, and how it cuts its work.

use std::collections::BTreeMap;
use std::time::Duration;

use datafusion_predict_udfs::nearest;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::byte_size::ByteSize;
use crate::error::{Error, Result, bail, error};
use crate::storage::redacted;

/// What becomes of a row that the model refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnRowError {
    /// The run fails.
    #[default]
    Fail,
    /// Its prediction is NULL.
    Null,
    /// It is not in the output, but in a file of its own, with the error.
    SetAside,
}

/// What becomes of an input file that can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFileError {
    /// The run fails.
    #[default]
    Fail,
    /// It is reported, and the others are scored.
    SetAside,
}

/// What a changed table that each split reads whole means for what was scored with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnLookupChange {
    /// All is scored again.
    #[default]
    Rescore,
    /// What was scored stays; new files are scored with the table as it is then.
    Keep,
}

/// `OPTIONS` of `CREATE JOB`, the format's own aside.
///
/// ```
/// use datafusion_predict::{JobOptions, OnRowError};
///
/// let mut options = JobOptions::default();
/// options.set("on_row_error", "set_aside")?;
/// options.set("timeout", "10m")?;
/// assert_eq!(options.on_row_error, OnRowError::SetAside);
/// assert!(options.set("retrys", "3").unwrap_err().to_string().contains("did you mean 'retries'?"));
/// # Ok::<(), datafusion_predict::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
#[non_exhaustive]
pub struct JobOptions {
    /// `on_row_error`: `fail`, `null` or `set_aside`.
    pub on_row_error: OnRowError,
    /// `on_file_error`: `fail` or `set_aside`.
    pub on_file_error: OnFileError,
    /// `error_threshold`: the share of rows, or of files, that may be set aside before the run fails; from 0 to 1. A job
    /// with a threshold publishes at the end of a run.
    pub error_threshold: Option<f64>,
    /// `retries`: how often a split is tried again after what may pass, such as a store that does not answer.
    pub retries: u32,
    /// `timeout`: how long one attempt at a split may take.
    pub timeout: Option<Duration>,
    /// `keep`: generations of the output that stay, the current one among them.
    pub keep: u32,
    /// `split_size`: bytes of input that are scored as one. Smaller files are grouped, larger ones cut, Parquet at row groups,
    /// into parts of 1 MB at least. By default it follows from the size of the input, and is 128 MB at most.
    pub split_size: Option<u64>,
    /// `one_split`: whether the query is run as one split, for those that can't be cut.
    pub one_split: bool,
    /// `on_lookup_change`: `rescore` or `keep`.
    pub on_lookup_change: OnLookupChange,
    /// `workers`: splits that one process scores at the same time; the number of cores by default.
    pub workers: Option<usize>,
    /// `lease`: how long a worker may be silent before others take over its splits.
    pub lease: Duration,
    /// `notify`: a URL that the summary of a run is posted to when it has ended, as JSON, signed with the secret in the
    /// environment variable `DATAFUSION_PREDICT_NOTIFY_SECRET` if there is one.
    pub notify: Option<String>,
}

impl Default for JobOptions {
    fn default() -> Self {
        Self {
            on_row_error: OnRowError::default(),
            on_file_error: OnFileError::default(),
            error_threshold: None,
            retries: 3,
            timeout: None,
            keep: 2,
            split_size: None,
            one_split: false,
            on_lookup_change: OnLookupChange::default(),
            workers: None,
            lease: Duration::from_secs(30),
            notify: None,
        }
    }
}

impl JobOptions {
    /// The names of all options.
    pub const NAMES: [&str; 12] = [
        "on_row_error",
        "on_file_error",
        "error_threshold",
        "retries",
        "timeout",
        "keep",
        "split_size",
        "one_split",
        "on_lookup_change",
        "workers",
        "lease",
        "notify",
    ];

    /// Sets the option `name`; `default` is its default again.
    ///
    /// # Errors
    /// An option that there is not, and a value that it can't have.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let wrong = |expected: &str| error!(InvalidOption, "option '{name}' is '{value}': expected {expected}");
        let word = value.to_ascii_lowercase();
        let time = || humantime::parse_duration(&word).map_err(|_| wrong("a duration, such as 30s or 10m"));
        let count = || word.parse::<u32>().map_err(|_| wrong("a whole number"));
        if word == "default" {
            return self.set_default(name);
        }
        match name {
            "on_row_error" => {
                self.on_row_error = match word.as_str() {
                    "fail" => OnRowError::Fail,
                    "null" => OnRowError::Null,
                    "set_aside" => OnRowError::SetAside,
                    _ => return Err(wrong("fail, null or set_aside")),
                }
            }
            "on_file_error" => {
                self.on_file_error = match word.as_str() {
                    "fail" => OnFileError::Fail,
                    "set_aside" => OnFileError::SetAside,
                    _ => return Err(wrong("fail or set_aside")),
                }
            }
            "on_lookup_change" => {
                self.on_lookup_change = match word.as_str() {
                    "rescore" => OnLookupChange::Rescore,
                    "keep" => OnLookupChange::Keep,
                    _ => return Err(wrong("rescore or keep")),
                }
            }
            "error_threshold" => {
                let share = word.parse().ok().filter(|share| (0.0..=1.0).contains(share));
                self.error_threshold = Some(share.ok_or_else(|| wrong("a share from 0 to 1, such as 0.01"))?);
            }
            "retries" => self.retries = count()?,
            "keep" => self.keep = Some(count()?).filter(|keep| *keep > 0).ok_or_else(|| wrong("a number from 1 on"))?,
            "timeout" => self.timeout = Some(time()?),
            "lease" => {
                let lease = Some(time()?).filter(|lease| *lease >= Duration::from_secs(1));
                self.lease = lease.ok_or_else(|| wrong("a duration from 1s on"))?;
            }
            "split_size" => {
                let size = word.parse::<ByteSize>().ok().filter(|size| size.0 > 0);
                self.split_size =
                    Some(size.ok_or_else(|| wrong("a number of bytes with k, m, g or t, such as 64m"))?.0);
            }
            "one_split" => self.one_split = word.parse().map_err(|_| wrong("true or false"))?,
            "workers" => {
                let workers = word.parse().ok().filter(|workers| *workers > 0);
                self.workers = Some(workers.ok_or_else(|| wrong("a number from 1 on"))?);
            }
            "notify" => {
                let url = Url::parse(value).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
                if url.is_none() {
                    return Err(wrong("a URL, as in https://host/path"));
                }
                if redacted(value) != value {
                    bail!(
                        InvalidOption,
                        "option 'notify' may hold credentials, which others read in the job's definition"
                    );
                }
                self.notify = Some(value.to_owned());
            }
            _ => return Err(unknown(name)),
        }
        Ok(())
    }

    fn set_default(&mut self, name: &str) -> Result<()> {
        if !Self::NAMES.contains(&name) {
            return Err(unknown(name));
        }
        let mut set = BTreeMap::from(self.clone());
        set.remove(name);
        *self = Self::try_from(set)?;
        Ok(())
    }

    /// Whether a run publishes all that it scores at its end, and not split by split.
    pub(crate) fn publishes_at_end(&self) -> bool {
        self.error_threshold.is_some()
    }
}

fn unknown(name: &str) -> Error {
    match nearest(name, JobOptions::NAMES) {
        Some(near) => error!(InvalidOption, "unknown option '{name}' of a job; did you mean '{near}'?"),
        None => {
            error!(InvalidOption, "unknown option '{name}' of a job; there are {}", JobOptions::NAMES.join(", "))
        }
    }
}

impl TryFrom<BTreeMap<String, String>> for JobOptions {
    type Error = Error;

    fn try_from(set: BTreeMap<String, String>) -> Result<Self> {
        let mut options = Self::default();
        for (name, value) in set {
            if value.eq_ignore_ascii_case("default") {
                bail!(InvalidOption, "option '{name}' has no value");
            }
            options.set(&name, &value)?;
        }
        Ok(options)
    }
}

/// The options that are not at their defaults, by their names.
impl From<JobOptions> for BTreeMap<String, String> {
    fn from(options: JobOptions) -> Self {
        let defaults = JobOptions::default();
        let mut set = Self::new();
        let mut put = |name: &str, differs: bool, value: String| {
            if differs {
                set.insert(name.to_owned(), value);
            }
        };
        let row = match options.on_row_error {
            OnRowError::Fail => "fail",
            OnRowError::Null => "null",
            OnRowError::SetAside => "set_aside",
        };
        put("on_row_error", options.on_row_error != defaults.on_row_error, row.to_owned());
        let file = if options.on_file_error == OnFileError::Fail { "fail" } else { "set_aside" };
        put("on_file_error", options.on_file_error != defaults.on_file_error, file.to_owned());
        let lookup = if options.on_lookup_change == OnLookupChange::Keep { "keep" } else { "rescore" };
        put("on_lookup_change", options.on_lookup_change != defaults.on_lookup_change, lookup.to_owned());
        let text = |value: Option<String>| (value.is_some(), value.unwrap_or_default());
        let (given, threshold) = text(options.error_threshold.map(|share| share.to_string()));
        put("error_threshold", given, threshold);
        put("retries", options.retries != defaults.retries, options.retries.to_string());
        let (given, timeout) = text(options.timeout.map(|time| humantime::format_duration(time).to_string()));
        put("timeout", given, timeout);
        put("keep", options.keep != defaults.keep, options.keep.to_string());
        let (given, size) = text(options.split_size.map(|size| size.to_string()));
        put("split_size", given, size);
        put("one_split", options.one_split, options.one_split.to_string());
        let (given, workers) = text(options.workers.map(|workers| workers.to_string()));
        put("workers", given, workers);
        let (given, url) = text(options.notify.clone());
        put("notify", given, url);
        put("lease", options.lease != defaults.lease, humantime::format_duration(options.lease).to_string());
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_kept_by_their_names() {
        let given = [
            ("error_threshold", "0.01"),
            ("keep", "3"),
            ("lease", "2s"),
            ("notify", "https://host/hook"),
            ("on_file_error", "set_aside"),
            ("on_lookup_change", "keep"),
            ("on_row_error", "null"),
            ("one_split", "true"),
            ("retries", "5"),
            ("split_size", "65536"),
            ("timeout", "1h"),
            ("workers", "2"),
        ];
        let set: BTreeMap<_, _> = given.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let mut options = JobOptions::try_from(set.clone()).expect("valid");
        assert_eq!(BTreeMap::from(options.clone()), set);
        assert_eq!(set.len(), JobOptions::NAMES.len());
        for name in JobOptions::NAMES {
            options.set(name, "DEFAULT").expect(name);
        }
        assert_eq!(options, JobOptions::default());
    }

    #[test]
    fn mistakes_say_what_was_expected() {
        let error = |name, value| JobOptions::default().set(name, value).expect_err(value).to_string();
        for (name, value, expected) in [
            ("on_row_error", "ignore", "expected fail, null or set_aside"),
            ("error_threshold", "2", "a share from 0 to 1"),
            ("timeout", "soon", "a duration, such as 30s or 10m"),
            ("split_size", "0", "such as 64m"),
            ("lease", "1ms", "from 1s on"),
            ("keep", "0", "from 1 on"),
            ("notify", "host", "as in https://host/path"),
            ("notify", "https://ana:pw@host/", "may hold credentials"),
            ("on_row_eror", "null", "did you mean 'on_row_error'?"),
        ] {
            assert!(error(name, value).contains(expected), "{}", error(name, value));
        }
    }
}
