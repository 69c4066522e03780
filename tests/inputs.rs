//! Inputs that are more than columns of numbers: constants, sizes, matrices by name, bytes, structs, and what converters write.
//! `tests/models/make_inputs.py` has the models, and what Python's onnxruntime gives for each row by itself.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::{cast, concat};
use datafusion::arrow::datatypes::{DataType, Float64Type};
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use datafusion_predict::{ObjectStoreCatalog, PredictExt, PredictRuntime, PredictSql};

async fn session(name: &str, runtime: PredictRuntime, partitions: usize) -> SessionContext {
    let config = SessionConfig::new().with_target_partitions(partitions);
    let context = SessionContext::new_with_config(config).with_predict(Arc::new(runtime));
    let path = format!("tests/models/inputs/{name}.parquet");
    context.register_parquet("t", path, ParquetReadOptions::default()).await.expect("a table");
    context
}

/// `CREATE MODEL`, with FEATURES in `features` and OPTIONS in `options`, either of which may be empty.
async fn create(context: &SessionContext, name: &str, features: &str, options: &str) -> Result<String, String> {
    let features = if features.is_empty() { String::new() } else { format!("FEATURES ({features})") };
    let options = if options.is_empty() { String::new() } else { format!("OPTIONS ({options})") };
    let sql = format!("CREATE MODEL m {features} FROM 'tests/models/inputs/{name}.onnx' {options}");
    let created = context.predict_sql(&sql).await.map_err(|error| error.to_string())?;
    let batches = created.collect().await.expect("a row");
    let note = cast(batches[0].column_by_name("note").expect("a note"), &DataType::Utf8).expect("text");
    Ok(note.as_string::<i32>().iter().next().flatten().unwrap_or_default().to_owned())
}

/// The numbers in lists of any depth, each with its row.
fn numbers(array: &ArrayRef) -> Vec<f64> {
    if let Some(list) = array.as_list_opt::<i32>() {
        let parts: Vec<ArrayRef> = (0..list.len()).map(|row| list.value(row)).collect();
        let parts: Vec<_> = parts.iter().map(AsRef::as_ref).collect();
        return if parts.is_empty() { vec![] } else { numbers(&concat(&parts).expect("lists of one type")) };
    }
    let numbers = cast(array, &DataType::Float64).expect("numbers");
    numbers.as_primitive::<Float64Type>().iter().map(|number| number.unwrap_or(f64::NAN)).collect()
}

/// The predictions and the expected values, as numbers.
async fn scores(context: &SessionContext, call: &str) -> Result<(Vec<f64>, Vec<f64>), String> {
    let sql = format!("SELECT {call} AS p, expected FROM t ORDER BY id");
    let frame = context.predict_sql(&sql).await.map_err(|error| error.to_string())?;
    let batches = frame.collect().await.map_err(|error| error.to_string())?;
    let column = |i: usize| batches.iter().flat_map(|batch| numbers(batch.column(i))).collect::<Vec<_>>();
    Ok((column(0), column(1)))
}

fn assert_equal(found: &[f64], expected: &[f64], what: &str) {
    assert!(!expected.is_empty(), "{what}: there are rows");
    assert_eq!(found.len(), expected.len(), "{what}: as many values");
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= 1e-5 + 1e-4 * expected.abs(), "{what}: {found}, expected {expected}");
    }
}

/// Model, FEATURES, OPTIONS, and the call.
const CALLS: &[(&str, &str, &str, &str)] = &[
    // An input without rows is a feature; rows with other values of it are scored in other runs.
    ("scalar", "", "", "predict('m', x, k)"),
    ("scalar", "", "", "predict('m', t.*)"),
    ("one", "", "", "predict('m', x, k)"),
    ("weights", "", "", "predict('m', x, w)"),
    ("square", "", "", "predict('m', k)"),
    ("default", "", "constant.scale 5", "predict('m', a, b, c, d)"),
    ("default", "", "constant.Scale '5.0'", "predict('m', x)"),
    ("default", "b, a, c, d", "constant.scale 5", "predict('m', {a: b, b: a, c: c, d: d})"),
    ("speech", "", "output 'output', constant.sr 16, constant.state 1", "predict('m', x)"),
    ("speech", "", "output 'output', constant.sr 16, constant.state '[[1, 1, 1], [1, 1, 1]]'", "predict('m', x)"),
    ("speech", "", "output 'output', size.samples 6, constant.state 1", "predict('m', x, 16)"),
    // Sizes, so that flat lists fit.
    ("images", "", "size.height 4, size.width 5", "predict('m', flat)"),
    ("images", "", "size.images.3 4", "predict('m', flat)"),
    ("images", "", "'size.images.3' 4", "predict('m', flat)"),
    ("default", "a, b, c, d", "constant.scale 5.0e0", "predict('m', t.*)"),
    ("images", "", "", "predict('m', images)"),
    // Matrices by the names of their columns, and by list columns of their names.
    ("matrices", "x_cat (store, product), x_num (price, qty)", "", "predict('m', t.*)"),
    ("matrices", "x_cat (store, product), x_num (price, qty)", "", "predict('m', store, product, price, qty)"),
    ("matrices", "x_cat (store, product), x_num", "", "predict('m', t.*)"),
    ("matrices", "", "", "predict('m', t.*)"),
    ("matrices", "", "", "predict('m', {x_num: x_num, x_cat: x_cat})"),
    ("embedding", "", "", "predict('m', t.*)"),
    ("embedding", "", "", "predict('m', {embedding: embedding})"),
    ("embedding", "embedding", "", "predict('m', t.*)"),
    ("embedding", "vector", "", "predict('m', {vector: embedding})"),
    (
        "embedding",
        "",
        "",
        "predict('m', embedding[1], embedding[2], embedding[3], embedding[4], embedding[5], embedding[6])",
    ),
    // A list of structs is a tensor of steps; bytes are lists.
    ("steps", "", "", "predict('m', x)"),
    ("bytes", "", "bytes 'ends', pad 256", "predict('m', content)"),
    // Where nothing is tried, the rows are first, and all else is as the options say.
    ("matrices", "X_CAT (store, product), x_num (price, qty)", "validate false", "predict('m', t.*)"),
    ("default", "a, b, c, d", "constant.scale 5, validate false", "predict('m', t.*)"),
    ("images", "", "size.height 4, size.width 5, validate false", "predict('m', flat)"),
    // What converters write.
    ("several_outputs", "a, b, c, d", "output 'probabilities'", "predict('m', t.*)"),
    ("several_outputs", "a, b, c, d", "", "predict('m', t.*)['probabilities']"),
    ("texts", "", "", "predict('m', text)"),
    ("neighbours", "a, b, c, d", "", "predict('m', t.*)"),
    ("spelling", "", "", "predict('m', t.*)"),
    ("classes", "a, b, c, d", "output 'probabilities'", "predict('m', t.*)"),
    ("guarded", "a, b", "", "predict('m', t.*)"),
    ("sequence_in_use", "a, b", "output 'c'", "predict('m', t.*)"),
    ("sequence_in_use", "a, b", "", "predict('m', t.*)['c']"),
    ("doubles", "", "output 'probabilities'", "predict('m', t.*)"),
    ("doubles", "", "", "predict('m', t.*)['probabilities']"),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_form_of_an_input_scores_as_python_does() {
    for (name, features, options, call) in CALLS {
        for (batch_size, partitions, extract) in [(0, 2, true), (1, 1, true), (7, 1, false)] {
            let what = format!("{name} FEATURES ({features}) OPTIONS ({options}) {call}, batches of {batch_size}");
            let context = session(name, PredictRuntime::default(), partitions).await;
            context.predict_sql(&format!("SET predict.batch_size = {batch_size}")).await.expect("a setting");
            context.predict_sql(&format!("SET predict.extract = {extract}")).await.expect("a setting");
            create(&context, name, features, options).await.unwrap_or_else(|error| panic!("{what}: {error}"));
            let (found, expected) = scores(&context, call).await.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_equal(&found, &expected, &what);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_keeps_what_the_options_say() {
    for (name, features, options, call) in CALLS {
        let folder = tempfile::tempdir().expect("a folder");
        let open = || async {
            let catalog = ObjectStoreCatalog::open(&folder.path().display().to_string()).await.expect("a catalog");
            PredictRuntime::builder().with_catalog(Arc::new(catalog)).build()
        };
        let what = format!("{name} FEATURES ({features}) OPTIONS ({options}) {call}");
        create(&session(name, open().await, 2).await, name, features, options).await.expect(&what);
        let later = session(name, open().await, 2).await;
        let (found, expected) = scores(&later, call).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_equal(&found, &expected, &what);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_name_classes_by_score_and_by_number() {
    let context = session("classes", PredictRuntime::default(), 2).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("labels.txt");
    std::fs::write(&file, "low\nmiddle\nhigh\ntop\n").expect("a file");
    let options = format!("labels '{}'", file.display());
    create(&context, "classes", "a, b, c, d", &options).await.expect("a model");
    std::fs::remove_file(&file).expect("the version has its names");
    // The label of the best class is the key of the largest score.
    let sql = "SELECT count(*) AS n, count(DISTINCT p['label']) AS labels FROM (SELECT predict('m', t.*) AS p, expected FROM t)
        WHERE abs(p['probabilities'][p['label']] - array_max(expected)) < 1e-5";
    let batches = context.predict_sql(sql).await.expect("a plan").collect().await.expect("a row");
    let count = |i: usize| batches[0].column(i).as_primitive::<datafusion::arrow::datatypes::Int64Type>().value(0);
    assert_eq!(count(0), 40);
    assert!(count(1) > 1, "several labels");

    let class = session("classes", PredictRuntime::default(), 2).await;
    let options = r#"labels '["low", "middle", "high", "top"]', output 'probabilities', class 'high'"#;
    create(&class, "classes", "a, b, c, d", options).await.expect("a model");
    let sql = "SELECT max(abs(predict('m', t.*) - expected[3])) FROM t";
    let batches = class.predict_sql(sql).await.expect("a plan").collect().await.expect("a row");
    assert!(numbers(batches[0].column(0))[0] < 1e-5);
}

/// The only value of the only row that `sql` gives, as text.
async fn one_value(context: &SessionContext, sql: &str) -> String {
    let batches = context.predict_sql(sql).await.expect("a plan").collect().await.expect("a row");
    let text = cast(batches[0].column(0), &DataType::Utf8).expect("text");
    text.as_string::<i32>().iter().next().flatten().unwrap_or("NULL").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_are_those_of_the_classes_that_the_model_numbers() {
    let context = session("numbered_classes", PredictRuntime::default(), 2).await;
    let options = r#"labels '["one", "two", "five"]', output 'label'"#;
    create(&context, "numbered_classes", "a, b", options).await.expect("a model");
    let equal = "SELECT count(*) FILTER (WHERE predict('m', t.*) = expected) || ' of ' || count(*) FROM t";
    assert_eq!(one_value(&context, equal).await, "120 of 120");
}

#[tokio::test(flavor = "multi_thread")]
async fn nan_within_a_net_is_no_missing_value() {
    let context = session("guarded", PredictRuntime::default(), 1).await;
    create(&context, "guarded", "a, b", "").await.expect("a model");
    assert_eq!(one_value(&context, "SELECT predict('m', NULL, 1.0) IS NULL").await, "true");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_sequence_that_is_an_output_stays_one() {
    let context = session("sequence_in_use", PredictRuntime::default(), 1).await;
    create(&context, "sequence_in_use", "a, b", "").await.expect("a model");
    let value = |part: &str| {
        format!("SELECT array_to_string(flatten(make_array({part})), ',') FROM (SELECT predict('m', -1.0, 2.0) AS p)")
    };
    assert_eq!(one_value(&context, &value("p['p']")).await, "1,2");
    assert_eq!(one_value(&context, &value("p['s'][2]")).await, "1,-2");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_have_no_label_fail_alone() {
    let context = session("class_number", PredictRuntime::default(), 1).await;
    create(&context, "class_number", "", r#"labels '["zero", "one"]'"#).await.expect("a model");
    let equal = "SELECT count(*) FILTER (WHERE try_predict('m', x) IS NOT DISTINCT FROM expected) FROM t";
    assert_eq!(one_value(&context, equal).await, "4");
    let reason = one_value(&context, "SELECT predict_error('m', x) FROM t WHERE x = 7").await;
    assert!(reason.contains("output 'y' gave class 7, but there are 2 labels"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_with_the_remedy() {
    for (name, features, options, expected) in [
        ("scalar", "", "constant.z 1", "model 'm' has no input 'z' (option 'constant.z'): there are x, k"),
        ("classes", "a, b, c, d", "labels '[\"a\", \"b\", \"c\", \"a\"]', output 'probabilities'", "names 'a' twice"),
        ("several_outputs", "", "output 'probabilities', class '1'", "class '1' of which part of 'probabilities'?"),
        ("bytes", "", "pad 3", "option 'pad' needs the option 'bytes'"),
        ("images", "", "size.height 4294967296", "is too large: at most 268435456 elements"),
        ("images", "", "size.height 18446744073709551615, size.width 2, validate false", "is too large"),
        ("scalar", "", "constant.k 'loud', validate false", "option 'constant.k' is 'loud'"),
        ("matrices", "x_num, x_cat", "", "FEATURES must name its inputs in their order, which is x_cat, x_num"),
        ("scalar", "", "constant.k 'loud'", "model 'm': option 'constant.k' is 'loud': expected float[]"),
        ("scalar", "", "constant.k 1, constant.x 1", "all its inputs are constants"),
        ("scalar", "", "size.k 1", "model 'm' has no open dimension 'k' (option 'size.k'): open are N"),
        ("images", "", "size.depth 1", "open are N, height, width"),
        ("images", "", "size.height 0", "option 'size.height' is '0': expected a size from 1 on"),
        ("matrices", "x_num (price, qty), x_cat (store, product)", "", "in their order, which is x_cat, x_num"),
        ("matrices", "x_cat (store), x_num (price, qty)", "", "FEATURES names 1 of the 2 columns of 'x_cat'"),
        ("matrices", "z (store)", "", "model 'm' has no input 'z' for FEATURES: there are x_cat, x_num"),
        ("steps", "x (price, qty)", "", "FEATURES names columns of 'x', which is no matrix"),
        ("scalar", "", "bytes 'middle'", "option 'bytes' is 'middle': expected 'first', 'last' or 'ends'"),
        ("square", "", "bytes 'first'", "takes no list of a fixed size (option 'bytes')"),
        (
            "classes",
            "a, b, c, d",
            "labels '[\"a\", \"b\"]', output 'probabilities'",
            "names 2 classes, but no output has",
        ),
        ("classes", "", "labels 'missing.txt'", "the file 'missing.txt' can't be read"),
        ("several_outputs", "", "output 'nothing'", "there are label, probabilities"),
    ] {
        let context = session(name, PredictRuntime::default(), 2).await;
        let error = create(&context, name, features, options).await.expect_err(expected);
        assert!(error.contains(expected), "{name}: {error}");
    }
    for (name, options, call, expected) in [
        (
            "images",
            "",
            "predict('m', flat)",
            "expected lists of [3,height,width] (flat lists fit with OPTIONS (size.height …, size.width …)) in each row, found 60",
        ),
        (
            "bytes",
            "",
            "predict('m', content)",
            "expected 8 values in each row, but its lists have 18 and 7 values; OPTIONS (bytes 'first') cuts and pads them",
        ),
        ("embedding", "", "predict('m', id)", "feature"),
        ("embedding", "", "predict('m', {id: id})", "or give them as a list column 'embedding'"),
    ] {
        let context = session(name, PredictRuntime::default(), 2).await;
        create(&context, name, "", options).await.expect("a model");
        let error = scores(&context, call).await.expect_err(expected);
        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rows_share_is_noted() {
    let context = session("scalar", PredictRuntime::default(), 2).await;
    let note = create(&context, "scalar", "", "").await.expect("a model");
    assert_eq!(note, "rows of one run share 'k', so others run for each of its values");
    let constant = session("scalar", PredictRuntime::default(), 2).await;
    assert_eq!(create(&constant, "scalar", "", "constant.k 2").await.expect("a model"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_create_model_found_is_its_answer() {
    let context = session("scalar", PredictRuntime::default(), 2).await;
    let sql = "CREATE MODEL m FROM 'tests/models/types/scalar_double.onnx'";
    let batches = context.predict_sql(sql).await.expect("a model").collect().await.expect("a row");
    let value = |name: &str| {
        let text = cast(batches[0].column_by_name(name).expect(name), &DataType::Utf8).expect("text");
        text.as_string::<i32>().iter().next().flatten().unwrap_or("NULL").to_owned()
    };
    let found: Vec<_> =
        ["name", "version", "engine", "device", "result_type", "rows_independent", "batch_size", "note"]
            .into_iter()
            .map(value)
            .collect();
    assert_eq!(found, ["m", "1", "native", "cpu", "Float64", "true", "8192", "NULL"]);
    let cost = value("row_cost");
    assert!(["ns", "µs", "ms"].iter().any(|unit| cost.ends_with(unit)), "a time on one core: {cost}");
}
