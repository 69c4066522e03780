//! Runs the built shell.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The root of the repository, where the scripts and the models' paths start.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in a workspace").to_owned()
}

/// The shell, in the repository's root.
pub(crate) fn shell() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_datafusion-predict"));
    command.current_dir(root());
    command
}

/// What came of a run.
#[derive(Debug)]
#[allow(dead_code, reason = "each test file uses its part")]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("the shell writes UTF-8");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// Runs the shell with `arguments`.
#[allow(dead_code, reason = "each test file uses its part")]
pub(crate) fn run(arguments: &[&str]) -> Ran {
    shell().args(arguments).stdin(Stdio::null()).output().expect("the shell starts").into()
}

/// Runs the shell with `arguments` and `input` on its standard input.
#[allow(dead_code, reason = "each test file uses its part")]
pub(crate) fn run_with_input(arguments: &[&str], input: &str) -> Ran {
    let mut command = shell();
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the shell starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(input.as_bytes()).expect("the shell reads");
    drop(stdin);
    child.wait_with_output().expect("the shell ends").into()
}
