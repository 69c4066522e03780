//! Tests of what an operator sees of jobs: metrics, summaries of runs, lines of the log, and news that are posted.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;

use common::{Ran, run, shell};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn scrape(address: &str, accept: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let request = format!("GET /metrics HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    answer
}

#[test]
fn metrics_of_jobs_and_models_are_served_in_open_metrics() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().to_str().expect("a path");
    let catalog = format!("{place}/catalog");
    let sql = format!(
        "CREATE MODEL linear FROM 'tests/models/queries/linear.onnx';
         COPY (SELECT value * 2.0 AS a, 0.0 AS b FROM generate_series(1, 9) AS g(value)) TO '{place}/in/a.parquet';
         CREATE JOB nightly AS COPY (SELECT predict('linear', t.*) AS p FROM '{place}/in/' t) TO '{place}/out';
         RUN JOB nightly"
    );
    let ran = run(&["-q", "--catalog", &catalog, "-c", &sql]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let mean = run(&["-q", "--format", "csv", "--catalog", &catalog, "-c", "SELECT avg(p) FROM job_output('nightly')"]);
    let mean = mean.stdout.lines().last().expect("a row").to_owned();

    let mut watch = shell();
    watch
        .args(["watch", "--metrics", "127.0.0.1:0", "--catalog", &catalog])
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut watch = watch.spawn().expect("the shell starts");
    let mut said = String::new();
    BufReader::new(watch.stderr.take().expect("it is piped")).read_line(&mut said).expect("a line");
    let address =
        said.trim().strip_prefix("metrics are served at http://").and_then(|rest| rest.strip_suffix("/metrics"));
    let answer = scrape(address.expect("an address"), "application/openmetrics-text; version=1.0.0");
    let plain = scrape(address.expect("an address"), "*/*");
    watch.kill().expect("ended");
    watch.wait().expect("it ends");

    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("application/openmetrics-text; version=1.0.0"));
    assert!(answer.trim_end().ends_with("# EOF"), "{answer}");
    assert!(plain.contains("text/plain; version=0.0.4") && !plain.contains("# EOF"), "{plain}");
    for line in [
        "# TYPE predict_job_running gauge".to_owned(),
        "predict_job_running{job=\"nightly\"} 0.0".to_owned(),
        "predict_job_last_run_failed{job=\"nightly\"} 0.0".to_owned(),
        "predict_job_last_run_rows{job=\"nightly\",kind=\"out\"} 9.0".to_owned(),
        "predict_job_last_run_rows{job=\"nightly\",kind=\"set_aside\"} 0.0".to_owned(),
        format!("predict_job_last_run_mean{{job=\"nightly\",column=\"p\"}} {mean}"),
    ] {
        assert!(answer.lines().any(|found| found == line), "{line}: {answer}");
    }
    let success = answer
        .lines()
        .find_map(|line| line.strip_prefix("predict_job_last_success_timestamp_seconds{job=\"nightly\"} "));
    let success: f64 = success.expect("a success").parse().expect("a time");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_secs_f64();
    assert!((now - success).abs() < 600.0, "{success}");

    let taken = run(&["watch", "--catalog", &catalog]);
    assert!(taken.stderr.contains("expected the address where metrics are served"), "{taken:?}");
}

/// A folder with a catalog, in which the job `nightly` scores nine rows.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new(clauses: &str) -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a folder") };
        let path = place.folder.path().display();
        let ran = place.shell(&[
            "-q",
            "-c",
            &format!(
                "CREATE MODEL linear FROM 'tests/models/queries/linear.onnx';
                 COPY (SELECT value * 2.0 AS a, 0.0 AS b FROM generate_series(1, 9) AS g(value)) TO '{path}/in/a.parquet';
                 CREATE JOB nightly AS COPY (SELECT predict('linear', t.*) AS p FROM '{path}/in/' t) TO '{path}/out'
                 {clauses}"
            ),
        ]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        place
    }

    fn shell(&self, arguments: &[&str]) -> Ran {
        let catalog = self.folder.path().join("catalog");
        let mut command = shell();
        command.arg("--catalog").arg(catalog).args(arguments).stdin(Stdio::null()).env(SECRET, "key");
        command.output().expect("the shell starts").into()
    }
}

const SECRET: &str = "DATAFUSION_PREDICT_NOTIFY_SECRET";

/// HMAC-SHA256 by its definition (RFC 2104), for keys of at most 64 bytes.
fn hmac(key: &[u8], body: &[u8]) -> String {
    let padded = |pad: u8| (0..64).map(|i| key.get(i).unwrap_or(&0) ^ pad).collect::<Vec<_>>();
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(body).finalize();
    let outer = Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize();
    outer.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The next request: its headers in lower case, and its body. It is answered with `status`.
fn answer(server: &TcpListener, status: &str) -> (String, Vec<u8>) {
    let (mut stream, _) = server.accept().expect("a request");
    let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).expect("a line"), 0, "{head}");
    }
    let head = head.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    let mut body = vec![0; length.parse().expect("a number")];
    reader.read_exact(&mut body).expect("the body");
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).expect("answered");
    (head, body)
}

#[test]
fn news_of_a_run_are_signed_and_posted_until_the_server_takes_them() {
    let server = TcpListener::bind("127.0.0.1:0").expect("a server");
    let url = format!("http://{}/hook", server.local_addr().expect("its address"));
    let place = Place::new(&format!("OPTIONS (notify '{url}')"));
    let asked =
        std::thread::spawn(move || [answer(&server, "503 Service Unavailable"), answer(&server, "204 No Content")]);
    let ran = place.shell(&["run", "nightly", "-q"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let [first, second] = asked.join().expect("two requests");
    assert_eq!(first.1, second.1);
    for (head, body) in [first, second] {
        assert!(head.starts_with("post /hook "), "{head}");
        assert!(head.contains(&format!("x-signature-256: sha256={}\r\n", hmac(b"key", &body))), "{head}");
        let news: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!((&news["job"], &news["status"], &news["rows_out"]), (&"nightly".into(), &"done".into(), &9.into()));
    }
}

#[test]
fn news_that_nobody_takes_do_not_fail_the_run() {
    let server = TcpListener::bind("127.0.0.1:0").expect("a server");
    let url = format!("http://{}/hook", server.local_addr().expect("its address"));
    let place = Place::new(&format!("OPTIONS (notify '{url}')"));
    drop(server);
    let ran = place.shell(&["run", "nightly", "--json"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("nobody was told of run 1"), "{ran:?}");
}

#[test]
fn summaries_tell_what_ran_and_those_of_failures_how_far_it_came() {
    let place = Place::new("CHECK (max(p) < 0)");
    let ran = place.shell(&["run", "nightly", "--json", "--log-format", "json"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let summary: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!((&summary["status"], &summary["run"], &summary["rows_out"]), (&"failed".into(), &1.into(), &9.into()));
    assert!(summary["error"].as_str().expect("an error").contains("max(p) < 0"), "{summary}");
    assert_eq!(summary["engines"], serde_json::json!({ "linear/1": "native on cpu" }));
    assert_eq!(summary["machines"].as_array().expect("machines").len(), 1);
    let lines = ran.stderr.lines().filter(|line| line.starts_with('{'));
    let lines: Vec<Value> = lines.map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let ended = lines.iter().find(|line| line["message"].as_str().is_some_and(|text| text.contains("has ended")));
    let ended = ended.expect("a line at the end");
    assert_eq!((&ended["job"], &ended["run"], &ended["level"]), (&"nightly".into(), &"1".into(), &"error".into()));

    let none = place.shell(&["run", "weekly", "--json"]);
    let summary: Value = serde_json::from_str(&none.stdout).expect("JSON");
    assert_eq!((none.code, &summary["status"]), (Some(1), &"failed".into()));
    assert!(summary["error"].as_str().expect("an error").contains("weekly"), "{summary}");
}

#[test]
fn statements_have_ids_in_the_log() {
    let ran = run(&["--log-format", "json", "-q", "-c", "SELECT 1; SELECT nothing"]);
    let lines = ran.stderr.lines().filter(|line| line.starts_with('{'));
    let lines: Vec<Value> = lines.map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let id = |text: &str| {
        let line = lines.iter().find(|line| line["message"].as_str().is_some_and(|message| message.contains(text)));
        let line = line.unwrap_or_else(|| panic!("{text}: {ran:?}"));
        (line["query"].as_str().expect("an id").to_owned(), line["level"].clone())
    };
    let (ended, failed) = (id("the statement has ended after"), id("the statement has failed after"));
    assert_ne!(ended.0, failed.0);
    assert_eq!((ended.1, failed.1), ("info".into(), "error".into()));
}
