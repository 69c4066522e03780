//! One error for the library, and the only place where it becomes a [`DataFusionError`].

use std::error::Error as StdError;
use std::fmt;

use datafusion::error::DataFusionError;

/// A result of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn StdError + Send + Sync>;

/// What went wrong, and what caused it. [`Error::kind`] tells the situations apart.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    source: Option<Source>,
}

/// The situation that a user is in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No library of ONNX Runtime was found, or none that can be loaded.
    RuntimeMissing(String),
    /// The library of ONNX Runtime is too old, or no such library.
    RuntimeUnusable(String),
    /// A device was named that the engine does not have.
    DeviceMissing(String),
    /// The file or folder of a model can't be read.
    Unreadable(String),
    /// What was read is no model, or one that can't be used.
    InvalidModel(String),
    /// No model has this name.
    UnknownModel(String),
    /// A model has this name already.
    ModelExists(String),
    /// An option of a statement has a value that it can't have.
    InvalidOption(String),
    /// The number or the types of a call's arguments do not fit the model.
    InvalidArguments(String),
    /// A row can't be scored: this row's values are at fault.
    UnscorableRow(String),
    /// An engine gave something else than the model promised.
    InvalidOutput(String),
    /// An engine failed.
    EngineFailed(String),
    /// The query was dropped while a model ran.
    Cancelled(String),
    /// A statement of ours that can't be parsed or run.
    InvalidStatement(String),
}

impl ErrorKind {
    fn message(&self) -> &str {
        match self {
            Self::RuntimeMissing(message)
            | Self::RuntimeUnusable(message)
            | Self::DeviceMissing(message)
            | Self::Unreadable(message)
            | Self::InvalidModel(message)
            | Self::UnknownModel(message)
            | Self::ModelExists(message)
            | Self::InvalidOption(message)
            | Self::InvalidArguments(message)
            | Self::UnscorableRow(message)
            | Self::InvalidOutput(message)
            | Self::EngineFailed(message)
            | Self::Cancelled(message)
            | Self::InvalidStatement(message) => message,
        }
    }
}

impl Error {
    /// The situation.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// Names the cause, whose text is part of this error's.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The error of this library within `error`, if there is one.
    pub fn find(error: &DataFusionError) -> Option<&Error> {
        let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref::<Error>() {
                return Some(found);
            }
            cause = match error.downcast_ref::<DataFusionError>() {
                // `source()` of an external error skips the error itself
                Some(DataFusionError::External(inner)) => Some(inner.as_ref()),
                Some(DataFusionError::Shared(inner)) => Some(inner.as_ref()),
                _ => error.source(),
            };
        }
        None
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self { kind, source: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.message())?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        Self::External(Box::new(error))
    }
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        match error {
            DataFusionError::External(inner) => match inner.downcast::<Error>() {
                Ok(own) => *own,
                Err(inner) => Self::from(ErrorKind::EngineFailed("the query failed".into())).with_source(inner),
            },
            other => Self::from(ErrorKind::InvalidStatement("the statement failed".into())).with_source(other),
        }
    }
}

/// `Err` of a kind, with a formatted message: `bail!(UnknownModel, "unknown model '{name}'")`.
macro_rules! bail {
    ($kind:ident, $($message:tt)+) => {
        return Err($crate::error::Error::from($crate::error::ErrorKind::$kind(format!($($message)+))))
    };
}

/// An error of a kind, with a formatted message.
macro_rules! error {
    ($kind:ident, $($message:tt)+) => {
        $crate::error::Error::from($crate::error::ErrorKind::$kind(format!($($message)+)))
    };
}

pub(crate) use {bail, error};
