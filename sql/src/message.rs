//! What a user reads of an error.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion_predict::Error;

/// An error, and the place in a file where it is.
#[derive(Debug)]
struct Placed {
    place: String,
    error: DataFusionError,
}

impl fmt::Display for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, of(&self.error))
    }
}

impl StdError for Placed {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.error)
    }
}

/// Says that `error` is at `place`.
pub(crate) fn at(place: String, error: DataFusionError) -> DataFusionError {
    DataFusionError::External(Box::new(Placed { place, error }))
}

/// The text of `error`, after its place.
pub(crate) fn of(error: &DataFusionError) -> String {
    match error {
        DataFusionError::External(inner) if inner.is::<Placed>() => inner.to_string(),
        error => text(error),
    }
}

/// The text of `error`: ours alone if there is one within, else DataFusion's without its prefixes.
fn text(error: &DataFusionError) -> String {
    if let Some(ours) = Error::find(error) {
        return ours.to_string();
    }
    match error.find_root() {
        DataFusionError::SQL(error, _) => match error.as_ref() {
            ParserError::ParserError(text) | ParserError::TokenizerError(text) => format!("SQL: {text}"),
            ParserError::RecursionLimitExceeded => "SQL: the statement is nested too deeply".to_owned(),
        },
        // Its text says whom to tell.
        internal @ DataFusionError::Internal(_) => internal.strip_backtrace(),
        DataFusionError::Collection(errors) => errors.iter().map(text).collect::<Vec<_>>().join("\n"),
        root => of_arguments(&strip_backtrace(&root.message())).to_owned(),
    }
}

/// The message of a function that refuses its arguments, without the sentences that DataFusion puts before and behind it.
fn of_arguments(text: &str) -> &str {
    let Some((_, said)) = text.split_once("user-defined coercion failed with: ") else { return text };
    let said = said.split_once(" No function matches the given name").map_or(said, |(said, _)| said);
    let said = said.split_once("Error during planning: ").map_or(said, |(_, said)| said);
    said.strip_suffix('.').unwrap_or(said)
}

fn strip_backtrace(text: &str) -> String {
    text.split(DataFusionError::BACK_TRACE_SEP).next().unwrap_or(text).to_owned()
}

/// Whether standard output was closed.
pub(crate) fn is_broken_pipe(error: &DataFusionError) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            return true;
        }
        cause = match error.downcast_ref::<DataFusionError>() {
            // Their `source()` is the cause of the error within, not that error.
            Some(DataFusionError::IoError(inner)) => Some(inner),
            Some(DataFusionError::External(inner)) => Some(inner.as_ref()),
            Some(DataFusionError::ArrowError(inner, _)) => Some(inner.as_ref()),
            _ => error.source(),
        };
    }
    false
}
