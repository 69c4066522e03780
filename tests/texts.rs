//! Models of texts from SQL, against what Python says of the same texts one at a time.

mod statements;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, StringViewArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float32Type};
use datafusion::prelude::SessionContext;
use datafusion_predict::{ObjectStoreCatalog, PredictExt, PredictRuntime};
use serde::Deserialize;
use statements::{error, session, sql};

/// What Python says of one text, or of a pair.
#[derive(Deserialize)]
struct Expected {
    text: String,
    pair: Option<String>,
    tokens: usize,
    /// Whether there were more tokens than the model takes.
    cut: bool,
    output: Vec<f32>,
}

fn expected(model: &str) -> Vec<Expected> {
    let file = std::fs::read("tests/models/texts/expected.json").expect("the file");
    let mut all: BTreeMap<String, Vec<Expected>> = serde_json::from_slice(&file).expect("JSON");
    all.remove(model).expect("the model")
}

/// A table `t` of texts, pairs and their places.
fn register(context: &SessionContext, rows: &[Expected], kind: &DataType) {
    let texts = |texts: Vec<Option<&str>>| cast(&StringArray::from(texts), kind).expect("texts");
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("i", Arc::new((0..rows.len() as i64).collect::<datafusion::arrow::array::Int64Array>()) as ArrayRef, false),
        ("text", texts(rows.iter().map(|row| Some(row.text.as_str())).collect()), true),
        ("pair", texts(rows.iter().map(|row| row.pair.as_deref()).collect()), true),
    ]);
    let _ = context.deregister_table("t");
    context.register_batch("t", batch.expect("a batch")).expect("registered");
}

/// The vectors of `column`, one after the other.
fn vectors(batches: &[RecordBatch], column: usize) -> Vec<Vec<f32>> {
    let each = batches.iter().flat_map(|batch| {
        let vectors = batch.column(column).as_fixed_size_list().clone();
        (0..vectors.len()).map(move |row| vectors.value(row).as_primitive::<Float32Type>().values().to_vec())
    });
    each.collect()
}

fn close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-5, "{what}: {found}, expected {expected}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn embeddings_are_those_of_python_in_any_batch_and_any_type_of_text() {
    for model in ["encoder", "plain", "positions"] {
        let rows = expected(model);
        for partitions in [1, 4] {
            let context = session(partitions);
            sql(&context, &format!("CREATE MODEL m FROM 'tests/models/texts/{model}'")).await;
            let dictionary = DataType::Dictionary(DataType::Int32.into(), DataType::Utf8.into());
            for kind in [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View, dictionary] {
                register(&context, &rows, &kind);
                for batch in [1, 3, 8192] {
                    sql(&context, &format!("SET predict.batch_size = {batch}")).await;
                    let found = sql(&context, "SELECT embed('m', text) AS v FROM t ORDER BY i").await;
                    let found = vectors(&found, 0);
                    assert_eq!(found.len(), rows.len());
                    for (found, row) in found.iter().zip(&rows) {
                        close(found, &row.output, &format!("{model}, {kind}, {batch}: {:?}", row.text));
                    }
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tokenizer_may_stand_elsewhere() {
    let folder = tempfile::tempdir().expect("a folder");
    let bare = folder.path().join("bare.onnx");
    std::fs::copy("tests/models/texts/plain/model.onnx", &bare).expect("a copy");
    let open = async || {
        let place = folder.path().join("catalog").to_string_lossy().into_owned();
        let catalog = ObjectStoreCatalog::open(&place).await.expect("a catalog");
        let runtime = PredictRuntime::builder().with_catalog(Arc::new(catalog));
        SessionContext::new().with_predict(Arc::new(runtime.with_cache_folder(folder.path().join("cache")).build()))
    };
    let create =
        |name: &str, options: &str| format!("CREATE MODEL {name} FROM '{}' OPTIONS ({options})", bare.display());
    let rows = expected("plain");
    let context = open().await;
    for (name, tokenizer) in
        [("folder", "tests/models/texts/plain"), ("file", "tests/models/texts/plain/tokenizer.json")]
    {
        sql(&context, &create(name, &format!("tokenizer '{tokenizer}'"))).await;
    }
    // It is a part of the version: neither file is needed any more, by another process either.
    std::fs::remove_file(&bare).expect("it is there");
    for context in [context, open().await] {
        register(&context, &rows, &DataType::Utf8);
        for name in ["folder", "file"] {
            let found = sql(&context, &format!("SELECT embed('{name}', text) AS v FROM t ORDER BY i")).await;
            for (found, row) in vectors(&found, 0).iter().zip(&rows) {
                close(found, &row.output, &format!("{name}: {:?}", row.text));
            }
        }
    }
    std::fs::copy("tests/models/texts/plain/model.onnx", &bare).expect("a copy");
    let context = open().await;
    let problem = error(&context, &create("gone", "tokenizer 'nowhere/tokenizer.json'")).await;
    assert!(problem.contains("option 'tokenizer': 'nowhere/tokenizer.json' can't be read"), "{problem}");
    let problem = error(&context, &create("far", "tokenizer 's3://models/tokenizer.json'")).await;
    assert!(problem.contains("expected a file of this machine"), "{problem}");
    let problem = error(&context, &create("kept", "tokenizer 'tests/models/texts/plain', copy false")).await;
    assert!(problem.contains("so it can't be referred to (option 'copy')"), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_and_scores_are_those_of_python() {
    let context = session(2);
    sql(&context, "CREATE MODEL m FROM 'tests/models/texts/classifier'").await;
    sql(&context, "CREATE MODEL every FROM 'tests/models/texts/classifier' OPTIONS (all_scores true)").await;
    let rows = expected("classifier");
    register(&context, &rows, &DataType::Utf8);
    let found = sql(
        &context,
        "SELECT c['label'], c['score'], e['billing'], e['delivery'], e['other']
         FROM (SELECT i, classify('m', text) AS c, classify('every', text) AS e FROM t) ORDER BY i",
    )
    .await;
    let labels = ["billing", "delivery", "other"];
    let mut at = 0;
    for batch in &found {
        let label = cast(batch.column(0), &DataType::Utf8).expect("a label");
        for row in 0..batch.num_rows() {
            let expected = &rows[at];
            at += 1;
            let number = |column: usize| match batch.column(column).data_type() {
                DataType::List(_) => {
                    batch.column(column).as_list::<i32>().value(row).as_primitive::<Float32Type>().value(0)
                }
                _ => batch.column(column).as_primitive::<Float32Type>().value(row),
            };
            close(&[number(2), number(3), number(4)], &expected.output, &expected.text);
            let best = (0..3).max_by(|a, b| expected.output[*a].total_cmp(&expected.output[*b])).expect("a label");
            assert_eq!(label.as_string::<i32>().value(row), labels[best], "{}", expected.text);
            close(&[number(1)], &[expected.output[best]], &expected.text);
        }
    }
    assert_eq!(at, rows.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn scores_of_pairs_are_those_of_python() {
    let context = session(2);
    sql(&context, "CREATE MODEL m FROM 'tests/models/texts/pair'").await;
    let rows = expected("pair");
    register(&context, &rows, &DataType::Utf8View);
    let found = sql(&context, "SELECT rerank('m', text, pair) AS s FROM t ORDER BY i").await;
    let scores = found.iter().flat_map(|batch| batch.column(0).as_primitive::<Float32Type>().values().to_vec());
    let scores: Vec<_> = scores.collect();
    assert_eq!(scores.len(), rows.len());
    for (found, row) in scores.iter().zip(&rows) {
        close(&[*found], &row.output, &format!("{:?} and {:?}", row.text, row.pair));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokenizer_and_settings_are_part_of_a_version() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = folder.path().join("model");
    let copy = |from: &Path, to: &Path| std::fs::copy(from, to).expect("copied");
    let source = Path::new("tests/models/texts/encoder");
    std::fs::create_dir_all(model.join("1_Pooling")).expect("a folder");
    for file in [
        "model.onnx",
        "tokenizer.json",
        "config.json",
        "modules.json",
        "sentence_bert_config.json",
        "1_Pooling/config.json",
    ] {
        copy(&source.join(file), &model.join(file));
    }
    let catalog = folder.path().join("catalog").to_string_lossy().into_owned();
    let open = async || {
        let catalog = ObjectStoreCatalog::open(&catalog).await.expect("a catalog");
        let runtime = PredictRuntime::builder().with_catalog(Arc::new(catalog)).build();
        SessionContext::new().with_predict(Arc::new(runtime))
    };
    let rows = expected("encoder");
    let embed = async |context: &SessionContext, name: &str| {
        register(context, &rows, &DataType::Utf8);
        vectors(&sql(context, &format!("SELECT embed('{name}', text) FROM t ORDER BY i")).await, 0)
    };
    let context = open().await;
    let create = format!("CREATE OR REPLACE MODEL m FROM '{}'", model.display());
    sql(&context, &create).await;
    std::fs::write(model.join("sentence_bert_config.json"), r#"{"max_seq_length": 8}"#).expect("written");
    sql(&context, &create).await;
    let hashes = sql(&context, "SELECT DISTINCT sha256 FROM predict.versions WHERE model = 'm'").await;
    assert_eq!(hashes.iter().map(RecordBatch::num_rows).sum::<usize>(), 2, "what cuts texts is part of a version");
    std::fs::remove_dir_all(&model).expect("removed");
    // Another process, without the folder that it came from.
    let context = open().await;
    for (found, row) in embed(&context, "m/1").await.iter().zip(&rows) {
        close(found, &row.output, &row.text);
    }
    for (found, row) in embed(&context, "m/2").await.iter().zip(&rows) {
        let differs = found.iter().zip(&row.output).any(|(found, expected)| (found - expected).abs() > 1e-3);
        assert_eq!(differs, row.tokens > 8, "{}", row.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_texts_are_cut_split_or_refused() {
    let context = session(1);
    for (name, options) in
        [("cut", ""), ("split", "OPTIONS (on_long 'split')"), ("strict", "OPTIONS (on_long 'error')")]
    {
        sql(&context, &format!("CREATE MODEL {name} FROM 'tests/models/texts/encoder' {options}")).await;
    }
    let rows = expected("encoder");
    register(&context, &rows, &DataType::Utf8);
    let plan = sql(&context, "EXPLAIN ANALYZE SELECT embed('cut', text) FROM t").await;
    let plan = datafusion::arrow::util::pretty::pretty_format_batches(&plan).expect("text").to_string();
    let counter = |name: &str| -> usize {
        let at = plan.find(&format!("{name}=")).unwrap_or_else(|| panic!("{name}: {plan}")) + name.len() + 1;
        let digits: String = plan[at..].chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or_else(|_| panic!("{name}: {plan}"))
    };
    let unique: BTreeMap<_, _> = rows.iter().map(|row| (row.text.as_str(), row.tokens)).collect();
    assert_eq!(counter("tokens"), unique.values().sum::<usize>());
    assert_eq!(counter("repeated"), rows.len() - unique.len());
    let cut: BTreeSet<_> = rows.iter().filter(|row| row.cut).map(|row| row.text.as_str()).collect();
    assert_eq!(counter("truncated"), cut.len());
    assert_eq!(counter("rows_scored"), rows.len());

    // The mean of the parts of a text, each by its tokens, as Python has them one by one.
    let words: Vec<_> = "invoice ".repeat(300).split_whitespace().map(str::to_owned).collect();
    let parts: Vec<_> = words.chunks(22).map(|part| part.join(" ")).collect();
    let text = words.join(" ");
    sql(&context, "CREATE MODEL raw FROM 'tests/models/texts/encoder' OPTIONS (normalize false)").await;
    let part = |text: &str| format!("SELECT embed('raw', '{text}')");
    let (mut mean, mut weight) = (vec![0f32; 16], 0.0);
    for text in &parts {
        let tokens = text.split(' ').count() as f32 + 2.0;
        let vector = vectors(&sql(&context, &part(text)).await, 0).remove(0);
        mean.iter_mut().zip(vector).for_each(|(sum, value)| *sum += value * tokens);
        weight += tokens;
    }
    mean.iter_mut().for_each(|sum| *sum /= weight);
    let length = mean.iter().map(|value| value * value).sum::<f32>().sqrt();
    mean.iter_mut().for_each(|value| *value /= length);
    let found = vectors(&sql(&context, &format!("SELECT embed('split', '{text}')")).await, 0);
    close(&found[0], &mean, "the mean of the parts");

    let refused = error(&context, "SELECT embed('strict', text) FROM t").await;
    assert!(refused.contains("has more than 24 tokens (option on_long 'error')"), "{refused}");
    let tried = sql(&context, "SELECT try_predict('strict', text) FROM t ORDER BY i").await;
    let nulls: Vec<_> =
        tried.iter().flat_map(|batch| (0..batch.num_rows()).map(|row| batch.column(0).is_null(row))).collect();
    assert_eq!(nulls, rows.iter().map(|row| row.cut).collect::<Vec<_>>());
    let plan = sql(&context, "EXPLAIN ANALYZE SELECT embed('split', text) FROM t").await;
    let plan = datafusion::arrow::util::pretty::pretty_format_batches(&plan).expect("text").to_string();
    assert!(plan.contains("truncated=0"), "nothing is left out of a text that is split: {plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_that_are_missing_odd_or_huge() {
    let context = session(2);
    sql(&context, "CREATE MODEL m FROM 'tests/models/texts/encoder'").await;
    let huge = "the parcel has not arrived yet ".repeat(400_000);
    let texts = StringViewArray::from(vec![None, Some(""), Some("\u{0}"), Some(huge.as_str()), Some(&huge[..2000])]);
    let batch = RecordBatch::try_from_iter_with_nullable([("text", Arc::new(texts) as ArrayRef, true)]);
    context.register_batch("t", batch.expect("a batch")).expect("registered");
    let found = sql(&context, "SELECT embed('m', text) AS v FROM t").await;
    let column = found[0].column(0);
    let nulls: Vec<_> = (0..5).map(|row| column.is_null(row)).collect();
    assert_eq!(nulls, [true, false, false, false, false]);
    let vectors = vectors(&found, 0);
    close(&vectors[3], &vectors[4], "no more of a text is looked at than fits");
    for (call, expected) in [
        ("embed('m', 1)", "expected Utf8, found Int64"),
        ("embed('m', X'00')", "expected Utf8, found Binary"),
        ("embed('m', 'a', 'b')", "takes 1 feature (text), found 2"),
        ("classify('m', 'a')", "gives FixedSizeList"),
    ] {
        let refused = error(&context, &format!("SELECT {call}")).await;
        assert!(refused.contains(expected), "{call}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn models_and_options_that_do_not_fit_are_refused() {
    let context = session(1);
    for (model, options, expected) in [
        ("texts/decoder", "", "generates text, token by token (its input 'past_key_values.0.key')"),
        ("texts/misfit", "", "but the model knows 100: they are not of one model"),
        ("texts/encoder", "max_tokens 49", "option 'max_tokens' is 49, but the model takes 48"),
        ("texts/encoder", "max_tokens 2", "so no text fits"),
        ("texts/encoder", "pooling 'best'", "expected mean, cls, max, last or none"),
        ("texts/encoder", "pooling 'none'", "is a vector for each token"),
        ("texts/encoder", "all_scores true", "gives vectors, not labels"),
        ("texts/encoder", "output 'logits'", "has no output 'logits'"),
        ("texts/classifier", "pooling 'cls'", "gives labels, not vectors"),
        ("texts/classifier", "on_long 'split'", "is for embeddings of single texts"),
        ("sklearn/iris_forest.onnx", "pooling 'mean'", "is no model of texts (option 'pooling')"),
    ] {
        let options = if options.is_empty() { String::new() } else { format!("OPTIONS ({options})") };
        let refused = error(&context, &format!("CREATE MODEL m FROM 'tests/models/{model}' {options}")).await;
        assert!(refused.contains(expected), "{model} {options}: {refused}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::copy("tests/models/texts/plain/model.onnx", folder.path().join("model.onnx")).expect("copied");
    for broken in ["{", "{\"version\": \"1.0\"}", ""] {
        std::fs::write(folder.path().join("tokenizer.json"), broken).expect("written");
        let refused = error(&context, &format!("CREATE MODEL m FROM '{}'", folder.path().display())).await;
        assert!(refused.contains("its file tokenizer.json can't be used"), "{broken}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn options_say_more_than_files() {
    let context = session(1);
    let vector = async |options: &str, text: &str| {
        sql(&context, &format!("CREATE OR REPLACE MODEL m FROM 'tests/models/texts/encoder' {options}")).await;
        vectors(&sql(&context, &format!("SELECT embed('m', '{text}')")).await, 0).remove(0)
    };
    let text = "my card was declined";
    let usual = vector("", text).await;
    close(&vector("OPTIONS (pooling 'mean', normalize true)", text).await, &usual, "as the files say");
    for options in
        ["pooling 'cls'", "pooling 'max'", "pooling 'last'", "normalize false", "max_tokens 4", "prefix 'query: '"]
    {
        let other = vector(&format!("OPTIONS ({options})"), text).await;
        assert!(other.iter().zip(&usual).any(|(a, b)| (a - b).abs() > 1e-3), "{options} changes nothing");
    }
    let prefixed = vector("OPTIONS (prefix 'query: ')", text).await;
    close(&prefixed, &vector("", &format!("query: {text}")).await, "a prefix stands before the text");
}

/// A vector of a static embedding model, as model2vec gives it.
#[derive(Deserialize)]
struct StaticVector {
    text: String,
    vector: Vec<f32>,
}

#[tokio::test]
async fn static_embeddings_are_those_of_model2vec() {
    let file = std::fs::read("tests/models/static/expected.json").expect("the file");
    let all: BTreeMap<String, Vec<StaticVector>> = serde_json::from_slice(&file).expect("JSON");
    for (name, expected) in all {
        let context = session(2);
        sql(&context, &format!("CREATE MODEL m FROM 'tests/models/static/{name}'")).await;
        let texts: StringArray = expected.iter().map(|row| Some(row.text.as_str())).collect();
        let batch = RecordBatch::try_from_iter([("text", Arc::new(texts) as ArrayRef)]).expect("a column");
        context.register_batch("t", batch).expect("a new name");
        let batches = sql(&context, "SELECT embed('m', text) FROM t").await;
        let found = vectors(&batches, 0);
        assert_eq!(found.len(), expected.len());
        for (expected, found) in expected.iter().zip(found) {
            // model2vec gives vectors in the type of those in the file: of float16, three digits.
            let digits = if name == "weighted" { 1e-3 } else { 1e-5 };
            let same = |(a, b): (&f32, &f32)| (a - b).abs() <= digits * a.abs().max(1.0); // NaN is not
            let differs = !expected.vector.iter().zip(&found).all(same);
            assert!(found.len() == expected.vector.len() && !differs, "{name}: '{}'", expected.text);
        }
        let engine = sql(&context, "SELECT engine FROM predict.versions").await;
        assert_eq!(engine[0].column(0).as_string::<i32>().value(0), "native");
    }
}
