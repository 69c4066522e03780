//! Every model gives what Python's onnxruntime gives, in any batch, with and without our rewrites.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use datafusion::arrow::compute::{cast, concat_batches};
use datafusion::arrow::datatypes::{DataType, Field, Float64Type, Schema};
use datafusion::datasource::MemTable;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use datafusion_predict::{PredictExt, PredictRuntime, PredictSql};
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value;

type Manifest = BTreeMap<String, Value>;

fn models() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/models")
}

fn manifest() -> Manifest {
    let text = std::fs::read_to_string(models().join("manifest.json")).expect("the manifest of the models");
    serde_json::from_str(&text).expect("a manifest in JSON")
}

fn texts(values: &Value) -> Vec<String> {
    values.as_array().into_iter().flatten().map(|value| value.as_str().expect("a text").to_owned()).collect()
}

/// How a query is run.
#[derive(Debug, Clone, Copy)]
struct Setting {
    /// Rows for each run of the model.
    batch_size: usize,
    /// Rows for each batch of the data.
    arrow_batch: usize,
    partitions: usize,
    extract: bool,
}

/// A model's data: its inputs, the outputs of another implementation, and the rows' numbers.
struct Case {
    name: String,
    entry: Value,
    data: RecordBatch,
}

impl Case {
    async fn read(name: &str, entry: &Value) -> Self {
        let parquet = models().join(entry["parquet"].as_str().expect("a file"));
        let context = SessionContext::new();
        let frame = context.read_parquet(parquet.to_str().expect("a path"), ParquetReadOptions::default()).await;
        let batches = frame.expect("a table").collect().await.expect("rows");
        let data = concat_batches(&batches[0].schema(), &batches).expect("equal batches");
        let rows: ArrayRef = Arc::new(Int64Array::from_iter_values(0..data.num_rows() as i64));
        let fields = data
            .schema()
            .fields()
            .iter()
            .cloned()
            .chain([Arc::new(Field::new("row", DataType::Int64, false))])
            .collect::<Vec<_>>();
        let columns = data.columns().iter().cloned().chain([rows]).collect();
        let data = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("one more column");
        Self { name: name.to_owned(), entry: entry.clone(), data }
    }

    fn table(&self, setting: Setting) -> MemTable {
        let mut partitions = vec![vec![]; setting.partitions];
        for (i, start) in (0..self.data.num_rows()).step_by(setting.arrow_batch).enumerate() {
            let count = setting.arrow_batch.min(self.data.num_rows() - start);
            partitions[i % setting.partitions].push(self.data.slice(start, count));
        }
        MemTable::try_new(self.data.schema(), partitions).expect("a table")
    }

    /// The predictions in the rows' order, one array for each output.
    async fn predict(&self, runtime: &Arc<PredictRuntime>, setting: Setting) -> Vec<ArrayRef> {
        let config =
            SessionConfig::new().with_target_partitions(setting.partitions).with_batch_size(setting.arrow_batch);
        let context = SessionContext::new_with_config(config).with_predict(runtime.clone());
        context.register_table("t", Arc::new(self.table(setting))).expect("a table");
        let sql = |sql: String| {
            let context = context.clone();
            async move { context.predict_sql(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}")) }
        };
        let onnx = models().join(self.entry["onnx"].as_str().expect("a file"));
        sql(format!("CREATE MODEL IF NOT EXISTS \"{}\" FROM '{}'", self.name, onnx.display())).await;
        sql(format!("SET predict.batch_size = {}", setting.batch_size)).await;
        sql(format!("SET predict.extract = {}", setting.extract)).await;
        let features: Vec<_> = texts(&self.entry["features"]).iter().map(|name| format!("\"{name}\"")).collect();
        let call = format!("predict('\"{}\"', {})", self.name, features.join(", "));
        let frame = sql(format!("SELECT {call} AS p FROM t ORDER BY row")).await;
        let schema = frame.schema().as_arrow().clone();
        let batches = frame.collect().await.unwrap_or_else(|error| panic!("{} with {setting:?}: {error}", self.name));
        let result = concat_batches(&Arc::new(schema), &batches).expect("equal batches");
        match result.column(0).as_struct_opt() {
            Some(outputs) => outputs.columns().to_vec(),
            None => vec![result.column(0).clone()],
        }
    }

    /// Panics unless `outputs` are what the other implementation gave.
    fn check(&self, outputs: &[ArrayRef], setting: Setting) {
        let described = self.entry["outputs"].as_array().expect("outputs");
        assert_eq!(outputs.len(), described.len(), "{}", self.name);
        let expected = |output: &Value| {
            let name = format!("expected_{}", output["name"].as_str().expect("a name"));
            self.data.column_by_name(&name).unwrap_or_else(|| panic!("{}: no column {name}", self.name)).clone()
        };
        let scores = described.iter().find(|output| matches!(output["kind"].as_str(), Some("scores" | "zipmap")));
        let margins = scores.map(|output| margins(&expected(output)));
        for (output, found) in described.iter().zip(outputs) {
            let wanted = expected(output);
            let context = format!("{}, output {}, {setting:?}", self.name, output["name"]);
            assert_eq!(found.len(), wanted.len(), "{context}");
            for row in 0..wanted.len() {
                let (found, wanted) = (cells(found, row), cells(&wanted, row));
                assert_eq!(found.len(), wanted.len(), "{context}, row {row}");
                let near = found.iter().zip(&wanted).all(|(found, wanted)| found.is_near(wanted));
                let close = output["kind"] == "label" && margins.as_ref().is_some_and(|margins| margins[row] <= 2e-6);
                assert!(near || close, "{context}, row {row}: found {found:?}, expected {wanted:?}");
            }
        }
    }
}

/// How far the best class is ahead of the second.
fn margins(scores: &ArrayRef) -> Vec<f64> {
    let margin = |row| {
        let mut scores: Vec<f64> =
            cells(scores, row).iter().map(|cell| if let Cell::Number(x) = cell { *x } else { 0.0 }).collect();
        scores.sort_by(|a, b| b.total_cmp(a));
        scores[0] - scores.get(1).unwrap_or(&f64::NEG_INFINITY)
    };
    (0..scores.len()).map(margin).collect()
}

#[derive(Debug, PartialEq)]
enum Cell {
    Null,
    Number(f64),
    Text(String),
}

impl Cell {
    fn is_near(&self, expected: &Self) -> bool {
        match (self, expected) {
            (Self::Number(a), Self::Number(b)) => {
                a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-6 + 1e-5 * b.abs()
            }
            (a, b) => a == b,
        }
    }
}

/// The values of one row, through lists and the values of maps.
fn cells(array: &ArrayRef, row: usize) -> Vec<Cell> {
    if array.is_null(row) {
        return vec![Cell::Null];
    }
    let all = |inner: ArrayRef| (0..inner.len()).flat_map(|row| cells(&inner, row)).collect();
    match array.data_type() {
        DataType::List(_) => all(array.as_list::<i32>().value(row)),
        DataType::FixedSizeList(_, _) => all(array.as_fixed_size_list().value(row)),
        DataType::Map(_, _) => all(array.as_map().value(row).column(1).clone()),
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => {
            let text = cast(array, &DataType::Utf8).expect("a text");
            vec![Cell::Text(text.as_string::<i32>().value(row).to_owned())]
        }
        _ => {
            let numbers = cast(&array.slice(row, 1), &DataType::Float64).expect("a number");
            vec![Cell::Number(numbers.as_primitive::<Float64Type>().value(0))]
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_model_equals_python_in_every_setting() {
    let runtime = Arc::new(PredictRuntime::default());
    for (name, entry) in manifest() {
        let case = Case::read(&name.replace('/', "-"), &entry).await;
        for extract in [true, false] {
            for (batch_size, arrow_batch, partitions) in
                [(1, 100, 3), (7, 64, 1), (7, 50, 4), (8192, 8192, 1), (8192, 8, 2)]
            {
                let setting = Setting { batch_size, arrow_batch, partitions, extract };
                case.check(&case.predict(&runtime, setting).await, setting);
            }
        }
    }
}

/// For any sizes, and with each rewrite on or off: the same rows.
#[test]
fn any_setting_gives_the_same_rows() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let models = Arc::new(PredictRuntime::default());
    let manifest = manifest();
    let names =
        ["diabetes_pipeline_zipmap", "lightgbm_breast_cancer", "digits_cnn", "sequence", "fixed_batch", "iris_forest"];
    let cases: Vec<Case> = runtime.block_on(async {
        let mut cases = vec![];
        for name in names {
            cases.push(Case::read(name, &manifest[name]).await);
        }
        cases
    });
    let strategy = (0..cases.len(), 1usize..600, 1usize..600, 1usize..6, proptest::bool::ANY);
    let mut runner = TestRunner::new(Config { cases: 48, failure_persistence: None, ..Config::default() });
    let checked = runner.run(&strategy, |(case, batch_size, arrow_batch, partitions, extract)| {
        let setting = Setting { batch_size, arrow_batch, partitions, extract };
        let outputs = runtime.block_on(cases[case].predict(&models, setting));
        cases[case].check(&outputs, setting);
        Ok(())
    });
    checked.unwrap_or_else(|error| panic!("{error}"));
}
