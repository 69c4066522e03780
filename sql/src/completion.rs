//! What Tab offers: keywords, and the names that the session knows.

use std::sync::Arc;

use datafusion::catalog::CatalogProvider;
use datafusion::prelude::SessionContext;
use datafusion_predict::PredictRuntime;
use futures::FutureExt;

use crate::command;

/// The words that statements here are made of; the parser knows hundreds more.
const KEYWORDS: &str = "ALIAS ALL ALTER ANALYZE AND ANTI AS ASC BETWEEN BY CASE CAST COMMENT COPY CREATE CROSS CSV \
    CURRENT DELETE DESC DESCRIBE DEVICES DISTINCT DROP ELSE END EXCEPT EXCLUDE EXECUTE EXISTS EXPLAIN EXTERNAL EXTRACT \
    FALSE FEATURES FILTER FIRST FOLLOWING FORMAT FROM FULL FUNCTION GROUP HAVING IF IN INNER INSERT INTERSECT \
    INTERVAL INTO IS JOIN JSON LANGUAGE LAST LATERAL LEFT LIKE LIMIT LOCATION MODEL MODELS NATURAL NOT NULL NULLS \
    OFFSET ON OPTIONS OR ORDER OUTER OVER PARQUET PARTITION PARTITIONED PRECEDING PREPARE QUALIFY RANGE RECURSIVE \
    REPLACE RETURNS RIGHT ROLLBACK ROW ROWS SCHEMA SELECT SEMI SET SHOW STORED TABLE TABLES TAG THEN TO TRAFFIC \
    TRUE UNBOUNDED UNION UNNEST UNSET USING VALUES VERBOSE VERSIONS VIEW WHEN WHERE WINDOW WITH";

/// The position in `line` where completions for `position` start, and what may stand there.
pub(crate) enum Completions {
    Words(usize, Vec<String>),
    /// Files of the local file system.
    Files,
}

/// What the session offers at `position` of `line`.
pub(crate) fn complete(context: &SessionContext, predict: &PredictRuntime, line: &str, position: usize) -> Completions {
    let before = &line[..position];
    if let Some(quote) = open_quote(before) {
        let typed = &before[quote + 1..];
        return if takes_model(&before[..quote]) {
            Completions::Words(quote + 1, matching(models(predict), typed))
        } else {
            Completions::Files
        };
    }
    let start = before
        .rfind(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '.'))
        .map_or(0, |at| at + before[at..].chars().next().map_or(0, char::len_utf8));
    let typed = &before[start..];
    if let Some(rest) = before.strip_prefix('\\') {
        return match rest.split_once(' ') {
            None => Completions::Words(1, matching(command::NAMES.map(str::to_owned).to_vec(), rest)),
            Some(("i", _)) => Completions::Files,
            Some(("d", _)) => Completions::Words(start, matching(Names::of(context).tables, typed)),
            Some(_) => Completions::Words(position, vec![]),
        };
    }
    if names_model(&before[..start]) {
        return Completions::Words(start, matching(models(predict), typed));
    }
    let Names { mut tables, mut columns } = Names::of(context);
    let state = context.state();
    let mut words = match typed.rsplit_once('.') {
        Some(_) => vec![],
        None => KEYWORDS.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect(),
    };
    words.append(&mut tables);
    words.append(&mut columns);
    let functions = state.scalar_functions().keys().chain(state.aggregate_functions().keys());
    let functions = functions.chain(state.window_functions().keys()).chain(state.table_functions().keys());
    words.extend(functions.map(|name| format!("{name}(")));
    words.extend(["ml_predict(", "ml_compare("].map(str::to_owned));
    // Nothing typed: everything there is would be no help.
    Completions::Words(start, if typed.is_empty() { vec![] } else { matching(words, typed) })
}

/// Those that start with `typed`, whatever the case, once each; keywords in the case that was typed.
fn matching(words: Vec<String>, typed: &str) -> Vec<String> {
    let lower = typed.to_lowercase();
    let small = typed.chars().next().is_some_and(char::is_lowercase);
    let mut found: Vec<_> = words
        .into_iter()
        .filter(|word| word.to_lowercase().starts_with(&lower))
        .map(|word| if small && word.chars().all(|c| c.is_ascii_uppercase()) { word.to_lowercase() } else { word })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// Where the string starts that is open at the end of `text`.
fn open_quote(text: &str) -> Option<usize> {
    let mut open = None;
    for (at, c) in text.char_indices() {
        if c == '\'' {
            open = if open.is_some() { None } else { Some(at) };
        }
    }
    open
}

/// Whether a string after `before` is a model's name: the first argument of `predict`, or `model =>`.
fn takes_model(before: &str) -> bool {
    let compact: String = before.chars().filter(|c| !c.is_whitespace()).flat_map(char::to_lowercase).collect();
    ["predict(", "try_predict(", "model=>", "model:=", "old=>", "new=>"].iter().any(|end| compact.ends_with(end))
}

/// Whether the word after `before` is a model's name, as in `DROP MODEL`.
fn names_model(before: &str) -> bool {
    let mut words = before.split_whitespace().rev().map(str::to_uppercase);
    let (last, first) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (last, first) = if (last.as_str(), first.as_str()) == ("EXISTS", "IF") {
        (words.next().unwrap_or_default(), words.next().unwrap_or_default())
    } else {
        (last, first)
    };
    last == "MODEL" && matches!(first.as_str(), "DROP" | "DESCRIBE" | "DESC" | "ALTER" | "ROLLBACK" | "ON" | "IN")
}

fn models(predict: &PredictRuntime) -> Vec<String> {
    predict.catalog().snapshot().models().map(|model| model.name.clone()).collect()
}

/// The tables of a session, those of other schemas than the default with their schema's name, and all columns.
struct Names {
    tables: Vec<String>,
    columns: Vec<String>,
}

impl Names {
    fn of(context: &SessionContext) -> Self {
        let state = context.state();
        let defaults = state.config_options().catalog.clone();
        let mut names = Self { tables: vec![], columns: vec![] };
        for catalog_name in context.catalog_names() {
            let Some(catalog) = context.catalog(&catalog_name) else { continue };
            let in_default = catalog_name == defaults.default_catalog;
            for schema in catalog.schema_names() {
                let prefix = match (in_default, schema == defaults.default_schema) {
                    (true, true) => String::new(),
                    (true, false) => format!("{schema}."),
                    (false, _) => format!("{catalog_name}.{schema}."),
                };
                names.add(&catalog, &schema, &prefix);
            }
        }
        names
    }

    fn add(&mut self, catalog: &Arc<dyn CatalogProvider>, schema_name: &str, prefix: &str) {
        let Some(schema) = catalog.schema(schema_name) else { return };
        for table in schema.table_names() {
            // Tab must not wait: what isn't known at once is left out.
            let provider = schema.table(&table).now_or_never().and_then(|found| found.ok().flatten());
            if let Some(provider) = provider.filter(|_| schema_name != "information_schema") {
                self.columns.extend(provider.schema().fields().iter().map(|field| quoted(field.name())));
            }
            self.tables.push(format!("{prefix}{}", quoted(&table)));
        }
    }
}

/// As it must stand in SQL.
fn quoted(name: &str) -> String {
    let plain = name.chars().all(|c| c.is_lowercase() || c.is_ascii_digit() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn offered(line: &str) -> Vec<String> {
        let context = SessionContext::new();
        let create = "CREATE TABLE irises AS SELECT 1 AS sepal_length, 2 AS \"Petal\"";
        context.sql(create).await.expect("valid").collect().await.expect("valid");
        match complete(&context, &PredictRuntime::default(), line, line.len()) {
            Completions::Words(start, words) => words.into_iter().map(|w| format!("{}{w}", &line[..start])).collect(),
            Completions::Files => vec!["files".to_owned()],
        }
    }

    #[tokio::test]
    async fn words_are_completed() {
        assert_eq!(offered("SELECT sep").await, ["SELECT sepal_length"]);
        assert_eq!(offered("select * from iri").await, ["select * from irises"]);
        assert_eq!(offered("sele").await, ["select"]);
        assert_eq!(offered("SELECT approx_d").await, ["SELECT approx_distinct("]);
        assert_eq!(offered("SELECT ml_p").await, ["SELECT ml_predict("]);
        assert_eq!(offered("\\mod").await, ["\\models"]);
        assert_eq!(offered("\\d ir").await, ["\\d irises"]);
        assert_eq!(offered("SELECT ").await, Vec::<String>::new());
    }

    #[tokio::test]
    async fn strings_are_files_or_models() {
        assert_eq!(offered("CREATE MODEL m FROM 'mod").await, ["files"]);
        assert_eq!(offered("\\i scr").await, ["files"]);
        assert_eq!(offered("SELECT predict('").await, Vec::<String>::new());
    }

    #[test]
    fn the_places_of_models_are_known() {
        for before in ["SELECT predict(", "select try_predict( ", "ml_predict(model => "] {
            assert!(takes_model(before), "{before}");
        }
        for before in
            ["DROP MODEL ", "DROP MODEL IF EXISTS ", "describe model ", "COMMENT ON MODEL ", "SHOW VERSIONS IN MODEL "]
        {
            assert!(names_model(before), "{before}");
        }
        assert!(!takes_model("CREATE MODEL m FROM ") && !names_model("CREATE MODEL "));
    }
}
