//! Every model gives what Python's onnxruntime gives: by each engine, in any batch, with and without our rewrites.

mod cases;

use std::path::PathBuf;
use std::sync::Arc;

use cases::{Case, Setting, manifest, models};
use datafusion::arrow::datatypes::DataType;
use datafusion_predict::PredictRuntime;
use proptest::test_runner::{Config, TestRunner};

#[tokio::test(flavor = "multi_thread")]
async fn every_model_equals_python_in_every_setting() {
    let runtime = Arc::new(PredictRuntime::default());
    for (name, entry) in manifest(&models()) {
        let case = Case::read(&models(), &name, &entry).await;
        for engine in ["auto", "onnxruntime"] {
            for extract in [true, false] {
                for (batch_size, arrow_batch, partitions) in
                    [(1, 100, 3), (7, 64, 1), (7, 50, 4), (8192, 8192, 1), (8192, 8, 2)]
                {
                    let setting = Setting { batch_size, arrow_batch, partitions, extract, engine };
                    let outputs = case.predict(&runtime, setting).await.unwrap_or_else(|error| panic!("{error}"));
                    case.check(&outputs, setting).unwrap_or_else(|error| panic!("{error}"));
                }
            }
        }
    }
}

/// For any sizes, by any engine, and with each rewrite on or off: the same rows.
#[test]
fn any_setting_gives_the_same_rows() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let predict = Arc::new(PredictRuntime::default());
    let manifest = manifest(&models());
    let names =
        ["diabetes_pipeline_zipmap", "lightgbm_breast_cancer", "digits_cnn", "sequence", "fixed_batch", "iris_forest"];
    let cases: Vec<Case> = runtime.block_on(async {
        let mut cases = vec![];
        for name in names {
            cases.push(Case::read(&models(), name, &manifest[name]).await);
        }
        cases
    });
    let flags = (proptest::bool::ANY, proptest::bool::ANY);
    let strategy = (0..cases.len(), 1usize..600, 1usize..600, 1usize..6, flags);
    let mut runner = TestRunner::new(Config { cases: 48, failure_persistence: None, ..Config::default() });
    let checked = runner.run(&strategy, |(case, batch_size, arrow_batch, partitions, (extract, any))| {
        let engine = if any { "auto" } else { "onnxruntime" };
        let setting = Setting { batch_size, arrow_batch, partitions, extract, engine };
        let case = &cases[case];
        let outputs = runtime.block_on(case.predict(&predict, setting)).unwrap_or_else(|error| panic!("{error}"));
        case.check(&outputs, setting).unwrap_or_else(|error| panic!("{error}"));
        Ok(())
    });
    checked.unwrap_or_else(|error| panic!("{error}"));
}

/// Texts may come in any of Arrow's forms, dictionaries too.
#[tokio::test(flavor = "multi_thread")]
async fn any_form_of_texts_gives_the_same_rows() {
    let runtime = Arc::new(PredictRuntime::default());
    let forms = [
        DataType::LargeUtf8,
        DataType::Utf8View,
        DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
        DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8)),
        DataType::Dictionary(Box::new(DataType::UInt16), Box::new(DataType::LargeUtf8)),
    ];
    let mut compared = 0;
    for folder in [models(), models().join("operators")] {
        for (name, entry) in manifest(&folder) {
            let case = Case::read(&folder, &name, &entry).await;
            for form in &forms {
                let Some(case) = case.with_texts_as(form) else { continue };
                compared += 1;
                for engine in ["auto", "onnxruntime"] {
                    let setting = Setting { batch_size: 20, arrow_batch: 33, partitions: 2, extract: true, engine };
                    let outputs = case.predict(&runtime, setting).await.unwrap_or_else(|error| panic!("{error}"));
                    case.check(&outputs, setting).unwrap_or_else(|error| panic!("{form}: {error}"));
                }
            }
        }
    }
    assert!(compared >= 50, "{compared}");
}

/// Runs all models of a folder by the engine that is the first to be able to; the share that our own engine ran.
async fn check_folder(folder: PathBuf, batches: &[(usize, usize)], repeat: usize) -> f64 {
    let runtime = Arc::new(PredictRuntime::default());
    let (mut native, mut problems) = (0, vec![]);
    let manifest = manifest(&folder);
    for (name, entry) in &manifest {
        let case = Case::read(&folder, name, entry).await.repeated(repeat);
        match case.engine(&runtime).await {
            Ok((engine, _)) if engine == "native" => native += 1,
            Ok((_, refusals)) => println!("{name} is not run natively: {}", refusals.join("; ")),
            Err(error) => {
                problems.push(error);
                continue;
            }
        }
        for (batch_size, arrow_batch) in batches {
            let (batch_size, arrow_batch) = (*batch_size, *arrow_batch);
            let setting = Setting { batch_size, arrow_batch, partitions: 2, extract: true, engine: "auto" };
            let checked = match case.predict(&runtime, setting).await {
                Ok(outputs) => case.check(&outputs, setting),
                Err(error) => Err(error),
            };
            problems.extend(checked.err());
        }
    }
    let share = f64::from(native) / manifest.len() as f64;
    println!("{native} of {} models run natively: {:.1} %", manifest.len(), share * 100.0);
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    share
}

/// Models of one operator, over the values of its attributes.
#[tokio::test(flavor = "multi_thread")]
async fn every_operator_equals_python() {
    // More rows than a block of any program, in batches that end anywhere.
    let share = check_folder(models().join("operators"), &[(8192, 8192), (777, 1000)], 50).await;
    assert!(share >= 0.88, "{share}");
}

/// The large matrix that `make matrix` makes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "its models are made by `make matrix`, which runs it"]
async fn the_matrix_equals_python() {
    let folder = std::env::var_os("MATRIX").map(PathBuf::from).expect("MATRIX names the folder of models");
    let share = check_folder(folder, &[(8192, 8192)], 1).await;
    assert!(share >= 0.95, "{share}");
}
