//! Rows are found where they are, and score as they do alone: `tests/models/make_rows.py` has the models, and what Python's
//! onnxruntime gives for each row by itself.

use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::{cast, concat};
use datafusion::arrow::datatypes::{DataType, Float64Type};
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use datafusion_predict::{
    CoreBudget, Engine, Error, Executable, Model, ObjectStoreCatalog, OrtEngine, PredictExt, PredictRuntime,
    PredictSql, PrepareRequest, Prepared, RunContext, Tensor,
};

async fn context(name: &str, partitions: usize) -> SessionContext {
    let config = SessionConfig::new().with_target_partitions(partitions);
    let context = SessionContext::new_with_config(config).with_predict(Arc::new(PredictRuntime::default()));
    let path = format!("tests/models/rows/{name}.parquet");
    context.register_parquet("t", path, ParquetReadOptions::default()).await.expect("a table");
    context
}

/// What CREATE MODEL answers in a column, as text.
async fn create(context: &SessionContext, name: &str, options: &str, column: &str) -> Result<String, String> {
    let sql = format!("CREATE MODEL m FROM 'tests/models/rows/{name}.onnx' {options}");
    let created = context.predict_sql(&sql).await.map_err(|error| error.to_string())?;
    let batches = created.collect().await.expect("a row");
    let column = cast(batches[0].column_by_name(column).expect("the column"), &DataType::Utf8).expect("text");
    Ok(column.as_string::<i32>().iter().next().flatten().unwrap_or("unknown").to_owned())
}

/// The numbers in lists of any depth, and how long each list is.
fn numbers(array: &ArrayRef, lengths: &mut Vec<usize>) -> Vec<f64> {
    match array.data_type() {
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            assert_eq!(list.null_count(), 0, "no row is missing");
            lengths.extend((0..list.len()).map(|row| list.value(row).len()));
            let parts: Vec<ArrayRef> = (0..list.len()).map(|row| list.value(row)).collect();
            let parts: Vec<_> = parts.iter().map(AsRef::as_ref).collect();
            if parts.is_empty() { vec![] } else { numbers(&concat(&parts).expect("lists of one type"), lengths) }
        }
        _ => {
            let numbers = cast(array, &DataType::Float64).expect("numbers");
            numbers.as_primitive::<Float64Type>().iter().map(|number| number.expect("no NULL")).collect()
        }
    }
}

/// The largest difference between the predictions of model `m` and the column `expected`.
async fn difference(context: &SessionContext, arguments: &str) -> f64 {
    let sql = format!("SELECT predict('m', {arguments}) AS p, expected FROM t ORDER BY id");
    let batches = context.predict_sql(&sql).await.expect("a plan").collect().await.expect("rows");
    let (mut rows, mut most) = (0, 0.0_f64);
    for batch in batches {
        rows += batch.num_rows();
        let (mut lengths, mut expected_lengths) = (vec![], vec![]);
        let found = numbers(batch.column(0), &mut lengths);
        let expected = numbers(batch.column(1), &mut expected_lengths);
        assert_eq!(lengths, expected_lengths, "lists of the same lengths");
        most = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(most, f64::max);
    }
    assert!(rows > 0, "there are rows");
    most
}

#[tokio::test(flavor = "multi_thread")]
async fn each_row_scores_as_it_does_alone_in_any_batch() {
    for (name, arguments) in [
        ("second_named", "x"),
        ("second_fixed", "x"),
        ("second_unnamed", "x"),
        ("lstm_named", "x"),
        ("lstm_unnamed", "x"),
        ("gru_named", "x"),
        ("gru_unnamed", "x"),
        ("state_named", "x, state"),
        ("state_same_name", "x, state"),
        ("state_unnamed", "x, state"),
        ("coarse", "x"),
        ("squeezed", "x"),
        ("squeezed_list", "x"),
        ("squeezed_second", "x"),
        ("whole_output", "x"),
        ("scores_in_columns", "x"),
        ("scores_in_columns_fixed", "x"),
        ("scores_in_columns_large", "x"),
        ("one_behind_time", "x"),
    ] {
        for engine in ["auto", "onnxruntime"] {
            for (batch_size, partitions, extract) in [(0, 2, true), (1, 1, true), (7, 2, true), (1024, 1, false)] {
                let context = context(name, partitions).await;
                for setting in [
                    format!("SET predict.engine = '{engine}'"),
                    format!("SET predict.batch_size = {batch_size}"),
                    format!("SET predict.extract = {extract}"),
                ] {
                    context.predict_sql(&setting).await.expect("a setting");
                }
                let independent = create(&context, name, "", "rows_independent").await;
                assert_eq!(independent.as_deref(), Ok("true"), "{name}");
                let difference = difference(&context, arguments).await;
                assert!(difference < 1e-5, "{name}, {engine}, batches of {batch_size}: {difference}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dependent_rows_are_said_refused_or_scored_alone() {
    for name in ["cumulative", "centred", "lstm_time_first", "quantized"] {
        let warned = context(name, 2).await;
        let note = create(&warned, name, "", "note").await.expect("a model");
        assert!(note.contains("the score of a row depends on the rows that are scored with it"), "{name}: {note}");
        assert!(difference(&warned, "x").await > 1e-3, "{name}: rows scored together");

        let refused = create(&context(name, 2).await, name, "OPTIONS (on_dependent_rows 'refuse')", "note").await;
        let error = refused.expect_err("a refusal");
        assert!(error.contains("option on_dependent_rows 'refuse'"), "{error}");

        for batch_size in [0, 1, 3] {
            let alone = context(name, 2).await;
            alone.predict_sql(&format!("SET predict.batch_size = {batch_size}")).await.expect("a setting");
            let options = "OPTIONS (on_dependent_rows 'one_by_one')";
            let note = create(&alone, name, options, "note").await.expect("a model");
            assert!(note.contains("each is scored alone"), "{name}: {note}");
            let difference = difference(&alone, "x").await;
            assert!(difference < 1e-6, "{name}, one by one: {difference}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_rounded_otherwise_in_a_batch_is_not_called_dependent() {
    // A small probability is what the other leaves of 1, and has the errors of 1.
    let context = context("centred", 1).await;
    let sql = "CREATE MODEL m FROM 'tests/models/sklearn/diabetes_pipeline.onnx' OPTIONS (output 'probabilities')";
    let batches = context.predict_sql(sql).await.expect("a model").collect().await.expect("a row");
    let independent = batches[0].column_by_name("rows_independent").expect("the column").as_boolean();
    assert!(independent.is_valid(0) && independent.value(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_with_different_rows_are_refused_by_their_names() {
    let error = create(&context("centred", 1).await, "graph", "", "note").await.expect_err("a graph has no rows");
    assert!(error.contains("its inputs have different rows"), "{error}");
    assert!(error.contains("'x' has num_nodes, 'e' has num_edges"), "{error}");
}

/// ONNX Runtime on a machine that takes long for each run.
#[derive(Debug)]
struct SlowEngine(OrtEngine);

#[derive(Debug)]
struct Slow(Arc<dyn Executable>);

impl Engine for SlowEngine {
    fn name(&self) -> &str {
        "slow"
    }

    fn prepare(&self, model: &Arc<Model>, request: &PrepareRequest) -> Result<Prepared, Error> {
        Ok(match self.0.prepare(model, request)? {
            Prepared::Ready(executable) => Prepared::Ready(Arc::new(Slow(executable))),
            refused => refused,
        })
    }
}

impl Executable for Slow {
    fn run(&self, inputs: &[Tensor], context: &RunContext) -> Result<Vec<Tensor>, Error> {
        std::thread::sleep(Duration::from_millis(250));
        self.0.run(inputs, context)
    }

    fn device(&self) -> String {
        self.0.device()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_rows_are_does_not_depend_on_how_fast_the_machine_is() {
    let engine = SlowEngine(OrtEngine::new(None, Arc::new(CoreBudget::default())));
    let runtime = PredictRuntime::builder().with_engine(Arc::new(engine)).build();
    let context = SessionContext::new().with_predict(Arc::new(runtime));
    let path = "tests/models/rows/second_unnamed.parquet";
    context.register_parquet("t", path, ParquetReadOptions::default()).await.expect("a table");
    let note = create(&context, "second_unnamed", "", "note").await.expect("a model");
    assert_eq!(note, "rows are dimension 2 of 'x', rows are dimension 2 of 'y'");
    assert!(difference(&context, "x").await < 1e-5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_found_of_rows_is_described_by_later_processes() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().to_string_lossy().into_owned();
    for creates in [true, false] {
        let catalog = ObjectStoreCatalog::open(&place).await.expect("a catalog");
        let runtime = PredictRuntime::builder().with_catalog(Arc::new(catalog)).build();
        let context = SessionContext::new().with_predict(Arc::new(runtime));
        if creates {
            create(&context, "centred", "", "note").await.expect("a model");
        }
        let described = context.predict_sql("DESCRIBE MODEL m").await.expect("rows").to_string().await.expect("rows");
        assert!(described.contains("| rows independent | false"), "{described}");
        assert!(described.contains("the score of a row depends on the rows"), "{described}");
    }
}
