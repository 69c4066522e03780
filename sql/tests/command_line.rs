//! The shell without a terminal: its arguments, what it prints where, and its exit code.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use common::{run, run_with_input, shell};

const MODEL: &str = "CREATE MODEL iris FROM 'tests/models/sklearn/iris_logistic_zipmap.onnx'";
const SCORE: &str = "SELECT 1 AS id, predict('iris', 5.1, 3.5, 1.4, 0.2) AS p";

#[test]
fn quiet_prints_results_alone() {
    let ran = run(&["-q", "-c", "CREATE TABLE t AS SELECT 1 AS a", "-c", "SELECT a, 'x;y' AS b FROM t; SELECT 2 AS c"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(ran.stderr, "");
    let expected = "\
+---+-----+
| a | b   |
+---+-----+
| 1 | x;y |
+---+-----+
+---+
| c |
+---+
| 2 |
+---+
";
    assert_eq!(ran.stdout, expected);
}

#[test]
fn counts_and_times_go_to_standard_error() {
    let ran = run(&["--format", "csv", "-c", "SELECT 1 AS a UNION ALL SELECT 2 ORDER BY a"]);
    assert_eq!(ran.stdout, "a\n1\n2\n");
    assert!(ran.stderr.starts_with("2 rows in "), "{ran:?}");
}

#[test]
fn predictions_are_printed_in_each_format() {
    for (format, expected) in [
        ("csv", "id,p\n1,\"{output_label: setosa, output_probability: {setosa: "),
        ("tsv", "id\tp\n1\t{output_label: setosa, output_probability: {setosa: "),
        ("json", "[{\"id\":1,\"p\":{\"output_label\":\"setosa\",\"output_probability\":{\"setosa\":"),
        ("ndjson", "{\"id\":1,\"p\":{\"output_label\":\"setosa\",\"output_probability\":{\"setosa\":"),
        ("nd-json", "{\"id\":1,"),
        ("table", "+----+-"),
        ("automatic", "+----+-"),
    ] {
        let ran = run(&["-q", "--format", format, "-c", MODEL, "-c", SCORE]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(ran.stdout.starts_with(expected), "{format}: {ran:?}");
    }
}

#[test]
fn no_rows_are_a_document_too() {
    for (format, expected) in [("csv", "a,b\n"), ("tsv", "a\tb\n"), ("json", "[]\n"), ("ndjson", "")] {
        let ran = run(&["-q", "--format", format, "-c", "SELECT 1 AS a, 2 AS b WHERE false"]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), expected), "{format}");
    }
}

#[test]
fn rows_of_several_batches_are_one_document() {
    let sql = "SET datafusion.execution.batch_size = 2; SELECT value AS v FROM generate_series(1, 5)";
    for (format, expected) in [
        ("csv", "v\n1\n2\n3\n4\n5\n"),
        ("json", "[{\"v\":1},{\"v\":2},{\"v\":3},{\"v\":4},{\"v\":5}]\n"),
        ("ndjson", "{\"v\":1}\n{\"v\":2}\n{\"v\":3}\n{\"v\":4}\n{\"v\":5}\n"),
    ] {
        assert_eq!(run(&["-q", "--format", format, "-c", sql]).stdout, expected);
    }
}

#[test]
fn maps_with_numbers_as_keys_are_json() {
    let sql = "SELECT MAP {1: 'a', 2: 'b'} AS m";
    assert_eq!(run(&["-q", "--format", "json", "-c", sql]).stdout, "[{\"m\":{\"1\":\"a\",\"2\":\"b\"}}]\n");
}

#[test]
fn a_table_shows_maxrows_and_other_formats_all() {
    let sql = "SELECT value FROM generate_series(1, 30000)";
    let table = run(&["--maxrows", "2", "-c", sql]);
    assert_eq!(table.stdout.lines().count(), 9, "{table:?}");
    assert!(table.stderr.contains("the first 2 of 30000 rows"), "{table:?}");
    let csv = run(&["--maxrows", "2", "--format", "csv", "-c", sql]);
    assert_eq!(csv.stdout.lines().count(), 30_001);
}

#[test]
fn queries_of_a_folder_see_the_files_that_are_there_now() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().display();
    let count = format!("SELECT count(*) AS n FROM '{path}/in/'; SELECT count(*) AS n FROM t;");
    let sql = format!(
        "COPY (SELECT 1 AS a) TO '{path}/in/a.parquet';
         CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{path}/in/'; {count}
         COPY (SELECT 2 AS a) TO '{path}/in/b.parquet'; {count}"
    );
    let ran = run(&["-q", "--format", "csv", "-c", &sql]);
    let counts: Vec<_> = ran.stdout.lines().filter(|line| line.len() == 1 && *line != "n").collect();
    assert_eq!(counts, ["1", "1", "1", "1", "2", "2"], "{ran:?}"); // COPY gives a count, too
}

#[test]
fn the_first_error_ends_all() {
    let sql = "SELECT 1 AS a; SELECT predict('iri', 1); SELECT 2 AS b";
    let ran = run(&["-q", "--format", "csv", "-c", MODEL, "-c", sql, "-c", "SELECT 3"]);
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.stdout, "a\n1\n");
    assert_eq!(ran.stderr, "error: unknown model 'iri'; did you mean 'iris'?\n");
}

#[test]
fn errors_are_plain_text() {
    for (sql, expected) in [
        ("SELECT predict('m', 1)", "unknown model 'm'; there are no models: make one with CREATE MODEL"),
        ("SELEC 1", "SQL: Expected: an SQL statement, found: SELEC at Line: 1, Column: 1"),
        ("SELECT 'a", "SQL: Unterminated string literal at Line: 1, Column: 8"),
        ("SELECT * FROM nowhere", "table 'datafusion.public.nowhere' not found"),
        ("SELECT 1/0", "Divide by zero error"),
        ("SELECT vector_avg(1)", "vector_avg takes vectors of FLOAT of one size, such as embed gives, found Int64\n"),
        ("SELECT cosine_similarity([1.0])", "cosine_similarity takes two vectors, found 1\n"),
        ("SELECT rerank('m')", "rerank: expected a model's name and two texts, as in rerank('cross', query, body)\n"),
        ("CREATE MODEL m FROM 'a' OPTIONS (clas '1')", "unknown option 'clas'; did you mean 'class'?"),
        ("\\modles", "unknown command '\\modles': \\? lists the commands"),
    ] {
        let ran = run(&["-c", sql]);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
        assert!(ran.stderr.starts_with(&format!("error: {expected}")), "{sql}: {ran:?}");
        assert!(!ran.stderr.contains("External error"), "{ran:?}");
    }
}

#[test]
fn errors_in_files_say_where() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("broken.sql");
    fs::write(&path, "-- one\nSELECT 1 AS a;\n\n-- two\n  SELECT a b c;\n").expect("it can be written");
    let path = path.to_str().expect("a path in UTF-8");
    let ran = run(&["-q", "--format", "csv", "-f", path]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), "a\n1\n"));
    assert!(ran.stderr.starts_with(&format!("error: {path}, line 5: SQL: ")), "{ran:?}");
    assert!(ran.stderr.contains("Line: 5, Column: 14"), "{ran:?}");

    let including = run(&["-c", &format!("\\i {path}")]);
    assert!(including.stderr.contains(", line 5: SQL"), "{including:?}");
}

#[test]
fn files_that_include_themselves_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("loop.sql");
    fs::write(&path, format!("\\i {}", path.display())).expect("it can be written");
    let ran = run(&["-f", path.to_str().expect("a path in UTF-8")]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("16 deep already"), "{ran:?}");
}

#[test]
fn sources_run_in_the_order_given() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("two.sql");
    fs::write(&path, "SELECT a + 1 AS two FROM t").expect("it can be written");
    let path = path.to_str().expect("a path in UTF-8");
    let ran =
        run(&["-q", "--format", "csv", "-c", "CREATE TABLE t AS SELECT 1 AS a", "-f", path, "-c", "SELECT 3 AS three"]);
    assert_eq!(ran.stdout, "two\n2\nthree\n3\n");
}

#[test]
fn standard_input_is_sql() {
    let ran = run_with_input(
        &["-q", "--format", "csv"],
        "SELECT 1 AS a;\n\\format ndjson\nSELECT ';' AS b -- ;\n; SELECT 3 AS c",
    );
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "a\n1\n{\"b\":\";\"}\n{\"c\":3}\n"), "{ran:?}");

    let ran = run_with_input(&["-q", "--format", "csv"], "SELECT 1 AS a;\n\\q\nSELECT 2;");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "a\n1\n"));

    let ran = run_with_input(&["-q"], "SELECT nowhere;\nSELECT 2;");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
}

#[test]
fn data_comes_from_standard_input_too() {
    let sql = "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/dev/stdin'; SELECT sum(a) AS s FROM t";
    assert_eq!(run_with_input(&["-q", "--format", "csv", "-c", sql], "a\n1\n2\n").stdout, "s\n3\n");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    for format in ["csv", "json", "ndjson"] {
        let mut command = shell();
        command.args(["-q", "--format", format, "-c", "SELECT value FROM generate_series(1, 1000000)"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the shell starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line).expect("a line");
        let output = child.wait_with_output().expect("the shell ends");
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()), "{format}");
    }
}

#[test]
fn options_that_can_not_be_met_are_explained() {
    let model = "CREATE MODEL m FROM 'tests/models/neural/digits_cnn.onnx'";
    let ran = run(&["--onnxruntime", "/nowhere/lib.so", "-c", model]);
    assert_eq!(ran.code, Some(1));
    assert_eq!(
        ran.stderr,
        "error: no ONNX Runtime at '/nowhere/lib.so' (--onnxruntime): there is no such file; get it with `pip install onnxruntime`, or name the library with --onnxruntime or ORT_DYLIB_PATH; not run by native: node 1 (Conv): an operator that is not compiled\n"
    );
    // What the native engine runs needs no library.
    assert_eq!(run(&["-q", "--onnxruntime", "/nowhere/lib.so", "-c", MODEL]).code, Some(0));

    let ran = run(&["--catalog", "ftp://host/models", "-c", "SELECT 1"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    assert!(ran.stderr.contains("'ftp://host/models'"), "{ran:?}");
    let ran = run(&["--catalog", "Cargo.toml", "-c", "SELECT 1"]);
    assert_eq!(ran.stderr, "error: catalog 'Cargo.toml' can't be used: it is a file, not a folder\n");

    let ran = run(&["-f", "nowhere.sql"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.starts_with("error: can't read nowhere.sql: "), "{ran:?}");

    let ran = run(&["-m", "1m", "-c", "SELECT count(DISTINCT value) FROM generate_series(1, 1000000)"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("memory"), "{ran:?}");
    assert_eq!(run(&["--format", "xml"]).code, Some(2));
}

#[test]
fn copy_prints_its_count_and_files_are_tables() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("scored.parquet");
    let file = file.to_str().expect("a path in UTF-8");
    let copy = format!("COPY (SELECT predict('iris', 5.1, 3.5, 1.4, 0.2) AS p FROM generate_series(1, 3)) TO '{file}'");
    let ran =
        run(&["-q", "--format", "csv", "-c", MODEL, "-c", &copy, "-c", &format!("SELECT count(*) AS n FROM '{file}'")]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "count\n3\nn\n3\n"), "{ran:?}");
}

#[test]
fn the_version_is_told() {
    let ran = run(&["--version"]);
    assert_eq!(ran.stdout, format!("datafusion-predict {}\n", env!("CARGO_PKG_VERSION")));
}
