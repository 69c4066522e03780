//! Generated queries: each gives the same rows with calls lifted into nodes, with bare calls, and with arithmetic in place
//! of the model.
//!
//! The models are linear with whole coefficients, so that SQL computes the same scores exactly. What only the generator knows
//! of a query is its seed, which is printed when it fails: `QUERIES_FROM=42 QUERIES=1 cargo test … generated` runs it alone.

mod generator;

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateBuilder;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use datafusion_predict::{PredictExt, PredictRuntime, PredictSql};

use futures::FutureExt;
use generator::{Form, Generated, Generator, Tables};

/// How a query is run.
#[derive(Debug, Clone, Copy)]
struct Setting {
    partitions: usize,
    batch_size: usize,
    pushdown_filters: bool,
    hash_joins: bool,
    place_by_rows: bool,
}

/// Faults of DataFusion's own that generated queries meet and that nothing fences: what the message holds, and what it is.
const KNOWN_FAULTS: &[(&str, &str)] = &[(
    "does not satisfy order requirements",
    "a plan is refused whose sort key holds a function that WHERE compares with a constant",
)];

struct Session {
    context: SessionContext,
    models: bool,
}

impl Session {
    async fn new(setting: Setting, runtime: &Arc<PredictRuntime>, form: Form, tables: &Tables) -> Self {
        let mut config = SessionConfig::new()
            .with_target_partitions(setting.partitions)
            .with_batch_size(setting.batch_size)
            .set_bool("datafusion.execution.parquet.pushdown_filters", setting.pushdown_filters)
            .set_bool("datafusion.optimizer.prefer_hash_join", setting.hash_joins)
            .with_information_schema(true);
        config.options_mut().optimizer.repartition_file_min_size = 1;
        let models = form != Form::Arithmetic;
        let context = match models {
            true => SessionContext::new_with_config(config).with_predict(runtime.clone()),
            false => plain(config),
        };
        let session = Self { context, models };
        if models {
            for (option, value) in [("extract", form == Form::Lifted), ("place_by_rows", setting.place_by_rows)] {
                session.run(&format!("SET predict.{option} = {value}")).await.expect("an option");
            }
        }
        for (name, path) in &tables.files {
            let path = path.to_str().expect("a path");
            session.context.register_parquet(name, path, ParquetReadOptions::default()).await.expect("a table");
        }
        session
    }

    async fn run(&self, sql: &str) -> Result<Vec<RecordBatch>, DataFusionError> {
        let frame = if self.models { self.context.predict_sql(sql).await? } else { self.context.sql(sql).await? };
        frame.collect().await
    }

    /// The rows that the statements give, those of each in no order.
    async fn rows(&self, statements: &[String]) -> Result<Vec<String>, String> {
        let mut all = vec![];
        for sql in statements {
            let ran = AssertUnwindSafe(self.run(sql)).catch_unwind().await;
            let ran = ran.map_err(|_| format!("{sql}: a panic, whose text stands above"))?;
            let batches = ran.map_err(|error| format!("{sql}: {}", error.strip_backtrace()))?;
            if ["EXPLAIN", "CREATE", "PREPARE", "INSERT"].iter().any(|start| sql.starts_with(start)) {
                continue; // plans differ, and the others give no rows
            }
            let text = pretty_format_batches(&batches).map_err(|error| error.to_string())?.to_string();
            // Names of columns hold the calls; widths depend on them.
            let rows = text.lines().skip(3).filter(|line| line.starts_with('|'));
            let mut rows: Vec<_> = rows.map(|row| row.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
            rows.sort();
            all.extend(rows);
            all.push("--".to_owned());
        }
        Ok(all)
    }
}

/// DataFusion alone, without the rules that push filters to the wrong columns where both sides of a join have a column of
/// one name (apache/datafusion#25244), and projections through joins that then read the wrong columns.
fn plain(config: SessionConfig) -> SessionContext {
    let rules = PhysicalOptimizer::new().rules;
    let rules = rules
        .into_iter()
        .filter(|rule| !rule.name().starts_with("FilterPushdown") && rule.name() != "ProjectionPushdown");
    let rules = rules.collect();
    let state = SessionStateBuilder::new().with_config(config).with_default_features();
    SessionContext::new_with_state(state.with_physical_optimizer_rules(rules).build())
}

/// Why a query is at fault.
struct Fault {
    seed: u64,
    query: Generated,
    what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "QUERIES_FROM={} QUERIES=1: {}", self.seed, self.what)?;
        writeln!(f, "{}", self.query.statements(Form::Lifted).join(";\n"))?;
        writeln!(f, "{}", self.query.statements(Form::Arithmetic).join(";\n"))
    }
}

/// Runs the query of `seed` in all forms; whether DataFusion alone can run it.
async fn check(seed: u64, runtime: &Arc<PredictRuntime>, folder: &Path) -> Result<bool, Fault> {
    let mut generator = Generator::new(seed);
    let setting = Setting {
        partitions: generator.one_of(&[1, 2, 4, 7]),
        batch_size: generator.one_of(&[3, 8, 64]),
        pushdown_filters: generator.chance(50),
        hash_joins: generator.chance(85),
        place_by_rows: generator.chance(75),
    };
    let tables = generator.tables(&folder.join((seed % 16).to_string()), seed % 16);
    write_tables(&tables).await;
    let query = generator.query(&tables);
    let mut results = vec![];
    for form in [Form::Arithmetic, Form::Lifted, Form::Bare] {
        let session = Session::new(setting, runtime, form, &tables).await;
        results.push((form, session.rows(&query.statements(form)).await));
    }
    let (_, expected) = results.remove(0);
    let expected = match expected {
        Ok(expected) => expected,
        Err(error) => {
            println!("seed {seed}: DataFusion alone fails: {error}");
            return Ok(false);
        }
    };
    for (form, found) in results {
        let fault = |what: String| Fault { seed, query: query.clone(), what: format!("{form:?}, {setting:?}: {what}") };
        match found {
            Ok(found) if found == expected => {}
            Ok(found) => {
                let differing = found.iter().zip(&expected).find(|(found, expected)| found != expected);
                let what = format!("{} rows, expected {}; first difference {differing:?}", found.len(), expected.len());
                return Err(fault(what));
            }
            Err(error) => match KNOWN_FAULTS.iter().find(|(text, _)| error.contains(text)) {
                Some((_, what)) => {
                    println!("seed {seed}: a known fault: {what}");
                    return Ok(false);
                }
                None => return Err(fault(error)),
            },
        }
    }
    Ok(true)
}

/// Writes the tables, if no query with the same ones has.
async fn write_tables(tables: &Tables) {
    let context = SessionContext::new();
    for (sql, (_, path)) in tables.rows.iter().zip(&tables.files) {
        if path.exists() {
            continue;
        }
        let frame = context.sql(sql).await.expect("values");
        let mut options = datafusion::config::TableParquetOptions::default();
        options.global.max_row_group_size = 8;
        let path = path.to_str().expect("a path");
        let write =
            frame.write_parquet(path, DataFrameWriteOptions::new().with_single_file_output(true), Some(options));
        write.await.expect("a file");
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

async fn check_all(count: u64) {
    let runtime = Arc::new(PredictRuntime::default());
    let setup = SessionContext::new().with_predict(runtime.clone());
    for (name, model) in [("twice", "types/scalar_double"), ("linear", "queries/linear"), ("lookup", "queries/lookup")]
    {
        setup.predict_sql(&format!("CREATE MODEL {name} FROM 'tests/models/{model}.onnx'")).await.expect("a model");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (first, count) = (number("QUERIES_FROM", 0), number("QUERIES", count));
    let (mut run, mut faults) = (0, vec![]);
    for seed in first..first + count {
        match check(seed, &runtime, folder.path()).await {
            Ok(ran) => run += u64::from(ran),
            Err(fault) => {
                println!("{fault}");
                faults.push(fault);
            }
        }
    }
    println!("seeds {first} to {}: {run} queries ran, {} at fault", first + count - 1, faults.len());
    assert!(faults.is_empty(), "{} of {count} queries give other rows:\n{}", faults.len(), faults[0]);
    assert!(run * 10 >= count * 9, "DataFusion alone could not run {} of {count} queries", count - run);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_queries_give_the_rows_of_arithmetic() {
    check_all(200).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: `make queries` runs it"]
async fn two_thousand_queries_give_the_rows_of_arithmetic() {
    check_all(2000).await;
}
