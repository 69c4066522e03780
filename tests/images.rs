//! Models of images from SQL, against what Python makes of the same pictures one at a time.

mod statements;

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Float32Type, Int64Type};
use datafusion::prelude::SessionContext;
use datafusion_predict::{PredictExt, PredictRuntime};
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
    assert!(problem.contains("model 'm': an image of 750 bytes is a damaged jpeg"), "{problem}");
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

/// A folder with a graph that takes pictures of any size, and with `preprocessor` beside it.
fn folder(preprocessor: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::copy(format!("{FOLDER}/free.onnx"), folder.path().join("model.onnx")).expect("a copy");
    std::fs::write(folder.path().join("preprocessor_config.json"), preprocessor).expect("a file");
    folder
}

#[tokio::test]
async fn the_file_beside_the_model_is_followed_or_refused() {
    let context = session(1);
    // Cut, and not resized; stretched, also to another size.
    let followed = [
        (r#"{"do_resize": false, "do_center_crop": true, "crop_size": {"height": 8, "width": 12}}"#, "resize none", ""),
        (r#"{"size": {"height": 99, "width": 99}}"#, "resize exact", "image_size '8x12', "),
    ];
    let cases = expected().pixels;
    for (preprocessor, same, options) in followed {
        let folder = folder(preprocessor);
        let path = folder.path().display();
        sql(&context, &format!("CREATE OR REPLACE MODEL m FROM '{path}' OPTIONS ({options}layout NCHW, scale 1)"))
            .await;
        register(&context, vec![Some(file("photo.jpg"))], &DataType::Binary);
        let found = lists(&sql(&context, "SELECT predict('m', picture) FROM t").await).remove(0);
        let case = cases.iter().find(|case| case.file == "photo.jpg" && case.options == same).expect("a case");
        assert_eq!(found.len(), case.pixels.len(), "{preprocessor}");
        assert!(found.iter().zip(&case.pixels).all(|(a, b)| (a - f32::from(*b)).abs() <= 2.0), "{preprocessor}");
    }
    let refused = [
        (r#"{"size": 0}"#, "'size' of its preprocessor_config.json is 0 x 0 pixels"),
        (r#"{"size": {"height": 4294967296, "width": 4294967296}}"#, "expected 1 to 8192 on a side"),
        (r#"{"size": {"shortest_edge": 64, "longest_edge": 80}, "do_pad": true}"#, "asks for 'do_pad'"),
        (r#"{"size": {"longest_edge": 80}}"#, "each to another size"),
        (r#"{"size": 8, "image_processor_type": "ConvNextImageProcessor", "crop_pct": 0}"#, "'crop_pct' of its"),
        (r#"{"size": 8, "crop_pct": 0.9}"#, "asks for 'crop_pct'"),
        (r#"{"size": 8, "image_mean": [0, 0, 0], "image_std": [0, 1, 1]}"#, "'image_std' of its"),
        (r#"{"size": 8"#, "is no JSON"),
    ];
    for (preprocessor, problem) in refused {
        let folder = folder(preprocessor);
        let create = format!("CREATE MODEL other FROM '{}' OPTIONS (layout NCHW)", folder.path().display());
        let found = error(&context, &create).await;
        assert!(found.contains(problem), "{preprocessor}: {found}");
    }
}

#[tokio::test]
async fn files_are_found_and_read_by_any_name_where_an_app_allows_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let names = ["a b.txt", "a%20b.txt", "a#c.txt", "a?b.txt", "ä.txt", "[x].txt"];
    for name in names {
        std::fs::write(folder.path().join(name), name).expect("a file");
    }
    let path = folder.path().display();
    let refused = error(&session(1), &format!("SELECT * FROM files('{path}/*.txt')")).await;
    assert!(refused.contains("files"), "{refused}");

    let runtime = PredictRuntime::builder().with_file_functions().build();
    let context = SessionContext::new().with_predict(Arc::new(runtime));
    for pattern in [format!("{path}/*.txt"), format!("{path}/"), format!("file://{path}/*.txt")] {
        let query = format!(
            "SELECT count(*) FROM files('{pattern}') WHERE content = read_blob(path) AND arrow_cast(content, 'Utf8') IN ('{}')",
            names.join("', '")
        );
        let count = sql(&context, &query).await;
        assert_eq!(count[0].column(0).as_primitive::<Int64Type>().value(0), names.len() as i64, "{pattern}");
    }
    let one = sql(&context, &format!("SELECT arrow_cast(content, 'Utf8') FROM files('{path}/[x].txt')")).await;
    assert_eq!(one[0].column(0).as_string::<i32>().value(0), "[x].txt");
}
