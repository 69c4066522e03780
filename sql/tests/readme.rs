//! The SQL of the README and of the documents runs as it is written, and gives the output that they show.

mod common;

use common::{root, run};

/// The blocks of a language in a document.
fn blocks(file: &str, language: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join(file)).expect("the document");
    let start = format!("```{language}\n");
    let blocks = text.split(start.as_str()).skip(1).filter_map(|block| block.split_once("```"));
    blocks.map(|(block, _)| block.to_owned()).collect()
}

/// The documents, by their paths from the root.
fn documents() -> Vec<String> {
    let files = std::fs::read_dir(root().join("docs")).expect("the documents");
    let names = files.map(|file| file.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut documents: Vec<_> = names.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")).collect();
    documents.push("README.md".to_owned());
    documents.sort();
    documents
}

/// The output of all blocks of SQL in a document that use this repository's models, in one process.
fn output_of(document: &str) -> String {
    let sql = blocks(document, "sql").into_iter().filter(|sql| !sql.contains("churn.onnx"));
    let sql = sql.collect::<Vec<_>>().join("\n");
    // Jobs are kept in a catalog; what earlier runs of this test have left is no part of the document.
    let _ = std::fs::remove_dir_all(root().join("target/operations"));
    let catalog = tempfile::tempdir().expect("a folder");
    let catalog = catalog.path().to_str().expect("a path");
    let with_jobs = sql.contains("CREATE JOB");
    let arguments = ["--quiet", "--format", "csv", "-c", &sql, "--catalog", catalog];
    let ran = run(&arguments[..if with_jobs { 7 } else { 5 }]);
    assert_eq!(ran.code, Some(0), "{document}: {ran:?}");
    ran.stdout
}

#[test]
fn sql_in_all_documents_runs() {
    let with_sql: Vec<_> = documents().into_iter().filter(|document| !blocks(document, "sql").is_empty()).collect();
    assert!(with_sql.len() >= 5, "{with_sql:?}");
    for document in with_sql {
        let output = output_of(&document);
        let expected = match document.as_str() {
            "docs/getting-started.md" => "second,versicolor\n",
            "docs/queries.md" => "rows_scored=50",
            "docs/engines.md" => "call,engine,onnxruntime",
            "docs/catalog.md" => "rows,most\n",
            "docs/operations.md" => "rows\n75\n",
            "README.md" => "species,count(*)\n",
            _ => "",
        };
        assert!(output.contains(expected), "{document}: {output}");
    }
}

#[test]
fn the_readme_shows_the_output_of_its_query() {
    let sql = blocks("README.md", "sql").into_iter().find(|sql| sql.contains("tests/models")).expect("a query");
    let ran = run(&["--quiet", "-c", &sql]);
    let shown = blocks("README.md", "text").into_iter().next().expect("its output");
    assert!(ran.stdout.trim_end().ends_with(shown.trim_end()), "{ran:?}");
}

#[test]
fn links_between_documents_lead_somewhere() {
    for document in documents() {
        let path = root().join(&document);
        let text = std::fs::read_to_string(&path).expect("the document");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target) {
            let file = target.split('#').next().unwrap_or_default();
            let here = path.parent().expect("a folder").join(file);
            assert!(file.is_empty() || target.contains("://") || here.exists(), "{document}: {target}");
        }
    }
}

#[test]
fn the_readme_is_short() {
    let text = std::fs::read_to_string(root().join("README.md")).expect("the README");
    assert!(text.lines().count() < 120, "its tables belong into docs/");
}
