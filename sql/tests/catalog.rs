//! Catalogs that processes share: nothing is lost, whoever writes and whoever is killed.

mod common;
mod python_server;

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use common::{root, run, shell};
use datafusion_predict::{CatalogSnapshot, ModelCatalog, ObjectStoreCatalog};
use python_server::PythonServer;
use sha2::{Digest, Sha256};

const CREATE: &str = "CREATE OR REPLACE MODEL m FROM 'tests/models/types/scalar_double.onnx'";

async fn open(uri: &str) -> std::sync::Arc<CatalogSnapshot> {
    ObjectStoreCatalog::open(uri).await.expect("the catalog opens").snapshot()
}

/// Starts 8 shells, each of which creates 50 versions of one model.
fn eight_writers(uri: &str, environment: &[(&str, &str)]) {
    let script = format!("{CREATE};").repeat(50);
    let start = |_| {
        let mut command = shell();
        command.args(["-q", "--catalog", uri, "-c", &script]).envs(environment.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the shell starts")
    };
    let writers: Vec<Child> = (0..8).map(start).collect();
    for writer in writers {
        let ran = writer.wait_with_output().expect("it ends");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }
}

/// 400 versions, numbered from 1 to 400, each in the history once, whoever asks.
fn check_400(uri: &str, environment: &[(&str, &str)]) {
    let query = "SELECT count(*), min(version), max(version), count(DISTINCT version) FROM predict.versions;
                 SELECT count(DISTINCT version), count(*), max(sequence) FROM predict.history WHERE action = 'create version';
                 SELECT version FROM predict.models; SELECT predict('m', 21.0) AS p, predict('m/17', 21.0) AS q";
    let mut command = shell();
    command.args(["-q", "--format", "csv", "--catalog", uri, "-c", query]).envs(environment.iter().copied());
    let ran = command.output().expect("the shell starts");
    let numbers: Vec<_> = std::str::from_utf8(&ran.stdout)
        .expect("CSV")
        .lines()
        .filter(|line| line.starts_with(char::is_numeric))
        .collect();
    assert_eq!(numbers, ["400,1,400,400", "400,400,400", "400", "42.0,42.0"], "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_processes_lose_no_version_in_a_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let uri = folder.path().to_str().expect("a path");
    eight_writers(uri, &[]);
    check_400(uri, &[]);
    // Checkpoints say what the log says.
    let with = open(uri).await;
    fs::remove_dir_all(folder.path().join("checkpoints")).expect("there are some");
    assert_eq!(with, open(uri).await);
}

#[test]
fn eight_processes_lose_no_version_on_s3() {
    let server = PythonServer::start("s3.py", &[]);
    let endpoint = format!("http://127.0.0.1:{}", server.line);
    let cache = tempfile::tempdir().expect("a folder");
    let environment = [
        ("AWS_ENDPOINT_URL", endpoint.as_str()),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "not-to-be-seen"),
        ("AWS_REGION", "us-east-1"),
        ("DATAFUSION_PREDICT_CACHE", cache.path().to_str().expect("a path")),
    ];
    eight_writers("s3://models/catalog", &environment);
    check_400("s3://models/catalog", &environment);

    // A model that comes from S3, by a folder and by a file; and credentials that are not shown.
    let query = "CREATE MODEL copy FROM 's3://models/catalog/models/345b260a7da8bd14a2a0091be59ff790a3ff5278dc9ed08252789ac59ee9484d';
                 SELECT predict('copy', 21.0) AS p; DESCRIBE MODEL copy; SELECT * FROM predict.history;
                 CREATE MODEL no FROM 's3://models/nowhere/m.onnx'";
    let mut command = shell();
    command.args(["-q", "--format", "csv", "--catalog", "s3://models/catalog", "-c", query]).envs(environment);
    let ran = command.output().expect("the shell starts");
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(out.contains("\n42.0\n"), "{out}{err}");
    assert_eq!(
        err,
        "error: model 'no': 's3://models/nowhere/m.onnx' can't be read: there is no such file, and no folder with a model in it\n"
    );
    assert!(!out.contains("not-to-be-seen"));
    let mut command = shell();
    command.args(["-q", "--catalog", "s3://nowhere/catalog", "-c", CREATE]).envs(environment);
    let ran = command.output().expect("the shell starts");
    let err = String::from_utf8_lossy(&ran.stderr);
    assert!(err.starts_with("error: ") && err.contains("NoSuchBucket") && !err.contains("not-to-be-seen"), "{err}");
}

/// What the statement number `i` is, and what it does to (versions, champion, default).
fn statement(i: u64, (versions, champion, default): (u64, u64, u64)) -> (String, (u64, u64, u64)) {
    match i % 3 {
        0 => (CREATE.to_owned(), (versions + 1, champion, versions + 1)),
        1 => (format!("ALTER MODEL m SET ALIAS champion TO {versions}"), (versions, versions, default)),
        _ => ("ROLLBACK MODEL m TO 1".to_owned(), (versions, champion, 1)),
    }
}

fn check_files(folder: &Path, snapshot: &CatalogSnapshot) {
    for version in snapshot.models().flat_map(|model| model.versions.values()) {
        let file = folder.join("models").join(&version.record.sha256).join("model.onnx");
        let hash = Sha256::digest(fs::read(file).expect("a version has its file"));
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash, version.record.sha256);
    }
}

/// Each statement is one commit; whatever was reported as done is there, and at most one more.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_is_killed_leaves_a_state_that_was_committed() {
    let folder = tempfile::tempdir().expect("a folder");
    let uri = folder.path().to_str().expect("a path");
    assert_eq!(run(&["-q", "--catalog", uri, "-c", &format!("{CREATE}; {CREATE}")]).code, Some(0));
    let mut state = (2, 0, 2);
    let mut done = 0;
    let mut random = 88_172_645_463_325_252_u64;
    let mut killed_within = 0;
    for _ in 0..200 {
        let mut script = String::new();
        let mut ahead = vec![state];
        for i in done..done + 60 {
            let (sql, next) = statement(i, *ahead.last().expect("the state at the start"));
            script.push_str(&format!("{sql}; SELECT 'done' AS answer;"));
            ahead.push(next);
        }
        let mut command = shell();
        command.args(["-q", "--format", "csv", "--catalog", uri, "-c", &script]);
        let mut writer = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the shell starts");
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        std::thread::sleep(Duration::from_micros(15_000 + random % 120_000));
        writer.kill().expect("SIGKILL");
        let ran = writer.wait_with_output().expect("it ends");
        let reported = String::from_utf8_lossy(&ran.stdout).lines().filter(|line| *line == "done").count();

        let catalog = ObjectStoreCatalog::open(uri).await.expect("the catalog opens");
        let commits = catalog.history().await.expect("a history").last().map_or(0, |entry| entry.sequence);
        let committed = usize::try_from(commits - 2 - done).expect("no commit is lost");
        assert!((reported..=reported + 1).contains(&committed), "{reported} reported, {committed} committed");
        killed_within += usize::from(committed < 60);
        state = ahead[committed];
        done += committed as u64;
        let snapshot = catalog.snapshot();
        let model = snapshot.get("m").expect("the model");
        let champion = model.aliases.get("champion").copied().unwrap_or(0);
        assert_eq!((model.versions.len() as u64, champion, model.aliases["default"]), state);
        assert_eq!(model.versions.keys().copied().collect::<Vec<_>>(), (1..=state.0).collect::<Vec<_>>());
        check_files(folder.path(), &snapshot);
    }
    assert!(killed_within > 100, "only {killed_within} of 200 were killed while they wrote");
    assert_eq!(run(&["-q", "--catalog", uri, "-c", "SELECT predict('m', 21.0)"]).code, Some(0));
}

#[test]
fn versions_are_seen_by_others_between_queries() {
    let folder = tempfile::tempdir().expect("a folder");
    let uri = folder.path().to_str().expect("a path");
    let mut reader = shell();
    reader.args(["-q", "--format", "csv", "--catalog", uri, "--file", "-"]);
    let mut reader = reader.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the shell starts");
    drop(reader.stdin.take());
    assert!(reader.wait().expect("it ends").success());
    // What a statement did is said, beside the results.
    let statements = format!(
        "{CREATE}; {CREATE} OPTIONS (activate false); ALTER MODEL m SET TRAFFIC (v1 9, v2 1); ROLLBACK MODEL m TO 2"
    );
    let ran = run(&["--catalog", uri, "-c", &statements]);
    let notes: Vec<_> = ran.stderr.lines().filter(|line| line.starts_with("model ")).collect();
    let expected = [
        "model m is version 1",
        "model m is version 1, the newest is 2",
        "model m is version 1, the newest is 2, its calls are split: v1 9, v2 1",
        "model m is version 2",
    ];
    assert_eq!(notes, expected);
    let made: Vec<_> = ran.stdout.lines().filter(|line| line.starts_with("| m ")).collect();
    assert!(
        matches!(made.as_slice(), [first, second] if first.contains("| 1 ") && second.contains("| 2 ")),
        "{made:?}"
    );
    // A version that is refused leaves no files.
    let files = || fs::read_dir(folder.path().join("models")).expect("the models").count();
    let before = files();
    let other = "CREATE OR REPLACE MODEL m FROM 'tests/models/types/identity_float.onnx'";
    assert_eq!(run(&["-q", "--catalog", uri, "-c", other]).code, Some(1));
    assert_eq!(files(), before);
    // The folder may be a URL; its models do not depend on where they came from.
    let url = format!("file://{uri}");
    let moved = tempfile::tempdir().expect("a folder");
    fs::copy(root().join("tests/models/types/scalar_double.onnx"), moved.path().join("m.onnx")).expect("a copy");
    let create = format!(
        "CREATE MODEL copied FROM '{0}/m.onnx'; CREATE MODEL named FROM '{0}/m.onnx' OPTIONS (copy false)",
        moved.path().display()
    );
    assert_eq!(run(&["-q", "--catalog", &url, "-c", &create]).code, Some(0));
    let both = "SELECT predict('copied', 21.0) AS p; SELECT predict('named', 21.0) AS p";
    assert_eq!(run(&["-q", "--format", "csv", "--catalog", &url, "-c", both]).stdout, "p\n42.0\np\n42.0\n");
    fs::copy(root().join("tests/models/types/identity_double.onnx"), moved.path().join("m.onnx")).expect("a copy");
    let [copied, named] = ["SELECT predict('copied', 21.0) AS p", "SELECT predict('named', 21.0) AS p"];
    assert_eq!(run(&["-q", "--format", "csv", "--catalog", &url, "-c", copied]).stdout, "p\n42.0\n");
    let ran = run(&["-q", "--catalog", &url, "-c", named]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    assert!(ran.stderr.contains("is not the one that the version was made of: expected sha256 345b260a"), "{ran:?}");
    fs::remove_file(moved.path().join("m.onnx")).expect("it is there");
    let ran = run(&["-q", "--catalog", &url, "-c", "SELECT predict('named', 21.0)"]);
    assert!(ran.stderr.starts_with("error: model 'named/1': '"), "{ran:?}");
    assert_eq!(run(&["-q", "--catalog", &url, "-c", "DESCRIBE MODEL named; SHOW MODELS"]).code, Some(0));
}
