//! A web server on a free port of loopback that answers as a test wants; it ends with the test's process.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// One request: the path with its query, and the headers in lower case.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) headers: String,
}

/// An HTTP server that answers as a test wants.
pub(crate) struct HttpServer {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

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
pub(crate) fn response(status: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}
