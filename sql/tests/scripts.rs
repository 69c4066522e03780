//! The scripts that come along do what they say.

mod common;

use std::fs;

use common::{root, run};

#[test]
fn the_demo_scores_filters_joins_aggregates_and_writes() {
    let scored = root().join("target/demo/scored.parquet");
    let _ = fs::remove_file(&scored); // of an earlier run, if any
    let ran = run(&["-q", "--format", "csv", "-f", "sql/scripts/demo.sql"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    for line in ["146,37.0,female,38.3,0.967", "under 40,109,0.372,11", "treatment,110,0.704,0.975", "442"] {
        assert!(ran.stdout.lines().any(|printed| printed == line), "{line}: {}", ran.stdout);
    }
    assert!(ran.stdout.contains("PredictExec"), "{}", ran.stdout);
    assert!(ran.stdout.ends_with("417,41.0,female,33.8,123.33,high,0.965\n"), "{}", ran.stdout);
    assert!(scored.is_file());
}

#[test]
fn irises_are_told_apart() {
    let ran = run(&["-q", "--format", "csv", "-f", "sql/scripts/iris.sql"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    assert!(ran.stdout.contains("setosa,50,1.46\nversicolor,49,4.24\nvirginica,51,5.54\n"), "{}", ran.stdout);
}

#[test]
fn a_job_scores_what_is_new_and_says_what_could_not_be_read() {
    let _ = fs::remove_dir_all(root().join("target/nightly")); // of an earlier run, if any
    let catalog = "target/nightly/catalog";
    let ran = run(&["-q", "--format", "csv", "--catalog", catalog, "-f", "sql/scripts/nightly.sql"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    for line in [
        "patients,progression",
        "492,150.8",
        "1,done,[progression/1],2,442,442,0",
        "2,done,[progression/1],0,0,0,0",
        "3,done with errors,[progression/1],2,50,50,1",
        "3,[progression/1]",
    ] {
        assert!(ran.stdout.lines().any(|printed| printed == line), "{line}: {}", ran.stdout);
    }
    let last = run(&["run", "nightly", "--catalog", catalog, "--json"]);
    // Nothing is new, and one file is still not scored.
    assert_eq!(last.code, Some(3), "{last:?}");
    assert!(
        last.stdout.contains(r#""rows_in":0"#) && last.stdout.contains(r#""status":"done with errors""#),
        "{last:?}"
    );
    let again = run(&["run", "nightly", "--catalog", catalog, "--retry-errors"]);
    assert_eq!(again.code, Some(3), "{again:?}");
    assert!(again.stderr.contains("1 files could not be scored: see predict.job_errors"), "{again:?}");
    let unknown = run(&["run", "nighty", "--catalog", catalog]);
    assert_eq!(
        (unknown.code, unknown.stderr.as_str()),
        (Some(1), "error: unknown job 'nighty'; did you mean 'nightly'?\n")
    );
}

#[test]
fn echo_prints_statements_with_their_comments() {
    let ran = run(&["--echo", "-f", "sql/scripts/iris.sql"]);
    assert!(ran.stderr.contains("-- Two outputs make a struct.\nSELECT predict('iris', {"), "{}", ran.stderr);
}
