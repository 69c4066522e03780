//! Tells what went wrong with a split: whether it may pass, whether its files are at fault, or neither.

use datafusion::common::DataFusionError;

use crate::error::{Error, ErrorKind, error};

/// What went wrong with a split.
#[derive(Debug)]
pub(super) enum Failure {
    /// It may pass.
    Transient(Error),
    /// Input that can't be read.
    Input(Error),
    /// All else: a row, a model, the output.
    Final(Error),
}

impl Failure {
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Transient(error) | Self::Input(error) | Self::Final(error) => error,
        }
    }
}

/// The error, without DataFusion's words around ours.
pub(super) fn error_of(error: &DataFusionError) -> Error {
    if let Some(ours) = Error::find(error) {
        return ours.clone();
    }
    let text = error.find_root().strip_backtrace();
    let mut text = text.as_str();
    while let Some(rest) = text.strip_prefix("Parquet error: ").filter(|rest| rest.starts_with("Parquet error: ")) {
        text = rest; // which each layer adds
    }
    error!(RunFailed, "{text}")
}

/// An error of the query of a split.
pub(super) fn of_query(cause: &DataFusionError) -> Failure {
    if let Some(ours) = Error::find(cause) {
        return match ours.kind() {
            ErrorKind::Unreadable => Failure::Transient(ours.clone()), // a model that can't be fetched now
            _ => Failure::Final(ours.clone()),
        };
    }
    let error = error_of(cause);
    if let DataFusionError::ResourcesExhausted(_) = cause.find_root() {
        return Failure::Final(error);
    }
    if may_pass(cause) { Failure::Transient(error) } else { Failure::Input(error) }
}

/// An error of writing the rows of a split.
pub(super) fn of_writing(cause: &DataFusionError, path: &str) -> Failure {
    let error = error!(Unreadable, "'{path}' can't be written").with_source(error_of(cause));
    if may_pass(cause) { Failure::Transient(error) } else { Failure::Final(error) }
}

/// Whether the same might go well a little later: stores that do not answer, and connections that break.
pub(super) fn may_pass(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, NotConnected, TimedOut,
        UnexpectedEof, WouldBlock,
    };
    let mut cause = Some(error);
    let mut store = false;
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return matches!(
                io.kind(),
                BrokenPipe
                    | ConnectionAborted
                    | ConnectionRefused
                    | ConnectionReset
                    | Interrupted
                    | NotConnected
                    | TimedOut
                    | WouldBlock
            ) || (store && io.kind() == UnexpectedEof);
        }
        match error.downcast_ref::<object_store::Error>() {
            Some(object_store::Error::Generic { .. }) => store = true,
            Some(_) => return false,
            None => {}
        }
        cause = match error.downcast_ref::<DataFusionError>() {
            // `source()` of an external error skips the error itself.
            Some(DataFusionError::External(inner)) => Some(inner.as_ref()),
            Some(DataFusionError::Shared(inner)) => Some(inner.as_ref()),
            Some(DataFusionError::ObjectStore(inner)) => Some(inner.as_ref()),
            Some(DataFusionError::IoError(inner)) => Some(inner),
            Some(DataFusionError::ParquetError(inner)) => match inner.as_ref() {
                datafusion::parquet::errors::ParquetError::External(inner) => Some(inner.as_ref()),
                _ => None,
            },
            _ => error.source(),
        };
    }
    store
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_may_pass_is_told_from_what_will_not() {
        let io = |kind| DataFusionError::IoError(std::io::Error::from(kind));
        let store = |error| DataFusionError::ObjectStore(Box::new(error));
        let generic = |source: Box<dyn std::error::Error + Send + Sync>| {
            store(object_store::Error::Generic { store: "S3", source })
        };
        assert!(may_pass(&generic("503 Slow Down".into())));
        assert!(may_pass(&io(std::io::ErrorKind::ConnectionReset)));
        assert!(may_pass(&DataFusionError::Shared(Arc::new(generic("no answer".into())))));
        assert!(!may_pass(&generic(Box::new(std::io::Error::from(std::io::ErrorKind::StorageFull)))));
        assert!(!may_pass(&generic(Box::new(std::io::Error::from(std::io::ErrorKind::ReadOnlyFilesystem)))));
        assert!(!may_pass(&store(object_store::Error::Precondition { path: "a".into(), source: "changed".into() })));
        assert!(!may_pass(&DataFusionError::Execution("a row".into())));
    }
}
