//! Session options under the prefix `predict`.

use std::fmt;

use datafusion::common::config::{ConfigExtension, ConfigField, Visit};
use datafusion::common::{Result, config_err, extensions_options};
use datafusion::config::ConfigOptions;

extensions_options! {
    /// Options of a session: `SET predict.batch_size = 4096`.
    pub struct PredictConfig {
        /// Rows for each run of a model; 0 leaves the choice to the model.
        pub batch_size: usize, default = 0
        /// The engine that runs models: `native`, `onnxruntime` or another by its name; `auto` is the first that can.
        pub engine: String, default = PredictConfig::AUTO.to_owned()
        /// Whether calls become nodes of the plan that score each row once; off, they stay functions.
        pub extract: bool, default = true
        /// Memory that loaded models may take before the least recently used are unloaded, such as `2g`; 0 is no limit.
        /// It belongs to the process: the session whose statement came last decides.
        pub model_memory: ByteSize, default = ByteSize(0)
        /// Disk that models fetched from afar may take, before the least recently used are removed.
        pub cache_size: ByteSize, default = ByteSize(10 << 30)
        /// The largest file of a model that is fetched from afar.
        pub download_limit: ByteSize, default = ByteSize(8 << 30)
    }
}

impl ConfigExtension for PredictConfig {
    const PREFIX: &'static str = "predict";
}

impl PredictConfig {
    /// The engine's name that leaves the choice to the model.
    pub(crate) const AUTO: &str = "auto";

    /// The session's options, or the defaults where none were registered.
    pub(crate) fn of(options: &ConfigOptions) -> Self {
        options.extensions.get::<Self>().cloned().unwrap_or_default()
    }
}

/// A number of bytes, written with a unit: `512m`, `4 GiB`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Units and the powers of 2 that they are.
const UNITS: [(&str, u32); 5] = [("t", 40), ("g", 30), ("m", 20), ("k", 10), ("", 0)];

impl std::str::FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let lower = text.trim().to_ascii_lowercase();
        let digits = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
        let (number, unit) = lower.split_at(digits);
        let unit = unit.trim();
        let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(unit);
        let shift = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, shift)| *shift);
        let bytes = match (number.parse::<u64>(), shift) {
            (Ok(number), Some(shift)) => number.checked_mul(1 << shift),
            _ => None,
        };
        bytes
            .map(Self)
            .ok_or_else(|| format!("expected a number of bytes with k, m, g or t, such as 512m, found '{text}'"))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = self;
        let unit = UNITS.iter().find(|(_, shift)| *bytes > 0 && bytes.trailing_zeros() >= *shift);
        let (unit, shift) = unit.unwrap_or(&("", 0));
        write!(f, "{}{unit}", bytes >> shift)
    }
}

impl ConfigField for ByteSize {
    fn visit<V: Visit>(&self, visitor: &mut V, key: &str, description: &'static str) {
        visitor.some(key, self, description);
    }

    fn set(&mut self, _key: &str, value: &str) -> Result<()> {
        match value.parse() {
            Ok(size) => *self = size,
            Err(problem) => return config_err!("{problem}"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes, shown) in [
            ("512", 512, "512"),
            ("2 K", 2048, "2k"),
            ("4GiB", 4 << 30, "4g"),
            ("1536m", 1536 << 20, "1536m"),
            ("0", 0, "0"),
        ] {
            let size: ByteSize = text.parse().expect(text);
            assert_eq!((size.0, size.to_string().as_str()), (bytes, shown));
        }
        for wrong in ["", "g", "-1g", "1x", "99999999999t"] {
            assert!(wrong.parse::<ByteSize>().is_err(), "{wrong}");
        }
    }
}
