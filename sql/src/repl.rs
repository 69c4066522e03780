//! The shell in a terminal.

use std::fs;
use std::io::IsTerminal;
use std::path::PathBuf;

use clap::ColorChoice;
use datafusion::error::{DataFusionError, Result};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{ColorMode, CompletionType, Config, Editor};
use tokio::runtime::Runtime;

use crate::credentials;
use crate::input::{InputHelper, spoken};
use crate::message;
use crate::panics;
use crate::shell::{Flow, Shell};

type Line = Editor<InputHelper, FileHistory>;

const PROMPT: &str = "predict> ";
const GREEN_PROMPT: &str = "\x1b[1;32mpredict> \x1b[0m";
const HISTORY_SIZE: usize = 10_000;

/// Reads and runs input until its end. What goes wrong in it is printed, and the next may be better.
///
/// # Errors
/// The terminal.
pub(crate) fn run(front: &Runtime, shell: &mut Shell, color: ColorChoice) -> Result<()> {
    if !shell.printer.quiet {
        println!("datafusion-predict {}: \\? for help, \\h for SQL, \\q to quit", env!("CARGO_PKG_VERSION"));
    }
    let colors = match color {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => std::env::var_os("NO_COLOR").is_none() && std::io::stdout().is_terminal(),
    };
    let mut line = editor(shell, colors).map_err(terminal)?;
    let history = history_file();
    if let Some(path) = &history {
        // The first time there is none.
        let _ = line.load_history(path);
    }
    let prompt = (PROMPT, if colors { GREEN_PROMPT } else { PROMPT });
    loop {
        let escapes = shell.dialect().supports_string_literal_backslash_escape();
        if let Some(helper) = line.helper_mut() {
            helper.escapes = escapes;
        }
        let text = match line.readline(&prompt) {
            Ok(text) if text.trim().is_empty() => continue,
            Ok(text) => text,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(terminal(error)),
        };
        remember(&mut line, history.as_deref(), text.trim_end());
        if front.block_on(run_until_interrupt(shell, spoken(&text))) == Flow::Quit {
            return Ok(());
        }
    }
}

/// Ctrl-C drops what runs: the query's tasks are told to end, and nobody waits for them.
async fn run_until_interrupt(shell: &mut Shell, text: &str) -> Flow {
    let ended = tokio::select! {
        ended = panics::caught(shell.run_script(text, None)) => Some(ended),
        _ = tokio::signal::ctrl_c() => None,
    };
    match ended {
        Some(Ok(flow)) => return flow,
        Some(Err(error)) => eprintln!("error: {}", message::of(&error)),
        None => eprintln!("cancelled"),
    }
    shell.recover();
    Flow::Continue
}

fn terminal(error: ReadlineError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn editor(shell: &Shell, colors: bool) -> rustyline::Result<Line> {
    let config = Config::builder()
        .max_history_size(HISTORY_SIZE)?
        .history_ignore_dups(true)?
        .completion_type(CompletionType::List)
        .color_mode(if colors { ColorMode::Enabled } else { ColorMode::Disabled })
        .build();
    let mut line = Editor::with_config(config)?;
    line.set_helper(Some(InputHelper::new(shell.context.clone(), shell.predict.clone(), colors)));
    Ok(line)
}

/// In the user's data folder, which is made where it is missing; none where that can't be.
fn history_file() -> Option<PathBuf> {
    let folder = dirs::data_dir()?.join("datafusion-predict");
    fs::create_dir_all(&folder).ok()?;
    Some(folder.join("history"))
}

/// Each input is kept at once: a shell may be killed.
fn remember(line: &mut Line, history: Option<&std::path::Path>, text: &str) {
    if credentials::may_be_in(text) {
        return;
    }
    let added = line.add_history_entry(text);
    if let (Ok(true), Some(path)) = (added, history) {
        // A history that can't be written is missed later, but stops nobody now.
        let _ = line.append_history(path);
    }
}
