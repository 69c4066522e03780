//! `--metrics`: what a scraper reads.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use common::{run, shell};

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
