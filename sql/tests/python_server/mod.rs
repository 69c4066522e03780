//! Servers of others, in Python, on free ports of loopback; they end with the test that started them.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::common::root;

/// A server in Python, of `tests/servers`, with the packages that `make servers` installs.
pub(crate) struct PythonServer {
    process: Child,
    /// The line that it printed when it was ready.
    pub(crate) line: String,
}

impl PythonServer {
    pub(crate) fn start(script: &str, arguments: &[&str]) -> Self {
        let packages = packages();
        assert!(packages.is_dir(), "the packages of the servers are not there: run `make servers`");
        let mut process = Command::new("python3")
            .env("PYTHONPATH", packages)
            .arg(root().join("tests/servers").join(script))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Python starts");
        let mut line = String::new();
        let stdout = process.stdout.as_mut().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line when it is ready");
        assert!(!line.is_empty(), "{script} has ended: {:?}", process.wait());
        Self { process, line: line.trim().to_owned() }
    }
}

impl Drop for PythonServer {
    fn drop(&mut self) {
        drop(self.process.stdin.take()); // which it reads to its end
        let _ = self.process.wait();
    }
}

fn packages() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    cache.expect("a home").join("datafusion-predict/servers")
}
