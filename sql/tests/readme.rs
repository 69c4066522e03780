//! The examples of the README and of the documents beside it run as they are written.

mod common;

use common::{root, run};

/// The blocks of SQL in a file.
fn blocks(file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join(file)).expect("the document");
    let blocks = text.split("```sql\n").skip(1).filter_map(|block| block.split_once("```"));
    blocks.map(|(sql, _)| sql.to_owned()).collect()
}

#[test]
fn examples_in_sql_run() {
    // Those that use this repository's models.
    let examples: Vec<_> = blocks("README.md").into_iter().filter(|sql| sql.contains("tests/models")).collect();
    assert!(examples.len() >= 2, "there are examples");
    let ran = run(&["--quiet", "--format", "csv", "-c", &examples.join("\n")]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stdout.contains("species,count(*)"), "{ran:?}");
    assert!(ran.stdout.contains("second,versicolor"), "{ran:?}");
}

#[test]
fn examples_of_queries_run() {
    let ran = run(&["--quiet", "--format", "csv", "-c", &blocks("docs/queries.md").join("\n")]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stdout.contains("rows_scored=50"), "{ran:?}");
    assert!(ran.stdout.contains("h,count(*)\n"), "{ran:?}");
}
