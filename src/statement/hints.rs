//! What a user may have meant, where DataFusion's own error does not say it.

use datafusion::common::{DataFusionError, plan_datafusion_err};
use datafusion::execution::SessionState;

use crate::error::Error;

/// `error` of planning `sql`, with what to do about it if that is known.
pub(super) fn explain(error: DataFusionError, sql: &str, state: &SessionState) -> DataFusionError {
    if Error::find(&error).is_some() {
        return error; // ours say it
    }
    let text = error.strip_backtrace();
    if text.contains("Struct(") && sql.to_lowercase().contains("predict(") {
        let what = text.rsplit("Error during planning: ").next().unwrap_or(&text);
        let what = what.lines().next().unwrap_or(what).trim();
        return plan_datafusion_err!(
            "a model with several outputs gives a struct of them: take one, as in predict(…)['label'], or name it in CREATE MODEL … OPTIONS (output '…') or (class '…') ({what})"
        );
    }
    if text.contains("Dot access not supported") {
        return plan_datafusion_err!(
            "a field of a struct is taken with brackets: predict(…)['label'], not predict(…).label"
        );
    }
    if let Some((_, name)) = text.split_once("No field named ")
        && let Some(name) = name.split(['.', ' ', '\n']).next().map(|name| name.trim_matches('"'))
        && is_called_by_word(sql, name)
    {
        return plan_datafusion_err!("a model's name is a string: predict('{name}', …), not predict({name}, …)");
    }
    if text.contains("is not Struct, Map, or Null") && sql.to_lowercase().contains("predict(") {
        let what = text.rsplit("Error during planning: ").next().unwrap_or(&text);
        let what = what.lines().next().unwrap_or(what).trim();
        return plan_datafusion_err!(
            "a list of probabilities is read by position, as in predict(…)['probabilities'][1]: for that of one class, CREATE MODEL … OPTIONS (class '…') ({what})"
        );
    }
    if text.contains("wildcard argument") {
        return plan_datafusion_err!(
            "a wildcard in a call takes no EXCLUDE, EXCEPT, REPLACE or RENAME: predict('m', *) and predict('m', t.*) take the columns that the model names, and ignore the others"
        );
    }
    if let Some((_, name)) = text.split_once("Invalid qualifier ") {
        let name = name.lines().next().unwrap_or(name);
        if let Some(full) = full_name(sql, name) {
            return plan_datafusion_err!(
                "`{name}.*`: FROM has '{full}': write {full}.*, or give it an alias, as in FROM {full} AS {name}"
            );
        }
        return plan_datafusion_err!(
            "`{name}.*`: there are no columns of a table '{name}' here: it is not in FROM, was grouped away, or is empty"
        );
    }
    match missing_table(&text) {
        Some(name) if name.contains(['/', '.']) => {
            plan_datafusion_err!("there is no file '{name}' that can be read, and no table of this name")
        }
        Some(name) => {
            let tables = table_names(state);
            match datafusion_predict_udfs::nearest(name, tables.iter().map(String::as_str)) {
                Some(near) if near != name => plan_datafusion_err!("table '{name}' not found; did you mean '{near}'?"),
                _ => error,
            }
        }
        None => error,
    }
}

/// Whether `sql` has `predict(name, …)`.
fn is_called_by_word(sql: &str, name: &str) -> bool {
    let sql: String = sql.chars().filter(|c| !c.is_whitespace() && *c != '"').collect();
    sql.to_lowercase().contains(&format!("predict({},", name.to_lowercase()))
}

/// The name with its schema by which `sql` calls the table `name`, if it does.
fn full_name<'s>(sql: &'s str, name: &str) -> Option<&'s str> {
    let words = sql.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '.');
    words.into_iter().find(|word| {
        let schema = word.len().checked_sub(name.len() + 1).and_then(|end| word.get(..end));
        schema.is_some_and(|schema| !schema.is_empty())
            && word.ends_with(name)
            && word[..word.len() - name.len()].ends_with('.')
    })
}

/// The name in `table 'datafusion.public.NAME' not found`.
fn missing_table(text: &str) -> Option<&str> {
    let (name, _) = text.split_once("table '")?.1.split_once("' not found")?;
    name.splitn(3, '.').nth(2)
}

fn table_names(state: &SessionState) -> Vec<String> {
    let catalogs = state.catalog_list();
    let catalogs = catalogs.catalog_names().into_iter().filter_map(|name| catalogs.catalog(&name));
    catalogs
        .flat_map(|catalog| catalog.schema_names().into_iter().filter_map(move |name| catalog.schema(&name)))
        .flat_map(|schema| schema.table_names())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{full_name, missing_table};

    #[test]
    fn a_table_is_found_by_its_full_name() {
        let sql = "SELECT predict('m', t.*) FROM public.t, other.at";
        assert_eq!(full_name(sql, "t"), Some("public.t"));
        assert_eq!(full_name(sql, "x"), None);
    }

    #[test]
    fn a_missing_table_is_found_in_the_text() {
        let text = "Error during planning: table 'datafusion.public.data/t.parquet' not found";
        assert_eq!(missing_table(text), Some("data/t.parquet"));
        assert_eq!(missing_table("No field named t"), None);
    }
}
