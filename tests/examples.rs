//! The examples run, and print what they promise.

use std::path::PathBuf;
use std::process::Command;

/// The output of the example `name`, which `cargo test --all-targets` has built.
fn run(name: &str) -> String {
    let test = std::env::current_exe().expect("this test's path");
    let folder: PathBuf = test.ancestors().nth(2).expect("the build's folder").join("examples");
    let example =
        Command::new(folder.join(name)).current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("the example");
    let error = String::from_utf8_lossy(&example.stderr);
    assert!(example.status.success(), "{name}: {error}");
    String::from_utf8_lossy(&example.stdout).into_owned()
}

#[test]
fn quickstart_counts_flowers() {
    let output = run("quickstart");
    for species in ["setosa     | 50", "versicolor | ", "virginica  | "] {
        assert!(output.contains(species), "{output}");
    }
}

#[test]
fn the_native_crate_scores_record_batches_alone() {
    assert!(run("score_record_batch").ends_with("setosa\nversicolor\nvirginica\n"));
}

#[test]
fn embedding_scores_patients() {
    let output = run("embedding");
    assert!(output.contains("runs on native (cpu)"), "{output}");
    assert!(output.contains("442 patients, 1"), "{output}");
}

#[test]
fn a_custom_engine_takes_the_models_that_it_accepts() {
    let output = run("custom_engine");
    assert!(output.contains("hand-back") && output.contains("native"), "{output}");
    assert!(output.contains("[1.0, 2.0, 3.0]") && output.contains("42.0"), "{output}");
}
