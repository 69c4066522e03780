//! The README's examples run as they are written.

mod common;

use common::{root, run};

/// The SQL blocks of the README that use this repository's models.
fn examples() -> Vec<String> {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("the README");
    let blocks = readme.split("```sql\n").skip(1).filter_map(|block| block.split_once("```"));
    blocks.map(|(sql, _)| sql.to_owned()).filter(|sql| sql.contains("tests/models")).collect()
}

#[test]
fn examples_in_sql_run() {
    let examples = examples();
    assert!(examples.len() >= 2, "there are examples");
    let ran = run(&["--quiet", "--format", "csv", "-c", &examples.join("\n")]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stdout.contains("species,count(*)"), "{ran:?}");
    assert!(ran.stdout.contains("second,versicolor"), "{ran:?}");
}
