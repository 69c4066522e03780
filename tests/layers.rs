//! Dependencies point one way: the modules of each crate stand in layers, and none names one above it.
//!
//! The lists below are the order. What the code does is read from its `use` lines and its inline `crate::…` paths, tests
//! aside. `LAYERS_UPDATE=1 cargo test --test layers` writes the drawing in `docs/architecture.md` anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A crate, and its modules from the highest layer to the lowest.
struct Crate {
    name: &'static str,
    sources: &'static str,
    layers: &'static [&'static str],
}

const CRATES: [Crate; 3] = [
    Crate {
        name: "datafusion-predict",
        sources: "src",
        layers: &[
            "session",
            "statement",
            "job",
            "resolver",
            "optimizer",
            "plan",
            "files",
            "functions",
            "runtime",
            "registry",
            "scoring",
            "catalog",
            "fetch",
            "storage",
            "remembered",
            "call",
            "config",
            "engine",
            "encode",
            "background",
            "cancel",
            "byte_size",
            "error",
        ],
    },
    Crate {
        name: "datafusion-predict-native",
        sources: "native/src",
        layers: &["compiled", "compile", "operators", "builder", "program", "trees", "model", "tensor", "error"],
    },
    Crate {
        name: "datafusion-predict-udfs",
        sources: "udfs/src",
        layers: &[
            "register",
            "vectors",
            "tokens",
            "bind",
            "predict",
            "purpose",
            "traffic",
            "compare",
            "model_function",
            "plain",
            "model",
            "suggest",
        ],
    },
];

/// The modules that a module's sources name, each with the file that does.
type Arrows = BTreeMap<String, BTreeMap<String, PathBuf>>;

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = vec![];
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// The code of a file without its comments, texts and tests.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
        } else if rest.starts_with("#[cfg(") && is_test(rest) {
            rest = after_item(rest);
        } else if c == '"' {
            rest = after_text(rest);
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    code
}

/// Whether the attribute at the start of `text` is for tests: `#[cfg(test)]`, `#[cfg(all(test, …))]`.
fn is_test(text: &str) -> bool {
    let attribute = text.split(']').next().unwrap_or_default();
    attribute.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "test")
}

/// What follows the item at the start of `text`: its braces, or its semicolon.
fn after_item(text: &str) -> &str {
    let mut depth = 0;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        match c {
            '"' => {
                rest = after_text(rest);
                continue;
            }
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        rest = &rest[c.len_utf8()..];
        if (c == '}' || c == ';') && depth == 0 {
            return rest;
        }
    }
    rest
}

/// What follows the text in quotes at the start of `text`.
fn after_text(text: &str) -> &str {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return &text[at + 1..],
            _ => {}
        }
    }
    ""
}

/// The first names of all paths from the crate's root, those in braces among them: after `crate::` and `$crate::`, and after as
/// many `super::` as the file is deep.
fn named_modules(code: &str, depth: usize) -> BTreeSet<String> {
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = BTreeSet::new();
    let from_root = ["crate::".to_owned(), "super::".repeat(depth)];
    for root in from_root.iter().filter(|root| !root.is_empty()) {
        for (at, _) in code.match_indices(root.as_str()) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue; // part of another name or path
            }
            let rest = &code[at + root.len()..];
            let Some(group) = rest.strip_prefix('{') else {
                names.insert(name(rest));
                continue;
            };
            let (mut depth, mut start) = (0, true);
            for (place, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => start = true,
                    c if start && !c.is_whitespace() => {
                        names.insert(name(&group[place..]));
                        start = false;
                    }
                    _ => {}
                }
            }
        }
    }
    names.remove("super"); // deeper than the root: it would not compile
    names
}

/// How many modules a file is below the crate's root.
fn depth(sources: &Path, file: &Path) -> usize {
    let inside = file.strip_prefix(sources).expect("a file among the sources");
    inside.iter().count() - usize::from(file.file_name().is_some_and(|name| name == "mod.rs"))
}

/// The module that a file belongs to.
fn module_of(sources: &Path, file: &Path) -> String {
    let inside = file.strip_prefix(sources).expect("a file among the sources");
    let first = inside.iter().next().expect("a name").to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

fn arrows(of: &Crate) -> Arrows {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(of.sources);
    let mut arrows = Arrows::new();
    for file in sources(&root) {
        let module = module_of(&root, &file);
        if module == "lib" {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a source file");
        let named = arrows.entry(module.clone()).or_default();
        for name in named_modules(&code(&text), depth(&root, &file)).into_iter().filter(|name| *name != module) {
            named.entry(name).or_insert_with(|| file.clone());
        }
    }
    arrows
}

/// What the module says of itself in its first line.
fn purpose(of: &Crate, module: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(of.sources);
    let file =
        [root.join(format!("{module}.rs")), root.join(module).join("mod.rs")].into_iter().find(|file| file.exists());
    let text = fs::read_to_string(file.unwrap_or_else(|| panic!("there is no module {module}"))).expect("a module");
    let first = text.lines().next().and_then(|line| line.strip_prefix("//! "));
    first
        .unwrap_or_else(|| panic!("module {module} does not say what it is in its first line"))
        .trim_end_matches([':', '.'])
        .to_owned()
}

fn drawing() -> String {
    let mut text = String::new();
    for of in &CRATES {
        let arrows = arrows(of);
        text.push_str(&format!(
            "`{}` (`{}`):\n\n| module | what it is | what it knows |\n|---|---|---|\n",
            of.name, of.sources
        ));
        for module in of.layers {
            let mut known: Vec<&str> =
                arrows.get(*module).into_iter().flat_map(|to| to.keys().map(String::as_str)).collect();
            known.sort_by_key(|name| of.layers.iter().position(|layer| layer == name));
            text.push_str(&format!("| `{module}` | {} | {} |\n", purpose(of, module), known.join(", ")));
        }
        text.push('\n');
    }
    text
}

#[test]
fn no_module_names_one_of_a_higher_layer() {
    let mut wrong = vec![];
    for of in &CRATES {
        for (module, named) in arrows(of) {
            let Some(own) = of.layers.iter().position(|layer| *layer == module) else {
                wrong.push(format!("{}: module `{module}` has no layer: add it to the list in {}", of.name, file!()));
                continue;
            };
            for (name, file) in named {
                match of.layers.iter().position(|layer| *layer == name) {
                    Some(other) if other > own => {}
                    Some(_) => wrong.push(format!("{}: `{module}` names `{name}`, which is above it", file.display())),
                    None => wrong.push(format!(
                        "{}: `crate::{name}` is no module: name the module of what is used",
                        file.display()
                    )),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_architecture_document_draws_the_layers() {
    const START: &str = "<!-- layers: written by tests/layers.rs -->\n";
    const END: &str = "<!-- end of the layers -->";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let text = fs::read_to_string(&path).expect("docs/architecture.md");
    let (before, rest) = text.split_once(START).expect("the start of the drawing");
    let (found, after) = rest.split_once(END).expect("the end of the drawing");
    let expected = drawing();
    if std::env::var_os("LAYERS_UPDATE").is_some() {
        fs::write(&path, format!("{before}{START}{expected}{END}{after}")).expect("a document that can be written");
        return;
    }
    assert_eq!(found, expected, "the drawing is old: LAYERS_UPDATE=1 cargo test --test layers");
}

#[test]
fn modules_are_found_in_use_lines_groups_inline_paths_and_macros() {
    let code = code(
        "use crate::catalog::{self, Change};\nuse crate::{engine::{Device, Engine}, error::Result};\n\
         fn f() -> crate::scoring::Predictor { $crate::storage::x(\"crate::text s3://\") } // crate::comment\n\
         pub(crate) fn g() { super::super::fetch::x(); super::near::y() }\n\
         #[cfg(all(test, unix))]\nmod tests { use crate::session::PredictExt; fn t() { \"}\"; } }\n\
         #[cfg(test)]\npub fn only() -> crate::resolver::R {}\nuse crate::runtime;",
    );
    let found: Vec<_> = named_modules(&code, 2).into_iter().collect();
    assert_eq!(found, ["catalog", "engine", "error", "fetch", "runtime", "scoring", "storage"]);
}
