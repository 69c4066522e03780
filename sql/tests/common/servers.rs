//! Servers on loopback, each on a free port, which end with the test that started them.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use super::root;

/// A server in Python, of `tests/servers`, with the packages that `make servers` installs.
#[allow(dead_code, reason = "each test file uses its part")]
pub(crate) struct PythonServer {
    process: Child,
    /// The line that it printed when it was ready.
    pub(crate) line: String,
}

#[allow(dead_code, reason = "each test file uses its part")]
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

#[allow(dead_code, reason = "each test file uses its part")]
fn packages() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    cache.expect("a home").join("datafusion-predict/servers")
}

/// One request: the path with its query, and the headers in lower case.
#[derive(Debug, Clone)]
#[allow(dead_code, reason = "each test file uses its part")]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) headers: String,
}

/// An HTTP server that answers as a test wants.
#[allow(dead_code, reason = "each test file uses its part")]
pub(crate) struct HttpServer {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

#[allow(dead_code, reason = "each test file uses its part")]
impl HttpServer {
    /// `answer` gives the whole response: status line, headers, body. Connections are closed behind it.
    pub(crate) fn start(answer: impl Fn(&Request, SocketAddr) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let seen = requests.clone();
        // It waits for connections until the test's process ends.
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let Some(request) = read(&connection) else { continue };
                let response = answer(&request, address);
                seen.lock().expect("no test panics here").push(request);
                let _ = (&connection).write_all(&response); // who asked may have gone
            }
        });
        Self { address, requests }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// The requests since the last call.
    pub(crate) fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut *self.requests.lock().expect("no test panics here"))
    }
}

fn read(connection: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(connection).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers = lines.map(|line| line.to_lowercase()).collect::<Vec<_>>().join("\n");
    Some(Request { path, headers })
}

/// A response with `body`.
#[allow(dead_code, reason = "each test file uses its part")]
pub(crate) fn response(status: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}
