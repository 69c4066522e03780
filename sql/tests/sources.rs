//! Models from afar: the web, a hub, MLflow. What goes wrong there is said, and leaves nothing behind.

mod common;
mod http_server;
mod python_server;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use common::{Ran, root, shell};
use http_server::{HttpServer, Request, response};
use python_server::PythonServer;

const SCALAR: &str = "345b260a7da8bd14a2a0091be59ff790a3ff5278dc9ed08252789ac59ee9484d";

fn model(path: &str) -> Vec<u8> {
    fs::read(root().join("tests/models").join(path)).expect("a model of the tests")
}

fn run(cache: &Path, environment: &[(&str, &str)], sql: &str) -> Ran {
    let mut command = shell();
    command.args(["-q", "--format", "csv", "-c", sql]).env("DATAFUSION_PREDICT_CACHE", cache);
    command.env("HTTP_PROXY", "").envs(environment.iter().copied());
    command.output().expect("the shell starts").into()
}

fn files(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

#[test]
fn the_web_is_asked_once_for_what_has_not_changed() {
    let server = HttpServer::start(|request: &Request, _| match request.path.as_str() {
        "/m.onnx" if request.headers.contains("if-none-match: \"v1\"") => response("304 Not Modified", &[], b""),
        "/m.onnx" => response("200 OK", &["ETag: \"v1\""], &model("types/scalar_double.onnx")),
        "/folder/model.onnx" => response("200 OK", &[], &model("types/external/model.onnx")),
        "/folder/weights.bin" => response("200 OK", &[], &model("types/external/weights.bin")),
        "/private/m.onnx?key=secret" if request.headers.contains("authorization: bearer not-to-be-seen") => {
            response("200 OK", &[], &model("types/scalar_double.onnx"))
        }
        "/moved" => response("302 Found", &["Location: /m.onnx"], b""),
        _ => response("404 Not Found", &[], b""),
    });
    let cache = tempfile::tempdir().expect("a folder");
    let create = format!("CREATE MODEL m FROM '{}'; SELECT predict('m', 21.0) AS p", server.url("m.onnx"));
    let first = run(cache.path(), &[], &create);
    assert_eq!(first.stdout, "p\n42.0\n", "{first:?}");
    assert_eq!(server.requests().len(), 1);
    // Another process asks whether it has changed, and takes its own copy.
    assert_eq!(run(cache.path(), &[], &create).stdout, "p\n42.0\n");
    let requests = server.requests();
    assert!(requests.len() == 1 && requests[0].headers.contains("if-none-match"), "{requests:?}");
    assert_eq!(files(cache.path()), 1);

    let moved = format!("CREATE MODEL m FROM '{}' OPTIONS (sha256 '{SCALAR}')", server.url("moved"));
    assert_eq!(run(cache.path(), &[], &moved).code, Some(0));
    let folder = format!("CREATE MODEL m FROM '{}'; SELECT predict('m', 1.0, 2.0, 3.0) AS p", server.url("folder/"));
    let ran = run(cache.path(), &[], &folder);
    assert_eq!(ran.stdout, "p\n\"[22.5, 27.5]\"\n", "{ran:?}");

    // Credentials are sent, and not shown.
    let private = format!(
        "CREATE MODEL m FROM '{}?key=secret' OPTIONS ('http.token' 'not-to-be-seen');
         DESCRIBE MODEL m; SELECT * FROM predict.versions; SELECT * FROM predict.history; EXPLAIN SELECT predict('m', 1.0)",
        server.url("private/m.onnx")
    );
    let ran = run(cache.path(), &[], &private);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stdout.contains("/private/m.onnx?…"), "{ran:?}");
    assert!(!ran.stdout.contains("not-to-be-seen") && !ran.stdout.contains("secret"), "{ran:?}");
}

/// Answers with what a test asks for by the path.
fn misbehave(request: &Request, address: SocketAddr) -> Vec<u8> {
    let model = model("types/scalar_double.onnx");
    match request.path.split('?').next().unwrap_or_default() {
        "/gone.onnx" => response("404 Not Found", &[], b"gone"),
        "/forbidden.onnx" => response("403 Forbidden", &[], b"no"),
        "/loop.onnx" => response("302 Found", &[&format!("Location: http://{address}/loop.onnx")], b""),
        "/broken.onnx" => response("503 Service Unavailable", &[], b""),
        // Its length, and half of it.
        "/cut.onnx" => {
            let whole = response("200 OK", &[], &model);
            whole[..whole.len() - model.len() / 2].to_vec()
        }
        // In chunks, without the last.
        "/cut_chunks.onnx" => {
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n10\r\n";
            [head.as_bytes(), &model[..16], b"\r\n"].concat()
        }
        "/huge.onnx" => b"HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\nConnection: close\r\n\r\n".to_vec(),
        // No length, and more than is allowed.
        "/endless.onnx" => {
            let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
            [head, vec![0; 3 << 20]].concat()
        }
        "/page.onnx" => response("200 OK", &["Content-Type: text/html"], b"<html>sign in</html>"),
        "/outside/MLmodel" => response("200 OK", &[], b"flavors: {onnx: {data: ../../etc/passwd}}"),
        _ => response("404 Not Found", &[], b""),
    }
}

#[test]
fn what_goes_wrong_on_the_web_is_said() {
    let server = HttpServer::start(misbehave);
    let cache = tempfile::tempdir().expect("a folder");
    let zeros = "0".repeat(64);
    for (path, limit, options, expected) in [
        ("gone.onnx", "8g", "", "can't be read: there is no such file, and no folder with a model in it"),
        ("forbidden.onnx", "8g", "", "can't be read: the server refuses it (403 Forbidden): are credentials given?"),
        ("loop.onnx", "8g", "", "too many redirects"),
        ("broken.onnx", "8g", "", "the server answered 503 Service Unavailable"),
        ("cut.onnx", "8g", "", "can't be read to its end"),
        ("cut_chunks.onnx", "8g", "", "can't be read to its end"),
        ("huge.onnx", "1g", "", "has 10737418240 bytes, more than the download limit of 1g"),
        ("endless.onnx", "1m", "", "bytes, more than the download limit of 1m"),
        ("page.onnx", "8g", "", "is not an ONNX model"),
        ("outside/", "8g", "", "its file '../../etc/passwd' is outside the model's folder"),
        ("page.onnx", "8g", ", 'aws.region' 'x'", "option 'aws.region' has no meaning for a model by 'http'"),
        ("gone.onnx?X-Amz-Signature=secret", "8g", "", "gone.onnx?…' can't be read"),
        ("page.onnx", "8g", ", sha256 'secret'", "expected 64 hexadecimal digits"),
    ] {
        let uri = server.url(path);
        let sql = format!("CREATE MODEL m FROM '{uri}' OPTIONS (batch_size 1{options})");
        let ran = run(cache.path(), &[("DATAFUSION_PREDICT_DOWNLOAD_LIMIT", limit)], &sql);
        assert_eq!(ran.code, Some(1), "{path}: {ran:?}");
        assert!(ran.stderr.contains(expected), "{path}: {}", ran.stderr);
        assert!(
            ran.stderr.starts_with("error: model 'm': ") || ran.stderr.starts_with("error: option"),
            "{}",
            ran.stderr
        );
        assert!(!ran.stderr.contains("Signature"), "{}", ran.stderr);
    }
    let ran = run(
        cache.path(),
        &[],
        &format!("CREATE MODEL m FROM 'tests/models/types/scalar_double.onnx' OPTIONS (sha256 '{zeros}')"),
    );
    assert!(ran.stderr.contains(&format!("its sha256 is {SCALAR}, the option 'sha256' says {zeros}")), "{ran:?}");
    // None of that is a model, and none stays.
    assert_eq!(files(cache.path()), 0);
    assert!(server.requests().iter().filter(|request| request.path == "/broken.onnx").count() == 3);
    let ran = run(cache.path(), &[], "CREATE MODEL m FROM 'http://127.0.0.1:9/m.onnx'");
    assert!(ran.stderr.contains("'http://127.0.0.1:9/m.onnx' can't be read: "), "{ran:?}");
}

#[test]
fn a_hub_gives_repositories() {
    let server = HttpServer::start(|request: &Request, _| match request.path.as_str() {
        "/ana/encoder/resolve/main/onnx/model.onnx" => response("200 OK", &[], &model("types/scalar_double.onnx")),
        "/ana/encoder/resolve/v2/m.onnx" if request.headers.contains("authorization: bearer hf_secret") => {
            response("200 OK", &[], &model("types/identity_double.onnx"))
        }
        _ => response("404 Not Found", &[], b""),
    });
    let cache = tempfile::tempdir().expect("a folder");
    let endpoint = server.url("");
    let environment = [("HF_ENDPOINT", endpoint.as_str()), ("HF_TOKEN", "hf_secret")];
    let sql = "CREATE MODEL a FROM 'hf://ana/encoder'; CREATE MODEL b FROM 'hf://ana/encoder@v2/m.onnx';
               SELECT predict('a', 21.0) AS p; SELECT uri FROM predict.versions ORDER BY uri";
    let ran = run(cache.path(), &environment, sql);
    assert_eq!(ran.stdout, "p\n42.0\nuri\nhf://ana/encoder\nhf://ana/encoder@v2/m.onnx\n", "{ran:?}");
    let ran = run(cache.path(), &environment, "CREATE MODEL a FROM 'hf://ana/nothing'");
    assert!(ran.stderr.contains("'hf://ana/nothing' can't be read: there is no such file"), "{ran:?}");
}

#[test]
fn models_of_mlflow_score_as_in_python() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = PythonServer::start("mlflow_server.py", &[folder.path().to_str().expect("a path")]);
    let logged: serde_json::Value = serde_json::from_str(&server.line).expect("a line of JSON");
    let url = logged["url"].as_str().expect("the server's URL");
    let columns: Vec<_> =
        logged["columns"].as_array().expect("names").iter().map(|name| name.as_str().expect("a name")).collect();
    let rows: Vec<_> = logged["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| {
            let values: Vec<_> =
                row.as_array().expect("numbers").iter().map(|value| format!("CAST({value} AS DOUBLE)")).collect();
            format!("({})", values.join(", "))
        })
        .collect();
    let data = format!(
        "CREATE TABLE t ({}) AS VALUES {}",
        columns.iter().map(|name| format!("{name} DOUBLE")).collect::<Vec<_>>().join(", "),
        rows.join(", ")
    );
    let cache = tempfile::tempdir().expect("a folder");
    let local = |i: usize| logged["folders"][i].as_str().expect("a folder").to_owned();
    let by_position = columns.join(", ");
    for (i, uri) in [
        (0, "mlflow:/models/progression/1".to_owned()),
        (0, "mlflow:/models/progression@champion".to_owned()),
        (0, "models:/progression/1".to_owned()),
        (1, "mlflow:/models/progression@challenger".to_owned()),
        (0, local(0)),
        (1, local(1)),
    ] {
        // A signature of columns names the features; one of a tensor does not.
        let arguments = if i == 0 { "t.*" } else { by_position.as_str() };
        let sql = format!("{data}; CREATE MODEL m FROM '{uri}'; SELECT predict('m', {arguments}) AS p FROM t");
        let ran = run(cache.path(), &[("MLFLOW_TRACKING_URI", url)], &sql);
        assert_eq!(ran.code, Some(0), "{uri}: {ran:?}");
        let scores: Vec<f64> = ran.stdout.lines().skip(1).map(|line| line.parse().expect("a number")).collect();
        let expected = logged["versions"][i].as_array().expect("predictions");
        assert_eq!(scores.len(), expected.len());
        for (score, expected) in scores.iter().zip(expected) {
            let expected = expected.as_f64().expect("a number");
            assert!((score - expected).abs() <= 1e-4 + 1e-5 * expected.abs(), "{uri}: {score}, expected {expected}");
        }
    }
    // Files that the server does not hold are read from where it says they are.
    let store = PythonServer::start("s3.py", &[]);
    let endpoint = format!("http://127.0.0.1:{}", store.line);
    let environment = [
        ("MLFLOW_TRACKING_URI", url),
        ("AWS_ENDPOINT_URL", endpoint.as_str()),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "us-east-1"),
    ];
    let sql = "CREATE MODEL m FROM 'mlflow:/models/elsewhere/1'; SELECT predict('m', 21.0) AS p";
    assert_eq!(run(cache.path(), &environment, sql).stdout, "p\n42.0\n");

    for (uri, expected) in [
        ("mlflow:/models/progression/9", "MLflow knows no version 9 of a model 'progression'"),
        ("mlflow:/models/regression@champion", "MLflow knows no model 'regression' with the alias 'champion'"),
    ] {
        let sql = format!("CREATE MODEL m FROM '{uri}' OPTIONS ('mlflow.tracking_uri' '{url}')");
        let ran = run(cache.path(), &[], &sql);
        assert_eq!(ran.stderr, format!("error: model 'm': '{uri}': {expected}\n"));
    }
}
