//! Models of images from SQL, against what Python makes of the same pictures one at a time.

mod statements;

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float32Type};
use datafusion::prelude::SessionContext;
use serde::Deserialize;
use statements::{error, session, sql};

const FOLDER: &str = "tests/models/images";

/// The pixels that a model is given of a picture.
#[derive(Deserialize)]
struct Case {
    file: String,
    options: String,
    pixels: Vec<u8>,
}

#[derive(Deserialize)]
struct Expected {
    pixels: Vec<Case>,
    free: Vec<Case>,
    last: Vec<Case>,
    files: Vec<String>,
    /// For each file the scores of all labels.
    classifier: Vec<[f32; 3]>,
    /// For each file its vector, of length 1.
    embedder: Vec<[f32; 3]>,
}

fn expected() -> Expected {
    let file = std::fs::read(format!("{FOLDER}/expected.json")).expect("the file");
    serde_json::from_slice(&file).expect("JSON")
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(format!("{FOLDER}/pictures/{name}")).expect("a picture")
}

/// A table `t` of pictures and their places.
fn register(context: &SessionContext, pictures: Vec<Option<Vec<u8>>>, kind: &DataType) {
    let places: Int64Array = (0..pictures.len() as i64).collect();
    let bytes: BinaryArray = pictures.into_iter().collect();
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("i", Arc::new(places) as ArrayRef, false),
        ("picture", cast(&bytes, kind).expect("bytes"), true),
    ]);
    let _ = context.deregister_table("t");
    context.register_batch("t", batch.expect("columns of one length")).expect("a new name");
}

/// The rows of the only column, each a list of floats.
fn lists(batches: &[RecordBatch]) -> Vec<Vec<f32>> {
    let rows = batches.iter().flat_map(|batch| {
        let column = batch.column(0);
        (0..column.len()).map(|row| match column.data_type() {
            DataType::FixedSizeList(..) => column.as_fixed_size_list().value(row),
            _ => column.as_list::<i32>().value(row),
        })
    });
    rows.map(|values| values.as_primitive::<Float32Type>().values().to_vec()).collect()
}

/// Creates the model with the case's options, and gives what it is given of the case's picture, from 0 to 255.
async fn pixels(context: &SessionContext, model: &str, case: &Case) -> Vec<f32> {
    let unscaled = if model == "last" { "" } else { ", scale 1" };
    let create =
        format!("CREATE OR REPLACE MODEL {model} FROM '{FOLDER}/{model}.onnx' OPTIONS ({}{unscaled})", case.options);
    sql(context, &create).await;
    register(context, vec![Some(file(&case.file))], &DataType::Binary);
    lists(&sql(context, &format!("SELECT predict('{model}', picture) FROM t")).await).remove(0)
}

/// JPEG leaves open how colours between pixels are computed, and WebP too: Pillow's libraries do it otherwise.
fn tolerance(file: &str) -> f32 {
    match file {
        "lossy.webp" | "cmyk.jpg" => 3.0,
        _ => 2.0,
    }
}

#[tokio::test]
async fn pictures_are_prepared_as_pillow_does_it() {
    let (context, expected) = (session(1), expected());
    let models = [("pixels", expected.pixels), ("free", expected.free), ("last", expected.last)];
    let mut wrong = vec![];
    for (model, cases) in models {
        for case in cases {
            let found = pixels(&context, model, &case).await;
            assert_eq!(found.len(), case.pixels.len(), "{model}, {} ({})", case.file, case.options);
            let differences = found.iter().zip(&case.pixels).map(|(found, pixel)| (found - f32::from(*pixel)).abs());
            let largest = differences.max_by(f32::total_cmp).expect("pixels"); // NaN is the largest
            if largest.is_nan() || largest > tolerance(&case.file) {
                wrong.push(format!("{model}, {} ({}): {largest}", case.file, case.options));
            }
        }
    }
    assert!(wrong.is_empty(), "differ by more than they may:\n{}", wrong.join("\n"));
}

#[tokio::test]
async fn pictures_get_labels_and_vectors() {
    let expected = expected();
    let create = [
        format!("CREATE MODEL best FROM '{FOLDER}/classifier'"),
        format!("CREATE MODEL each FROM '{FOLDER}/classifier' OPTIONS (all_scores true)"),
        format!("CREATE MODEL vector FROM '{FOLDER}/embedder.onnx' OPTIONS (image_size 16, normalize true)"),
    ];
    for (partitions, kind) in [(1, DataType::Binary), (3, DataType::BinaryView), (2, DataType::LargeBinary)] {
        let context = session(partitions);
        for create in &create {
            sql(&context, create).await;
        }
        register(&context, expected.files.iter().map(|name| Some(file(name))).collect(), &kind);
        let scores = "SELECT [s['lake'], s['street'], s['garden']] FROM (SELECT i, classify('each', picture) AS s FROM t) ORDER BY i";
        let found = lists(&sql(&context, scores).await);
        assert_eq!(found.len(), expected.files.len());
        for ((name, expected), found) in expected.files.iter().zip(&expected.classifier).zip(&found) {
            for (expected, found) in expected.iter().zip(found) {
                assert!((expected - found).abs() < 0.02, "{name}: {found} is not {expected}");
            }
        }
        let labels = "SELECT c['label'] AS label, c['score'] AS score FROM (SELECT i, classify('best', picture) AS c FROM t) ORDER BY i";
        let batches = sql(&context, labels).await;
        let best = batches.iter().flat_map(|batch| {
            let (labels, scores) = (batch.column(0).as_string::<i32>(), batch.column(1).as_primitive::<Float32Type>());
            (0..batch.num_rows()).map(|row| (labels.value(row).to_owned(), scores.value(row))).collect::<Vec<_>>()
        });
        let best: Vec<_> = best.collect();
        assert_eq!(best.len(), found.len());
        for ((label, score), scores) in best.into_iter().zip(&found) {
            let place = ["lake", "street", "garden"].iter().position(|name| *name == label).expect("a label");
            assert!((scores[place] - score).abs() < 1e-5 && scores.iter().all(|other| *other <= score + 1e-5));
        }
        let found =
            lists(&sql(&context, "SELECT v FROM (SELECT i, embed('vector', picture) AS v FROM t) ORDER BY i").await);
        assert_eq!(found.len(), expected.files.len());
        for ((name, expected), found) in expected.files.iter().zip(&expected.embedder).zip(&found) {
            let cosine: f32 = expected.iter().zip(found).map(|(a, b)| a * b).sum();
            assert!(cosine > 0.999, "{name}: {found:?} is not {expected:?}");
        }
    }
}

#[tokio::test]
async fn a_damaged_picture_is_its_own_rows_error() {
    let context = session(1);
    sql(&context, &format!("CREATE MODEL m FROM '{FOLDER}/pixels.onnx' OPTIONS (resize exact)")).await;
    let photo = file("photo.jpg");
    let rows = vec![
        Some(photo.clone()),
        Some(photo[..photo.len() / 2].to_vec()),
        None,
        Some(b"no picture".to_vec()),
        Some(vec![]),
        Some(file("small.png")),
    ];
    register(&context, rows, &DataType::Binary);
    let problem = error(&context, "SELECT predict('m', picture) FROM t").await;
    assert!(problem.contains("model 'm': an image of 750 bytes in row 2 of a batch is a damaged jpeg"), "{problem}");
    let scored =
        sql(&context, "SELECT try_predict('m', picture) IS NOT NULL, predict_error('m', picture) FROM t").await;
    let scored: Vec<_> = scored
        .iter()
        .flat_map(|batch| {
            let (whole, reasons) = (batch.column(0).as_boolean(), batch.column(1).as_string::<i32>());
            let reason = |row: usize| if reasons.is_null(row) { "" } else { reasons.value(row) };
            (0..batch.num_rows()).map(|row| (whole.value(row), reason(row).to_owned())).collect::<Vec<_>>()
        })
        .collect();
    let whole: Vec<_> = scored.iter().map(|(whole, _)| *whole).collect();
    assert_eq!(whole, [true, false, false, false, false, true]);
    assert!(
        scored[3].1.contains("an image of 10 bytes is no JPEG, PNG or WebP: it begins with 'no pictu'"),
        "{}",
        scored[3].1
    );
    assert!(scored[4].1.contains("an image of 0 bytes is empty"), "{}", scored[4].1);
    sql(&context, &format!("CREATE MODEL few FROM '{FOLDER}/pixels.onnx' OPTIONS (resize exact, max_pixels 2400)"))
        .await;
    let problem = error(&context, "SELECT predict('few', picture) FROM t LIMIT 1").await;
    assert!(problem.contains("has 61 × 45 pixels, more than 2400 (option 'max_pixels')"), "{problem}");
}

#[tokio::test]
async fn what_does_not_fit_is_said_when_the_model_is_created() {
    let context = session(1);
    let cases = [
        ("free.onnx", "image_size 8", "has the channels can't be told"),
        ("free.onnx", "layout NCHW", "OPTIONS (image_size 224) says which"),
        ("pixels.onnx", "image_size 9", "takes 8 x 12 pixels, but pictures are to have 9 x 9"),
        ("pixels.onnx", "channels L", "has 3 channels"),
        ("pixels.onnx", "mean [0.1, 0.2]", "option 'mean' is '[0.1, 0.2]'"),
        ("pixels.onnx", "std 0", "nothing can be divided by 0"),
        ("pixels.onnx", "resize round", "option 'resize' is 'round': expected shortest, exact, letterbox, pad, none"),
        ("pixels.onnx", "image_sise 8", "did you mean 'image_size'?"),
        ("pixels.onnx", "resize exact, prefix 'x'", "is for models of texts"),
        ("last.onnx", "resize exact, mean 0.5", "takes pixels as they are"),
        ("../neural/diabetes_mlp.onnx", "image_size 8", "is no model of images (option 'image_size')"),
    ];
    for (model, options, expected) in cases {
        let problem = error(&context, &format!("CREATE MODEL m FROM '{FOLDER}/{model}' OPTIONS ({options})")).await;
        assert!(problem.contains(expected), "{model} ({options}): {problem}");
    }
    sql(&context, &format!("CREATE MODEL m FROM '{FOLDER}/classifier'")).await;
    let problem = error(&context, "SELECT classify('m', 'words')").await;
    assert!(problem.contains("argument 1 ('image'): expected Binary, found Utf8"), "{problem}");
}
