//! The error of this library, and the only place where it becomes DataFusion's.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use datafusion::error::DataFusionError;
use datafusion_predict_native as native;

/// A result of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn StdError + Send + Sync>;

/// What went wrong, and what caused it. [`Error::kind`] tells the situations apart.
///
/// A clone is for another who waited for the same thing.
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
    /// What follows message and source.
    note: Option<String>,
    /// The version of a model that it is about, where something can be done about that.
    subject: Option<String>,
}

/// The situation that a user is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No library of ONNX Runtime was found, or none that can be loaded.
    OnnxRuntimeMissing,
    /// The library of ONNX Runtime is too old, or no such library.
    OnnxRuntimeUnusable,
    /// A device was named that the engine does not have.
    DeviceMissing,
    /// The file or folder of a model can't be read.
    Unreadable,
    /// What was read is no model, or one that can't be used.
    InvalidModel,
    /// No model has this name.
    UnknownModel,
    /// A model has this name already.
    ModelExists,
    /// An option of a statement has a value that it can't have.
    InvalidOption,
    /// The number or the types of a call's arguments do not fit the model.
    InvalidArguments,
    /// A row can't be scored: this row's values are at fault.
    UnscorableRow,
    /// An engine gave something else than the model promised.
    InvalidOutput,
    /// An engine failed.
    EngineFailed,
    /// The query was dropped while a model ran.
    Cancelled,
    /// A run took longer than the model's option `max_run` allows.
    RunTooLong,
    /// The types of a model's calls are known once it is loaded, and it is not yet.
    NotLoaded,
    /// A statement of ours that can't be parsed or run.
    InvalidStatement,
    /// A catalog is damaged, or of a newer format.
    InvalidCatalog,
    /// No job has this name.
    UnknownJob,
    /// A job has this name already.
    JobExists,
    /// A query that can't be run as a job.
    InvalidJob,
    /// A run of a job has failed.
    RunFailed,
}

impl Error {
    /// An error of a kind; `message` names the model and what was expected and found, in lower case, without full stop.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None, note: None, subject: None }
    }

    /// The situation.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Says which model it is about.
    #[must_use]
    pub(crate) fn of_model(mut self, label: &str) -> Self {
        self.message = format!("model '{label}': {}", self.message);
        self
    }

    /// Remembers which version of a model it is about, which its text says already.
    #[must_use]
    pub(crate) fn about(mut self, label: &str) -> Self {
        self.subject = Some(label.to_owned());
        self
    }

    /// The version of a model that it is about, if that is known.
    pub(crate) fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// Says what it is in, as in `catalog 'models'`.
    #[must_use]
    pub(crate) fn within(mut self, name: &str) -> Self {
        self.message = format!("{name}: {}", self.message);
        self
    }

    /// Says why other engines were passed by before this error.
    #[must_use]
    pub(crate) fn after(mut self, refusals: &[String]) -> Self {
        if !refusals.is_empty() {
            let note = self.note.take().map(|note| format!("{note}; ")).unwrap_or_default();
            self.note = Some(format!("{note}not run by {}", refusals.join("; ")));
        }
        self
    }

    /// Says what follows from it.
    #[must_use]
    pub(crate) fn with_note(mut self, note: Option<&str>) -> Self {
        self.note = note.map(str::to_owned);
        self
    }

    /// Names the cause, whose text is part of this error's.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(Arc::from(source.into()));
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

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        match &self.note {
            Some(note) => write!(f, "; {note}"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<native::Error> for Error {
    fn from(error: native::Error) -> Self {
        let kind = match error.kind() {
            native::ErrorKind::Unreadable => ErrorKind::Unreadable,
            native::ErrorKind::InvalidModel => ErrorKind::InvalidModel,
            native::ErrorKind::Cancelled => ErrorKind::Cancelled,
            native::ErrorKind::RunFailed => ErrorKind::EngineFailed,
            _ => ErrorKind::InvalidOutput, // of a later release: no row's fault
        };
        let (message, source) = error.into_parts();
        Self { source: source.map(Arc::from), ..Self::new(kind, message) }
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
                Err(inner) => Self::new(ErrorKind::EngineFailed, "the query failed").with_source(inner),
            },
            other => Self::new(ErrorKind::InvalidStatement, "the statement failed").with_source(other),
        }
    }
}

/// `Err` of a kind, with a formatted message: `bail!(UnknownModel, "unknown model '{name}'")`.
macro_rules! bail {
    ($kind:ident, $($message:tt)+) => {
        return Err($crate::error::Error::new($crate::error::ErrorKind::$kind, format!($($message)+)))
    };
}

/// An error of a kind, with a formatted message.
macro_rules! error {
    ($kind:ident, $($message:tt)+) => {
        $crate::error::Error::new($crate::error::ErrorKind::$kind, format!($($message)+))
    };
}

pub(crate) use {bail, error};
