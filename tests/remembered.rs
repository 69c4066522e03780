//! What models have scored is not scored again: by other sessions, after a restart, after a kill at any moment.

use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use datafusion::arrow::datatypes::Float32Type;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_predict::{PredictExt, PredictRuntime, PredictSql};

/// A process of its own, as far as what it remembers goes: a runtime whose cache is `folder`.
async fn session(folder: &Path, options: &str) -> SessionContext {
    let runtime = PredictRuntime::builder().with_cache_folder(folder.to_owned()).build();
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    let context = context.with_predict(Arc::new(runtime));
    sql(&context, &format!("CREATE MODEL m FROM 'tests/models/texts/encoder' OPTIONS ({options})")).await;
    context
}

async fn sql(context: &SessionContext, text: &str) -> Vec<RecordBatch> {
    let batches = async { context.predict_sql(text).await?.collect().await };
    batches.await.unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A table `t` of `texts`.
fn register(context: &SessionContext, texts: &[Option<String>]) {
    let column: ArrayRef = Arc::new(texts.iter().collect::<StringArray>());
    let batch = RecordBatch::try_from_iter_with_nullable([("text", column, true)]).expect("a column");
    let _ = context.deregister_table("t");
    context.register_batch("t", batch).expect("a new name");
}

fn texts(numbers: std::ops::Range<usize>) -> Vec<Option<String>> {
    let words = ["the parcel", "an invoice", "my account", "is late", "was charged", "please help"];
    let text = |i: usize| (i % 50 != 7).then(|| format!("{} {} {i}", words[i % 6], words[i / 6 % 6]));
    numbers.map(text).collect()
}

/// The vectors of all texts, bit by bit; none where the text is NULL.
async fn vectors(context: &SessionContext) -> Vec<Option<Vec<u32>>> {
    let batches = sql(context, "SELECT embed('m', text) FROM t").await;
    let values = batches.iter().flat_map(|batch| {
        let vectors = batch.column(0).as_fixed_size_list().clone();
        let bits =
            |vector: ArrayRef| vector.as_primitive::<Float32Type>().values().iter().map(|v| v.to_bits()).collect();
        (0..vectors.len()).map(|row| vectors.is_valid(row).then(|| bits(vectors.value(row)))).collect::<Vec<_>>()
    });
    values.collect()
}

/// A number that EXPLAIN ANALYZE shows of the query; 0 if it does not.
async fn counted(context: &SessionContext, query: &str, name: &str) -> usize {
    let batches = sql(context, &format!("EXPLAIN ANALYZE {query}")).await;
    let text = batches.iter().map(|batch| batch.column(1).as_string::<i32>().value(0).to_owned()).collect::<String>();
    let line = text.lines().find(|line| line.contains("PredictExec")).expect("the node").to_owned();
    let number = line
        .split(&format!("{name}="))
        .nth(1)
        .map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().expect("a number"));
    number.unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_scored_is_not_scored_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = session(folder.path(), "remember '100m'").await;
    register(&first, &texts(0..300));
    let scored = vectors(&first).await;
    let query = "SELECT embed('m', text) FROM t";
    for (context, rows) in [(first, 300), (session(folder.path(), "remember '100m'").await, 400)] {
        register(&context, &texts(0..rows));
        let again = vectors(&context).await;
        assert!(again[..scored.len()] == scored, "the same bits");
        assert_eq!(counted(&context, query, "rows_scored").await, 0);
        assert_eq!(counted(&context, query, "remembered").await, rows - rows / 50, "all but NULL");
    }
    // Another model, other options, or none: nothing is taken from the store.
    for options in ["remember '100m', normalize false", "remember 0"] {
        let other = session(folder.path(), options).await;
        register(&other, &texts(0..300));
        assert_eq!(counted(&other, query, "rows_scored").await, 294, "{options}");
    }
    let asked = session(folder.path(), "on_null 'null'").await;
    sql(&asked, "SET predict.remember = '100m'").await;
    register(&asked, &texts(0..10));
    assert_eq!(counted(&asked, query, "rows_scored").await, 9);
    assert_eq!(counted(&asked, query, "remembered").await, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_back_in_their_places() {
    let folder = tempfile::tempdir().expect("a folder");
    let plain = session(folder.path(), "remember 0").await;
    let some = session(folder.path(), "remember '100m'").await;
    register(&some, &texts(0..500).into_iter().step_by(3).collect::<Vec<_>>());
    vectors(&some).await;
    for context in [&plain, &some] {
        register(context, &texts(0..500));
    }
    let (expected, found) = (vectors(&plain).await, vectors(&some).await);
    let close = |(a, b): (&u32, &u32)| (f32::from_bits(*a) - f32::from_bits(*b)).abs() < 1e-5;
    assert_eq!(expected.len(), found.len());
    for (row, pair) in expected.iter().zip(&found).enumerate() {
        match pair {
            (Some(expected), Some(found)) => assert!(expected.iter().zip(found).all(close), "row {row}"),
            (expected, found) => assert!(expected.is_none() && found.is_none(), "row {row}"),
        }
    }
    // A function that is no node of the plan remembers too.
    sql(&some, "SET predict.extract = false").await;
    assert!(vectors(&some).await == found);
}

#[tokio::test(flavor = "multi_thread")]
async fn small_batches_share_one_store_and_failures_are_counted_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let context = session(folder.path(), "remember '100m', batch_size 8").await;
    register(&context, &texts(0..400));
    vectors(&context).await;
    let stores: Vec<_> = std::fs::read_dir(folder.path().join("remembered")).expect("the stores").collect();
    let segments =
        stores.into_iter().flat_map(|store| std::fs::read_dir(store.expect("a store").path()).expect("files"));
    let segments = segments.filter(|file| file.as_ref().is_ok_and(|file| file.path().extension().is_some()));
    assert_eq!(segments.count(), 1, "one process, one segment");

    // Rows that fail are found by bisection: what is remembered beside them counts once.
    let longer = format!("{} {}", "the parcel is late and nobody answers".repeat(9), 1);
    let context = session(folder.path(), "remember '100m', on_long 'error', batch_size 64").await;
    register(&context, &texts(0..5));
    vectors(&context).await;
    let rows: Vec<_> = texts(0..5).into_iter().chain([Some(longer)]).chain(texts(20..24)).collect();
    register(&context, &rows);
    let query = "SELECT try_predict('m', text) FROM t";
    assert_eq!(counted(&context, query, "remembered").await, 5);
}
