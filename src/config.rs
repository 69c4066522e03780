//! Session options under the prefix `predict`.

use std::any::Any;
use std::sync::Arc;

use datafusion::common::Result as DFResult;
use datafusion::common::config::{ConfigEntry, ConfigExtension, ExtensionOptions};
use datafusion::config::ConfigOptions;
use datafusion_predict_udfs::nearest;

use crate::byte_size::ByteSize;
use crate::cancel::CancelToken;
use crate::engine;
use crate::error::{Result, bail, error};

/// Options of a session: `SET predict.batch_size = 4096`. `SHOW predict.batch_size` and `information_schema.df_settings`
/// give them back.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PredictConfig {
    /// Rows for each run of a model; 0 leaves the choice to the model.
    pub batch_size: usize,
    /// The engine that runs models: `native`, `onnxruntime` or another by its name; `auto` is the first that can.
    pub engine: String,
    /// Lifts calls into nodes of the plan, which score each row once. When it is off, calls stay functions.
    pub extract: bool,
    /// Moves such a node below joins, where fewer rows are scored there.
    pub place_by_rows: bool,
    /// Bytes of features and predictions that one prediction of a query may have under way, over all its partitions, such as
    /// `512m`; 0 is no limit. Batches are made smaller to fit; one row always runs.
    pub bytes_in_flight: ByteSize,
    /// Bytes on disk for what models have scored whose rows cost more than to look them up, such as `10g`; 0 keeps nothing. The
    /// option `remember` of a model goes before.
    pub remember: ByteSize,
    /// Bytes of a file that `read_blob` and `files` read, at most.
    pub largest_blob: ByteSize,
    /// Ends the calls of the session's queries that are made as functions. No option: see `PredictSql::cancel_calls_with`.
    pub(crate) cancel: CancelToken,
    /// The names that `engine` can have; any, if none were registered.
    engines: Arc<[String]>,
}

impl Default for PredictConfig {
    fn default() -> Self {
        Self {
            batch_size: 0,
            engine: engine::AUTO.to_owned(),
            extract: true,
            place_by_rows: true,
            bytes_in_flight: ByteSize(256 << 20),
            remember: ByteSize(0),
            largest_blob: ByteSize(256 << 20),
            cancel: CancelToken::default(),
            engines: Arc::new([]),
        }
    }
}

impl ConfigExtension for PredictConfig {
    const PREFIX: &'static str = "predict";
}

impl PredictConfig {
    /// The options, each with what it does.
    const OPTIONS: [(&str, &str); 7] = [
        ("batch_size", "Rows for each run of a model; 0 leaves the choice to the model"),
        ("engine", "The engine that runs models: native, onnxruntime or another; auto is the first that can"),
        ("extract", "Whether calls become nodes of the plan that score each row once; off, they stay functions"),
        ("place_by_rows", "Whether such a node is moved to the side of a join where fewer rows are scored"),
        ("bytes_in_flight", "Bytes of features and predictions that one prediction of a query may have under way"),
        ("remember", "Bytes on disk for what models have scored, which is not scored again; 0 keeps nothing"),
        ("largest_blob", "Bytes of a file that read_blob and files read, at most"),
    ];

    /// The session's options, or the defaults where none were registered.
    pub(crate) fn of(options: &ConfigOptions) -> Self {
        options.extensions.get::<Self>().cloned().unwrap_or_default()
    }

    /// Refuses other engines than these, from now on.
    pub(crate) fn with_engines<'a>(self, names: impl Iterator<Item = &'a str>) -> Self {
        Self { engines: names.map(str::to_owned).collect(), ..self }
    }

    fn value(&self, option: &str) -> Option<String> {
        Some(match option {
            "batch_size" => self.batch_size.to_string(),
            "engine" => self.engine.clone(),
            "extract" => self.extract.to_string(),
            "place_by_rows" => self.place_by_rows.to_string(),
            "bytes_in_flight" => self.bytes_in_flight.to_string(),
            "remember" => self.remember.to_string(),
            "largest_blob" => self.largest_blob.to_string(),
            _ => return None,
        })
    }

    fn set_option(&mut self, option: &str, value: &str) -> Result<()> {
        let wrong = |expected: &str| error!(InvalidOption, "predict.{option} is '{value}': expected {expected}");
        let yes_or_no = || match value.to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(wrong("true or false")),
        };
        let bytes =
            || value.parse::<ByteSize>().map_err(|_| wrong("a number of bytes with k, m, g or t, such as 512m"));
        match option {
            "batch_size" => {
                self.batch_size =
                    value.parse().map_err(|_| wrong("a number of rows, or 0 to leave the choice to the model"))?;
            }
            "engine" => self.engine = self.known_engine(value)?,
            "extract" => self.extract = yes_or_no()?,
            "place_by_rows" => self.place_by_rows = yes_or_no()?,
            "bytes_in_flight" => self.bytes_in_flight = bytes()?,
            "remember" => self.remember = bytes()?,
            "largest_blob" => self.largest_blob = bytes()?,
            "model_memory" | "onnxruntime_memory" | "cache_size" | "download_limit" => bail!(
                InvalidOption,
                "predict.{option} belongs to the process, not to a session: start the shell with --{}, or set it on PredictRuntime::builder()",
                option.replace('_', "-")
            ),
            unknown => {
                let names = Self::OPTIONS.map(|(name, _)| name);
                match nearest(unknown, names) {
                    Some(near) => {
                        bail!(InvalidOption, "there is no option predict.{unknown}; did you mean predict.{near}?")
                    }
                    None => {
                        let names = names.map(|name| format!("predict.{name}"));
                        bail!(InvalidOption, "there is no option predict.{unknown}: there are {}", names.join(", "))
                    }
                }
            }
        }
        Ok(())
    }

    fn known_engine(&self, name: &str) -> Result<String> {
        let known = std::iter::once(engine::AUTO).chain(self.engines.iter().map(String::as_str));
        let known: Vec<_> = known.collect();
        match known.iter().find(|known| known.eq_ignore_ascii_case(name)) {
            Some(known) => Ok((*known).to_owned()),
            None if self.engines.is_empty() => Ok(name.to_owned()),
            None => bail!(InvalidOption, "predict.engine is '{name}': expected {}", known.join(", ")),
        }
    }
}

impl ExtensionOptions for PredictConfig {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, value: &str) -> DFResult<()> {
        Ok(self.set_option(&key.to_ascii_lowercase(), value)?)
    }

    /// With the prefix, by which SHOW finds them.
    fn entries(&self) -> Vec<ConfigEntry> {
        let entry = |(option, description): (&str, &'static str)| ConfigEntry {
            key: format!("{}.{option}", Self::PREFIX),
            value: self.value(option),
            description,
        };
        Self::OPTIONS.into_iter().map(entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked_when_they_are_set() {
        let mut config = PredictConfig::default().with_engines(["native", "onnxruntime"].into_iter());
        for (option, value, expected) in [
            ("engine", "tensorflow", "predict.engine is 'tensorflow': expected auto, native, onnxruntime"),
            ("batch_size", "a", "expected a number of rows, or 0 to leave the choice to the model"),
            ("extract", "maybe", "expected true or false"),
            ("bytes_in_flight", "big", "expected a number of bytes with k, m, g or t, such as 512m"),
            ("cache_size", "1g", "start the shell with --cache-size"),
            ("bach_size", "1", "did you mean predict.batch_size?"),
            ("colour", "red", "there are predict.batch_size, predict.engine"),
        ] {
            let error = config.set(option, value).expect_err(option).to_string();
            assert!(error.contains(expected), "{error}");
        }
        for entry in config.entries() {
            let option = entry.key.strip_prefix("predict.").expect("the prefix");
            config.set(option, &entry.value.expect("a value")).expect("what is shown can be set");
        }
    }
}
