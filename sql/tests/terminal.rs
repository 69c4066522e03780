//! The shell in a terminal.
#![cfg(unix)]

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::shell;
use rexpect::reader::Options;
use rexpect::session::{PtySession, spawn_with_options};
use tempfile::TempDir;

const TIMEOUT_MS: u64 = 60_000;
const SLOW: &str = "SELECT sum(predict('slow', value, value, value, value)) FROM generate_series(1, 100000);";

/// A shell that keeps its history in a folder of its own.
fn start() -> (PtySession, TempDir) {
    let data = tempfile::tempdir().expect("a folder");
    let folder = data.path().join("datafusion-predict");
    fs::create_dir(&folder).expect("it can be made");
    if let Some(runtime) = datafusion_predict::onnxruntime_folder() {
        let name = runtime.file_name().expect("a folder has a name");
        std::os::unix::fs::symlink(&runtime, folder.join(name)).expect("it can be linked");
    }
    let mut command = shell();
    command.env("XDG_DATA_HOME", data.path()).env("TERM", "xterm").env("NO_COLOR", "1").env_remove("RUST_BACKTRACE");
    let options = Options::new().timeout_ms(Some(TIMEOUT_MS)).strip_ansi_escape_codes(true);
    let mut session = spawn_with_options(command, options).expect("the shell starts");
    session.exp_string("predict> ").expect("a prompt");
    (session, data)
}

/// Enters `line`, and waits for what it gives, which is no part of the line, and for the next prompt.
fn enter(session: &mut PtySession, line: &str, expected: &str) {
    session.send_line(line).expect("the shell reads");
    session.exp_string(expected).expect("the result");
    session.exp_string("predict> ").expect("the prompt comes back");
}

#[test]
fn statements_take_lines_and_errors_leave_the_prompt() {
    let (mut session, data) = start();
    for line in ["SELECT 40", "  + 2 -- ;"] {
        session.send_line(line).expect("the shell reads");
    }
    enter(&mut session, "AS answer;", "| 42 ");
    enter(&mut session, "CREATE MODEL iris FROM 'tests/models/sklearn/iris_forest.onnx';", "1 row in");
    enter(&mut session, "\\models", "iris_forest.onnx");
    enter(&mut session, "SELECT predict('iri', 1);", "did you mean 'iris'?");
    enter(&mut session, "\\nothing", "\\? lists the commands");
    enter(&mut session, "\\timing off", "timing is off");
    enter(&mut session, "SELECT 1 AS one;", "1 row\r\n");

    // Ctrl-C at the prompt forgets the line.
    session.send("SELECT nonsense").and_then(|_| session.flush()).expect("the shell reads");
    session.send_control('c').expect("the shell reads");
    session.exp_string("predict> ").expect("a new prompt");
    enter(&mut session, "SELECT 'fine' AS state;", "| fine ");

    let secret = "CREATE MODEL far FROM 'http://127.0.0.1:9/m.onnx' OPTIONS ('http.token' 'not-to-be-kept');";
    enter(&mut session, secret, "can't be read");

    session.send_control('d').expect("the shell reads");
    session.exp_eof().expect("the shell ends");
    let history = fs::read_to_string(data.path().join("datafusion-predict/history")).expect("a history");
    assert!(history.contains("SELECT 40\\n  + 2 -- ;\\nAS answer;"), "{history}");
    assert!(!history.contains("not-to-be-kept"), "{history}");
}

#[test]
fn tab_completes_names_of_models() {
    let (mut session, _data) = start();
    enter(&mut session, "CREATE MODEL iris FROM 'tests/models/sklearn/iris_forest.onnx';", "1 row in");
    session.send("SELECT predict('ir\t', 5.1, 3.5, 1.4, 0.2)['label'] AS flower;\n").expect("the shell reads");
    session.flush().expect("the shell reads");
    session.exp_string("setosa").expect("the name is completed");
}

#[test]
fn ctrl_c_ends_a_query_and_gives_the_prompt_back() {
    let (mut session, _data) = start();
    enter(&mut session, "CREATE MODEL slow FROM 'tests/models/types/slow.onnx';", "1 row in");
    session.send_line(SLOW).expect("the shell reads");
    // The query runs when its progress is shown.
    session.exp_string("rows/s").expect("the progress");
    let start = Instant::now();
    session.send_control('c').expect("the shell reads");
    session.exp_string("cancelled").expect("the query ends");
    session.exp_string("predict> ").expect("the prompt comes back");
    let back = start.elapsed();
    println!("the prompt was back after {back:?}");
    assert!(back < Duration::from_secs(5), "{back:?}");
    enter(&mut session, "SELECT 'fine' AS state;", "| fine ");
    session.send_line("\\q").expect("the shell reads");
    session.exp_eof().expect("the shell ends");
}

/// Enters `line`, waits until its work goes on, and ends it with Ctrl-C.
fn interrupt(session: &mut PtySession, line: &str) {
    session.send_line(line).expect("the shell reads");
    std::thread::sleep(Duration::from_millis(700)); // so that it runs
    let start = Instant::now();
    session.send_control('c').expect("the shell reads");
    session.exp_string("cancelled").unwrap_or_else(|error| panic!("{line}: {error}"));
    session.exp_string("predict> ").expect("the prompt comes back");
    let back = start.elapsed();
    assert!(back < Duration::from_secs(5), "{line}: {back:?}");
}

/// The processor time that the shell with its data in `folder` takes within a second, as a part of one core.
#[cfg(target_os = "linux")]
fn busy(folder: &std::path::Path) -> f64 {
    let folder = folder.to_str().expect("a path").as_bytes();
    let has_folder = |process: &std::path::PathBuf| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        environment.windows(folder.len()).any(|window| window == folder)
    };
    let processes = fs::read_dir("/proc").expect("it is there").filter_map(|entry| Some(entry.ok()?.path()));
    let process = processes.into_iter().find(has_folder).expect("the shell runs");
    let ticks = || -> f64 {
        let stat = fs::read_to_string(process.join("stat")).expect("it runs");
        let fields: Vec<_> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
        fields[11..13].iter().map(|field| field.parse::<f64>().expect("a number")).sum()
    };
    let before = ticks();
    std::thread::sleep(Duration::from_secs(1));
    (ticks() - before) / 100.0 // a tick is a hundredth of a second
}

#[test]
fn the_shell_outlives_panics_and_models_that_never_end() {
    let (mut session, data) = start();
    enter(&mut session, "CREATE TABLE kept AS SELECT 'kept' AS what;", "in 0.");
    enter(&mut session, "CREATE MODEL twice FROM 'tests/models/types/scalar_double.onnx';", "1 row in");

    // A function of DataFusion's that panics.
    let panics =
        "SELECT map(['a', 'b'], arrow_cast(x, 'FixedSizeList(2, Int64)')) FROM (VALUES ([1, 2]), ([3, 4])) AS v(x);";
    enter(&mut session, panics, "ended by a bug");
    enter(&mut session, "SELECT what, predict('twice', 21.0) FROM kept;", "42.0");

    let model = "FROM 'tests/models/queries/forever.onnx'";
    interrupt(&mut session, &format!("CREATE MODEL forever {model};"));
    let limited = format!("CREATE MODEL forever {model} OPTIONS (max_run '200ms');");
    enter(&mut session, &limited, "a run took longer than its option max_run allows (200ms)");
    enter(&mut session, &format!("CREATE MODEL forever {model} OPTIONS (validate false);"), "1 row in");
    interrupt(&mut session, "SELECT predict('forever', 1.0);");

    let rounds = "CREATE MODEL rounds FROM 'tests/models/queries/rounds.onnx';";
    enter(&mut session, rounds, "1 row in");
    let query = "SELECT sum(predict('rounds', value * 1000000000000)) FROM generate_series(1, 4);";
    interrupt(&mut session, query);
    enter(&mut session, "SET predict.extract = false;", "in 0.");
    interrupt(&mut session, query);
    enter(&mut session, "CREATE TABLE numbers AS SELECT value FROM generate_series(1, 4);", "in 0.");
    interrupt(&mut session, "DELETE FROM numbers WHERE predict('rounds', value * 1000000000000) > 0;");
    enter(&mut session, "SELECT count(*) AS left_over FROM numbers;", "| 4 ");
    let replaced = "CREATE OR REPLACE MODEL rounds FROM 'tests/models/queries/rounds.onnx' OPTIONS (max_run '200ms');";
    enter(&mut session, replaced, "1 row in");
    enter(&mut session, query, "allows (200ms)");

    // Nothing of it goes on.
    #[cfg(target_os = "linux")]
    {
        let busy = busy(data.path());
        assert!(busy < 0.5, "{busy} of a core is busy");
    }
    enter(&mut session, "SELECT what, predict('twice', 21.0) FROM kept;", "42.0");
    session.send_line("\\q").expect("the shell reads");
    session.exp_eof().expect("the shell ends");
}
