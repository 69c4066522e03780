//! The scripts that come along do what they say.

mod common;

use std::fs;

use common::{root, run};

/// The lines of what the script of this name prints of its queries.
fn printed(script: &str) -> Vec<String> {
    fs::create_dir_all(root().join("target")).expect("a folder");
    let ran = run(&["-q", "--format", "csv", "-f", &format!("sql/scripts/{script}.sql")]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn the_recipes_show_what_their_scripts_print() {
    let recipes = fs::read_to_string(root().join("docs/recipes.md")).expect("the document");
    let mut shown = 0;
    for recipe in recipes.split("\n## ").skip(1) {
        let script = recipe.split("](../").nth(1).and_then(|rest| rest.split(')').next()).expect("a script");
        fs::create_dir_all(root().join("target")).expect("a folder");
        let ran = run(&["-q", "-f", script]);
        for table in recipe.split("```text\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            assert!(ran.stdout.contains(table), "{script}: {ran:?}");
            shown += 1;
        }
    }
    assert_eq!(shown, 3);
}

#[test]
fn texts_are_found_by_what_they_mean() {
    let printed = printed("semantic_search");
    assert!(printed.iter().any(|line| line.starts_with("Console player for MP3 and Ogg Vorbis,")), "{printed:?}");
    assert!(printed.iter().any(|line| line.starts_with("IMAP mail client for the terminal,")), "{printed:?}");
}

#[test]
fn tickets_go_to_the_team_that_they_are_like() {
    let printed = printed("ticket_routing");
    let teams: Vec<_> = printed.iter().filter_map(|line| line.split(',').nth(2)).collect();
    assert_eq!(teams, ["team", "mail", "network", "graphics", "network"], "{printed:?}");
}

#[test]
fn pictures_get_their_labels() {
    let printed = printed("image_labelling");
    let names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "zero", "one"];
    for (number, name) in names.into_iter().enumerate() {
        let line = format!("scan_{number:02}.png,{name},");
        assert!(printed.iter().any(|found| found.starts_with(&line)), "{line} {printed:?}");
    }
}

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
