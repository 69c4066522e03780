//! How a column of bytes becomes a list of a size that a model wants.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result, bail};

/// Which bytes of a longer value are given to a model that takes a fixed number of them; a shorter value is padded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BytesTaken {
    /// The first ones; what is missing is padded behind.
    First,
    /// The last ones; what is missing is padded before.
    Last,
    /// As many of the first as of the last, each padded as if it stood alone.
    Ends,
}

impl fmt::Display for BytesTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "first",
            Self::Last => "last",
            Self::Ends => "ends",
        })
    }
}

impl FromStr for BytesTaken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_lowercase().as_str() {
            "first" => Ok(Self::First),
            "last" => Ok(Self::Last),
            "ends" => Ok(Self::Ends),
            _ => bail!(InvalidOption, "option 'bytes' is '{text}': expected 'first', 'last' or 'ends'"),
        }
    }
}
