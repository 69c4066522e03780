//! Editing a statement: when it is whole, its colors, and what Tab does.

use std::borrow::Cow;
use std::sync::Arc;

use datafusion::prelude::SessionContext;
use datafusion_cli::highlighter::SyntaxHighlighter;
use datafusion_predict::PredictRuntime;
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper, Result};

use crate::completion::{Completions, complete};
use crate::script::Script;

/// Helps rustyline with SQL.
pub(crate) struct InputHelper {
    context: SessionContext,
    predict: Arc<PredictRuntime>,
    files: FilenameCompleter,
    colors: Option<SyntaxHighlighter>,
    /// Whether a backslash escapes a quote.
    pub escapes: bool,
}

impl InputHelper {
    pub(crate) fn new(context: SessionContext, predict: Arc<PredictRuntime>, colors: bool) -> Self {
        let dialect = context.state_ref().read().config_options().sql_parser.dialect;
        let colors = colors.then(|| SyntaxHighlighter::new(&dialect));
        Self { context, predict, files: FilenameCompleter::new(), colors, escapes: false }
    }
}

/// The command behind a word that other shells know: `quit`, `exit`, `help`.
pub(crate) fn spoken(text: &str) -> &str {
    match text.trim().trim_end_matches(';').to_lowercase().as_str() {
        "quit" | "exit" => "\\q",
        "help" => "\\?",
        _ => text,
    }
}

impl Helper for InputHelper {}

impl Hinter for InputHelper {
    type Hint = String;
}

impl Validator for InputHelper {
    /// Enter starts a new line until the statement has its semicolon. What is wrong in it is an error later, which
    /// leaves it in the history.
    fn validate(&self, context: &mut ValidationContext<'_>) -> Result<ValidationResult> {
        let input = spoken(context.input());
        Ok(if Script::is_complete(input, self.escapes) {
            ValidationResult::Valid(None)
        } else {
            ValidationResult::Incomplete
        })
    }
}

impl Highlighter for InputHelper {
    fn highlight<'l>(&self, line: &'l str, position: usize) -> Cow<'l, str> {
        match &self.colors {
            Some(colors) if !line.starts_with('\\') => colors.highlight(line, position),
            _ => Cow::Borrowed(line),
        }
    }

    fn highlight_char(&self, line: &str, position: usize, kind: CmdKind) -> bool {
        self.colors.as_ref().is_some_and(|colors| colors.highlight_char(line, position, kind))
    }
}

impl Completer for InputHelper {
    type Candidate = Pair;

    fn complete(&self, line: &str, position: usize, context: &Context<'_>) -> Result<(usize, Vec<Pair>)> {
        match complete(&self.context, &self.predict, line, position) {
            Completions::Files => self.files.complete(line, position, context),
            Completions::Words(start, words) => {
                let pairs = words.into_iter().map(|word| Pair { display: word.clone(), replacement: word });
                Ok((start, pairs.collect()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::spoken;

    #[test]
    fn words_of_other_shells_are_commands() {
        assert_eq!((spoken("exit"), spoken(" QUIT; "), spoken("help")), ("\\q", "\\q", "\\?"));
        assert_eq!(spoken("SELECT exit FROM t;"), "SELECT exit FROM t;");
    }
}
