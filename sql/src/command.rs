//! Commands: `\d`, `\models`, `\timing` …

use std::io::{self, Write};
use std::str::FromStr;

use datafusion::common::{exec_datafusion_err, exec_err};
use datafusion::error::{DataFusionError, Result};
use datafusion_cli::functions::{Function, display_all_functions};
use datafusion_cli::print_format::PrintFormat;

use crate::args::{FORMATS, format_of};
use crate::help::{COMMANDS, MODELS, is_about_models};
use crate::shell::{Flow, Shell};

/// One command, its name without the backslash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Quit,
    Help,
    Tables,
    Describe(String),
    Models,
    Timing(Option<bool>),
    Format(Option<String>),
    Quiet(Option<bool>),
    Statements,
    Statement(String),
    Include(String),
}

/// The names of all commands.
pub(crate) const NAMES: [&str; 10] = ["d", "models", "timing", "format", "quiet", "pset", "i", "h", "?", "q"];

impl FromStr for Command {
    type Err = DataFusionError;

    fn from_str(line: &str) -> Result<Self> {
        let line = line.trim().trim_end_matches(';').trim_end();
        let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let argument = argument.trim();
        Ok(match (name, argument) {
            ("q" | "quit", "") => Self::Quit,
            ("?" | "help", "") => Self::Help,
            ("d", "") => Self::Tables,
            ("d", table) => Self::Describe(table.to_owned()),
            ("models", "") => Self::Models,
            ("timing", switch) => Self::Timing(parse_switch(switch)?),
            ("quiet", switch) => Self::Quiet(parse_switch(switch)?),
            ("format", format) => Self::Format((!format.is_empty()).then(|| format.to_owned())),
            ("pset", "" | "format") => Self::Format(None),
            ("pset", option) => match option.split_once(char::is_whitespace) {
                Some(("format", format)) => Self::Format(Some(format.trim().to_owned())),
                _ => return exec_err!(r"unknown option in '\pset {option}': there is 'format'"),
            },
            ("h", "") => Self::Statements,
            ("h", statement) => Self::Statement(statement.to_owned()),
            ("i", "") => return exec_err!(r"expected the name of a file: \i FILE"),
            ("i", file) => Self::Include(file.to_owned()),
            (name, "") => return exec_err!(r"unknown command '\{name}': \? lists the commands"),
            (name, argument) => return exec_err!(r"unknown command '\{name} {argument}': \? lists the commands"),
        })
    }
}

fn parse_switch(word: &str) -> Result<Option<bool>> {
    match word.to_ascii_lowercase().as_str() {
        "" => Ok(None),
        "on" | "true" | "t" | "yes" | "y" => Ok(Some(true)),
        "off" | "false" | "f" | "no" | "n" => Ok(Some(false)),
        _ => exec_err!("expected on or off, got '{word}'"),
    }
}

/// Runs `command`.
///
/// # Errors
/// What it names is not there.
pub(crate) async fn run(shell: &mut Shell, command: Command) -> Result<Flow> {
    match command {
        Command::Quit => return Ok(Flow::Quit),
        Command::Help => io::stdout().write_all(COMMANDS.as_bytes())?,
        Command::Tables => shell.run_sql("SHOW TABLES").await?,
        Command::Describe(table) => shell.run_sql(&format!("SHOW COLUMNS FROM {table}")).await?,
        Command::Models => shell.run_sql("SHOW MODELS").await?,
        // Without an argument it changes to the other, as in psql.
        Command::Timing(switch) => {
            shell.printer.timing = switch.unwrap_or(!shell.printer.timing);
            say("timing", shell.printer.timing);
        }
        Command::Quiet(switch) => {
            shell.printer.quiet = switch.unwrap_or(shell.printer.quiet);
            say("quiet", shell.printer.quiet);
        }
        Command::Format(None) => eprintln!("format is {}", name_of(shell.printer.format)),
        Command::Format(Some(name)) => {
            let Some(format) = format_of(&name) else {
                let known = FORMATS.map(|(name, _)| name).join(", ");
                return exec_err!("unknown format '{name}': there are {known}");
            };
            shell.printer.format = format;
            eprintln!("format is {}", name_of(format));
        }
        Command::Statements => {
            display_all_functions()?;
            io::stdout().write_all(MODELS.as_bytes())?;
        }
        Command::Statement(name) if is_about_models(&name) => io::stdout().write_all(MODELS.as_bytes())?,
        Command::Statement(name) => {
            let statement: Function = name.parse().map_err(|_| {
                exec_datafusion_err!(r"nothing is known of the statement '{name}': \h lists those with a text")
            })?;
            writeln!(io::stdout(), "{}", statement.function_details()?)?;
        }
        Command::Include(path) => return shell.include(&path).await,
    }
    Ok(Flow::Continue)
}

fn say(what: &str, on: bool) {
    eprintln!("{what} is {}", if on { "on" } else { "off" });
}

fn name_of(format: PrintFormat) -> &'static str {
    FORMATS.iter().find(|(_, known)| *known == format).map_or("unknown", |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Command {
        line.parse().expect(line)
    }

    #[test]
    fn commands_take_arguments() {
        assert_eq!(parse("q"), Command::Quit);
        assert_eq!(parse("d;"), Command::Tables);
        assert_eq!(parse("d  my.table "), Command::Describe("my.table".to_owned()));
        assert_eq!(parse("timing OFF"), Command::Timing(Some(false)));
        assert_eq!(parse("pset format csv"), parse("format csv"));
    }

    #[test]
    fn mistakes_are_explained() {
        for (line, expected) in [
            ("modles", r"unknown command '\modles': \? lists the commands"),
            ("q now", r"unknown command '\q now': \?"),
            ("timing maybe", "expected on or off, got 'maybe'"),
            ("pset border 2", "there is 'format'"),
            ("i", r"\i FILE"),
        ] {
            let error = line.parse::<Command>().expect_err(line).to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn every_command_is_in_the_help() {
        for name in NAMES {
            assert!(COMMANDS.contains(&format!(r"\{name}")), "{name}");
        }
    }
}
