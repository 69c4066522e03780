//! Models on a real device provider: ONNX Runtime's WebGPU on a software driver, which `make webgpu` brings. It has memory and kernels of
//! its own, and leaves nodes to the CPU, as a GPU's does.
//!
//! Skipped where it can't be had.

mod common;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::{Ran, shell};

/// The shell with the library and the driver; `None`, if they are not there.
fn on_webgpu(arguments: &[&str], statements: &[&str]) -> Option<Command> {
    let folder = PathBuf::from(std::env::var_os("WEBGPU").filter(|folder| !folder.is_empty())?);
    let driver = folder.join("driver/usr/lib/chromium");
    if !driver.is_dir() {
        return None;
    }
    let libraries = std::fs::read_dir(folder.join("ort/onnxruntime/capi")).expect("the package");
    let libraries = libraries.map(|entry| entry.expect("an entry").path());
    let is_library = |path: &PathBuf| path.to_string_lossy().contains("libonnxruntime.so");
    let library = libraries.into_iter().find(is_library).expect("the library");
    let mut command = shell();
    for name in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] {
        command.env(name, driver.join("vk_swiftshader_icd.json"));
    }
    command.env("LD_LIBRARY_PATH", &driver).arg("--onnxruntime").arg(library);
    command.args(["-q", "--format", "csv"]).args(arguments).stdin(Stdio::null());
    statements.iter().for_each(|statement| {
        command.args(["-c", statement]);
    });
    Some(command)
}

fn run(statements: &[&str]) -> Option<Ran> {
    run_with(&[], statements)
}

fn run_with(arguments: &[&str], statements: &[&str]) -> Option<Ran> {
    let ran = on_webgpu(arguments, statements).map(|mut command| Ran::from(command.output().expect("the shell")));
    if ran.is_none() {
        eprintln!("skipped: there is no WebGPU (make webgpu)");
    }
    ran
}

/// All numbers that were printed.
fn numbers(ran: &Ran) -> Vec<f64> {
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let words = ran.stdout.split(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c)));
    words.filter_map(|word| word.parse::<f64>().ok()).filter(|number| number.is_finite()).collect()
}

/// Model, options, and a query of predictions by it.
const MODELS: [(&str, &str, &str); 7] = [
    (
        "neural/diabetes_mlp.onnx",
        "",
        "SELECT predict('m', age, sex, bmi, bp, s1, s2, s3, s4, s5, s6) FROM 'tests/models/neural/diabetes_mlp.parquet' LIMIT 40",
    ),
    (
        "neural/digits_cnn.onnx",
        "",
        "SELECT predict('m', pixels) FROM 'tests/models/neural/digits_cnn.parquet' LIMIT 20",
    ),
    ("texts/encoder", "", TEXTS),
    ("texts/classifier", ", all_scores true", TEXTS),
    ("texts/plain", "", TEXTS),
    ("texts/positions", "", TEXTS),
    (
        "images/classifier",
        ", all_scores true",
        "SELECT predict('m', content) FROM files('tests/models/images/pictures/*.jpg') ORDER BY path",
    ),
];

const TEXTS: &str = "SELECT predict('m', body) FROM (VALUES ('Where can I download my invoice?'), ('It rains'), (''),
    ('My card was declined, although there is enough money on it.')) AS t(body)";

#[test]
fn neural_models_give_what_they_give_on_the_cpu() {
    for (model, options, query) in MODELS {
        let create =
            |device: &str| format!("CREATE MODEL m FROM 'tests/models/{model}' OPTIONS (device '{device}'{options})");
        let (there, here) = (create("webgpu"), create("cpu"));
        let Some(there) = run(&["SET predict.engine = 'onnxruntime'", &there, query]) else { return };
        let here = run(&["SET predict.engine = 'onnxruntime'", &here, query]).expect("it is there");
        let (found, expected) = (numbers(&there), numbers(&here));
        assert!(found.len() == expected.len() && found.len() > 10, "{model}: {} of {}", found.len(), expected.len());
        let largest = expected.iter().fold(0_f64, |largest, value| largest.max(value.abs()));
        let difference =
            found.iter().zip(&expected).map(|(found, expected)| (found - expected).abs()).fold(0.0, f64::max);
        assert!(difference <= 1e-4 * largest, "{model}: {difference} of {largest}");
    }
}

#[test]
fn a_device_has_one_session_and_says_how_many_nodes_it_has() {
    let statements = [
        "SET datafusion.execution.target_partitions = 8",
        "CREATE MODEL m FROM 'tests/models/texts/encoder' OPTIONS (device 'webgpu')",
        "SET datafusion.execution.batch_size = 64",
        "SELECT count(predict('m', 'text ' || value)) FROM generate_series(1, 1024) AS g(value)",
        "SELECT device, sessions FROM predict.loaded",
        "DESCRIBE MODEL m",
        "SHOW DEVICES",
    ];
    let Some(ran) = run(&statements) else { return };
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stdout.contains("webgpu,1\n"), "{ran:?}");
    let nodes = ran.stdout.lines().find_map(|line| line.strip_prefix("call,nodes on device,")).expect("the nodes");
    let (there, all) = nodes.split_once(" of ").expect("some of all");
    let (there, all): (usize, usize) = (there.parse().expect("a number"), all.parse().expect("a number"));
    assert!(there > 10 && there < all, "{nodes}");
    assert!(ran.stdout.contains("nodes run on device 'webgpu', the others on the CPU: "), "{ran:?}");
    assert!(ran.stdout.lines().any(|line| line == "webgpu,,,onnxruntime,"), "{ran:?}");
}

#[test]
fn a_device_is_not_idle_while_there_are_rows() {
    let pixels = "array_repeat(value * 0.001, 64)";
    let statements = [
        "SET datafusion.execution.target_partitions = 4",
        "CREATE MODEL m FROM 'tests/models/neural/digits_cnn.onnx' OPTIONS (device 'webgpu', batch_size 64)",
        &format!("EXPLAIN ANALYZE SELECT count(predict('m', {pixels})) FROM generate_series(1, 2048) AS g(value)"),
    ];
    let Some(ran) = run(&statements) else { return };
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let time = |name: &str| {
        let rest = ran.stdout.split_once(&format!("{name}=")).unwrap_or_else(|| panic!("no {name}: {ran:?}")).1;
        let text: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '.' || *c == 'µ').collect();
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let number: f64 = text[..text.len() - unit.len()].parse().expect("a number");
        number
            * match unit {
                "ns" => 1e-9,
                "µs" => 1e-6,
                "ms" => 1e-3,
                _ => 1.0,
            }
    };
    // Batches are encoded and decoded while others run.
    assert!(time("device_idle_time") < 0.1 * time("run_time"), "{}", ran.stdout);
}

#[test]
fn a_model_without_a_node_on_the_device_is_refused() {
    let statements = [
        "SET predict.engine = 'onnxruntime'",
        "CREATE MODEL m FROM 'tests/models/sklearn/diabetes_forest.onnx' OPTIONS (device 'webgpu')",
    ];
    let Some(ran) = run(&statements) else { return };
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("device 'webgpu' runs none of its"), "{ran:?}");
}

#[test]
fn a_run_on_the_device_is_cancelled_within_it() {
    // One run of all rows, which takes many times longer on the software driver.
    let create = "CREATE MODEL m FROM 'tests/models/neural/digits_cnn.onnx' OPTIONS (device 'webgpu', max_run '200ms', batch_size 8192, validate false)";
    let pixels = "array_repeat(value * 0.001, 64)";
    let slow = format!("SELECT count(predict('m', {pixels})) FROM generate_series(1, 8192) AS g(value)");
    let Some(ran) = run(&[create, &slow]) else { return };
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("a run took longer than its option max_run allows (200ms)"), "{ran:?}");
}

#[test]
fn options_of_the_provider_are_checked_and_reach_it() {
    let create = |option: &str| {
        format!("CREATE MODEL m FROM 'tests/models/images/classifier' OPTIONS (device 'webgpu', provider.{option})")
    };
    // With the channels last, the provider adds nodes that turn tensors.
    let nodes = |layout: &str| {
        let ran = run(&[&create(&format!("preferredlayout '{layout}'")), "DESCRIBE MODEL m"])?;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran.stdout.lines().find_map(|line| line.strip_prefix("call,nodes on device,")).map(str::to_owned)
    };
    let Some(first) = nodes("NCHW") else { return };
    let last = nodes("nhwc").expect("nodes");
    assert_ne!(first, last);
    let create_plain = "CREATE MODEL m FROM 'tests/models/images/classifier' OPTIONS (device 'webgpu')";
    let of_app = ["--provider-option", "webgpu.preferredLayout=NHWC"];
    let ran = run_with(&of_app, &[create_plain, "DESCRIBE MODEL m"]).expect("it is there");
    assert!(ran.stdout.contains(&format!("call,nodes on device,{last}")), "{last}: {ran:?}");
    let wrong = run(&[&create("preferedLayout 'NHWC'")]).expect("it is there");
    assert!(wrong.stderr.contains("did you mean 'provider.preferredLayout'?"), "{wrong:?}");
    let file = run(&[&create("forceCpuNodeNames '/etc/passwd'")]).expect("it is there");
    assert!(file.stderr.contains("has no option 'provider.forcecpunodenames' that a statement may set"), "{file:?}");
}
