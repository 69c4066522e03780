//! What a user reads when there is no ONNX Runtime, or none that will do.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a statement that needs ONNX Runtime, with the library at `library`; what it prints on standard error.
fn error_with(library: &Path) -> String {
    let mut shell = common::shell();
    shell.env("ORT_DYLIB_PATH", library).args([
        "-q",
        "-c",
        "SET predict.engine = 'onnxruntime'; CREATE MODEL m FROM 'tests/models/types/struct3.onnx'",
    ]);
    let ran = common::Ran::from(shell.output().expect("the shell starts"));
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    ran.stderr
}

/// A shared library of the C code `source`, by the compiler that links this test too.
#[cfg(unix)]
fn library(folder: &Path, name: &str, source: &str) -> PathBuf {
    let (code, library) = (folder.join(format!("{name}.c")), folder.join(format!("lib{name}.so")));
    std::fs::write(&code, source).expect("a file");
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&code).status();
    assert!(compiled.expect("a C compiler").success());
    library
}

const HOW_TO_GET_IT: &str =
    "get it with `pip install onnxruntime`, or name the library with --onnxruntime or ORT_DYLIB_PATH";

#[test]
fn a_library_that_is_not_there() {
    let error = error_with(Path::new("/nowhere/libonnxruntime.so"));
    assert_eq!(
        error,
        format!(
            "error: no ONNX Runtime at '/nowhere/libonnxruntime.so' (ORT_DYLIB_PATH): there is no such file; {HOW_TO_GET_IT}\n"
        )
    );
}

#[test]
fn a_file_that_is_no_library() {
    let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let error = error_with(&text);
    assert!(error.starts_with(&format!("error: no ONNX Runtime: {HOW_TO_GET_IT}: ")), "{error}");
    assert!(error.contains("Cargo.toml"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_library_of_something_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let other = library(folder.path(), "other", "int nothing(void) { return 0; }");
    let expected = format!("error: '{}' is not the library of ONNX Runtime; {HOW_TO_GET_IT}\n", other.display());
    assert_eq!(error_with(&other), expected);
}

#[cfg(unix)]
#[test]
fn a_version_that_is_too_old() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = r#"
        typedef struct { const void *(*GetApi)(unsigned); const char *(*GetVersionString)(void); } OrtApiBase;
        static const void *api(unsigned version) { (void)version; return 0; }
        static const char *version(void) { return "1.17.3"; }
        static const OrtApiBase base = { api, version };
        const OrtApiBase *OrtGetApiBase(void) { return &base; }
    "#;
    let old = library(folder.path(), "onnxruntime", source);
    let expected = format!(
        "error: the ONNX Runtime at '{}' is version 1.17.3: expected 1.18 or later; {HOW_TO_GET_IT}\n",
        old.display()
    );
    assert_eq!(error_with(&old), expected);
}
