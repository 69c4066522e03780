//! Plans survive the way through bytes: each plan that the SQL tests make gives the same rows in another process, which
//! shares only the catalog's folder and the files of tables.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::common::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, collect, displayable};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_predict::{ObjectStoreCatalog, PredictCodec, PredictExt, PredictRuntime, PredictSql};
use datafusion_proto::bytes::{
    logical_plan_from_bytes_with_extension_codec, logical_plan_to_bytes_with_extension_codec,
    physical_plan_from_bytes_with_extension_codec, physical_plan_to_bytes_with_extension_codec,
};
use datafusion_sqllogictest::DFColumnType;
use sqllogictest::{Record, parse_file};

/// The folder with plans that a process of this test is to run.
const PLANS: &str = "DATAFUSION_PREDICT_TEST_PLANS";

async fn session(catalog: &Path) -> (SessionContext, PredictCodec) {
    let catalog = ObjectStoreCatalog::open(catalog.to_str().expect("a path")).await.expect("a catalog");
    let runtime = Arc::new(PredictRuntime::builder().with_file_functions().with_catalog(Arc::new(catalog)).build());
    let config = SessionConfig::new().with_target_partitions(2).with_information_schema(true);
    let codec = PredictCodec::new(runtime.clone());
    (SessionContext::new_with_config(config).with_predict(runtime), codec)
}

/// Rows as text; in what order they came, unless the plan promises none.
fn text(batches: &[RecordBatch], ordered: bool) -> String {
    let text = pretty_format_batches(batches).expect("a table").to_string();
    let mut lines: Vec<_> = text.lines().collect();
    if !ordered {
        lines.sort_unstable();
    }
    lines.join("\n")
}

fn statements(file: &Path) -> Vec<String> {
    let records = parse_file::<DFColumnType>(file).expect("a file of SQL tests");
    let sql = records.into_iter().filter_map(|record| match record {
        Record::Statement { sql, .. } | Record::Query { sql, .. } => Some(sql),
        _ => None,
    });
    sql.collect()
}

fn is_ordered(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.properties().output_ordering().is_some()
}

/// What a plan is, where it can't be written as bytes.
type Unwritten = BTreeMap<String, usize>;

/// What an error says, without the place in DataFusion's sources and what follows the first line.
fn kind(error: &DataFusionError) -> String {
    let text = error.strip_backtrace();
    let line = text.lines().next().unwrap_or_default();
    let place = line.find(" at /").unwrap_or(line.len());
    line[..place].chars().take(180).collect()
}

struct Counts {
    physical: usize,
    logical: usize,
}

/// Runs the statements of `file`, and writes the plans of its queries with the rows that they give here.
async fn write_plans(file: &Path, folder: &Path, unwritten: &mut Unwritten, counts: &mut Counts) {
    let (context, codec) = session(&folder.join("catalog")).await;
    for (i, sql) in statements(file).into_iter().enumerate() {
        let Ok(frame) = context.predict_sql(&sql).await else { continue };
        let logical = frame.logical_plan().clone();
        let changes = matches!(logical, LogicalPlan::Ddl(_) | LogicalPlan::Statement(_) | LogicalPlan::Dml(_));
        let shows = matches!(logical, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::Copy(_));
        let Ok(plan) = frame.create_physical_plan().await else { continue };
        if changes || shows || sql.contains("random()") || sql.contains("df_settings") {
            let _ = collect(plan, context.task_ctx()).await;
            continue;
        }
        let ordered = is_ordered(&plan);
        let bytes = physical_plan_to_bytes_with_extension_codec(plan.clone(), &codec);
        let result = collect(plan.clone(), context.task_ctx()).await;
        let Ok(batches) = result else { continue };
        match bytes {
            Ok(bytes) => {
                counts.physical += 1;
                fs::write(folder.join(format!("{i:04}.plan")), bytes).expect("a file");
                fs::write(folder.join(format!("{i:04}.sql")), &sql).expect("a file");
                if ordered {
                    fs::write(folder.join(format!("{i:04}.ordered")), "").expect("a file");
                }
                fs::write(folder.join(format!("{i:04}.shown")), shown(&plan)).expect("a file");
                fs::write(folder.join(format!("{i:04}.expected")), text(&batches, ordered)).expect("a file");
            }
            Err(error) => *unwritten.entry(format!("physical: {}", kind(&error))).or_default() += 1,
        }
        // The plan as a server would get it: bound, and optimized.
        let logical = context.state().optimize(&logical).expect("a plan that was optimized before");
        match logical_plan_to_bytes_with_extension_codec(&logical, &codec) {
            Ok(bytes) => {
                counts.logical += 1;
                let task = context.task_ctx();
                let back = logical_plan_from_bytes_with_extension_codec(&bytes, &task, &codec)
                    .unwrap_or_else(|error| panic!("{sql}: {error}"));
                let plan = context.state().query_planner().create_physical_plan(&back, &context.state()).await;
                let plan = plan.unwrap_or_else(|error| panic!("{sql}: {error}"));
                let rows = collect(plan, task).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
                assert_eq!(text(&rows, ordered), text(&batches, ordered), "{sql}");
            }
            Err(error) => *unwritten.entry(format!("logical: {}", kind(&error))).or_default() += 1,
        }
    }
}

/// Our nodes as EXPLAIN shows them, without the engine, which is known where a model is loaded.
fn shown(plan: &Arc<dyn ExecutionPlan>) -> String {
    let lines = displayable(plan.as_ref()).indent(true).to_string();
    let ours = lines.lines().filter(|line| line.contains("PredictExec") || line.contains("LoadModelsExec"));
    let without_engine = |line: &str| match (line.split_once(", engine="), line.split_once(", features=")) {
        (Some((model, _)), Some((_, features))) => format!("{model}, features={features}"),
        _ => line.to_owned(),
    };
    ours.map(without_engine).collect::<Vec<_>>().join("\n")
}

/// Runs the plans in the folder that the environment names, in a process that has not seen their models.
#[tokio::test(flavor = "multi_thread")]
async fn run_plans_of_another_process() {
    let Some(folder) = std::env::var_os(PLANS).map(PathBuf::from) else { return };
    let (context, codec) = session(&folder.join("catalog")).await;
    let mut plans: Vec<_> =
        fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    plans.retain(|path| path.extension().is_some_and(|extension| extension == "plan"));
    plans.sort();
    let mut decoded = vec![];
    for path in plans {
        let sql = fs::read_to_string(path.with_extension("sql")).expect("a file");
        let bytes = fs::read(&path).expect("a file");
        let plan = physical_plan_from_bytes_with_extension_codec(&bytes, &context.task_ctx(), &codec)
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(shown(&plan), fs::read_to_string(path.with_extension("shown")).expect("a file"), "{sql}");
        decoded.push((path, sql, plan));
    }
    let loaded = context.predict_sql("SELECT * FROM predict.loaded").await.expect("a plan");
    assert_eq!(loaded.count().await.expect("rows"), 0, "reading plans loads no model");
    for (path, sql, plan) in decoded {
        let ordered = path.with_extension("ordered").exists();
        let batches = collect(plan, context.task_ctx()).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let expected = fs::read_to_string(path.with_extension("expected")).expect("a file");
        assert_eq!(text(&batches, ordered), expected, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_give_the_same_rows_in_another_process() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
    let mut files: Vec<_> =
        fs::read_dir(tests).expect("the folder").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let (mut unwritten, mut counts) = (Unwritten::new(), Counts { physical: 0, logical: 0 });
    for file in files {
        let folder = tempfile::tempdir().expect("a folder");
        write_plans(&file, folder.path(), &mut unwritten, &mut counts).await;
        let mut other = Command::new(std::env::current_exe().expect("this test"));
        other.args(["--exact", "run_plans_of_another_process", "--nocapture"]).env(PLANS, folder.path());
        let ran = other.output().expect("it starts");
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{}: {said}", file.display());
    }
    println!("{} physical and {} logical plans; not written: {unwritten:#?}", counts.physical, counts.logical);
    // What DataFusion's own codec does not take, and nothing of ours: tables in memory as logical plans, and the functions
    // that make rows where their scan was repartitioned.
    let theirs = |kind: &String| kind.contains("Error serializing custom table") || kind.contains("LazyMem");
    let ours = unwritten.keys().any(|kind| !theirs(kind));
    assert!(
        !ours && counts.physical > 250 && counts.logical > 50,
        "{} {} {unwritten:?}",
        counts.physical,
        counts.logical
    );
}

#[tokio::test]
async fn bytes_hold_no_credentials_and_bad_ones_are_errors() {
    let folder = tempfile::tempdir().expect("a folder");
    let (context, codec) = session(&folder.path().join("catalog")).await;
    let create = "CREATE MODEL m FROM 'tests/models/types/scalar_double.onnx'";
    context.predict_sql(create).await.expect("a model");
    let frame = context.predict_sql("SELECT predict('m', column1) FROM (VALUES (1.0))").await.expect("a plan");
    let plan = frame.create_physical_plan().await.expect("a plan");
    let bytes = physical_plan_to_bytes_with_extension_codec(plan, &codec).expect("bytes");
    for cut in (0..bytes.len()).step_by(7) {
        let cut = &bytes[..cut];
        let _ = physical_plan_from_bytes_with_extension_codec(cut, &context.task_ctx(), &codec); // it does not panic
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(text.contains("\"sha256\"") && !text.contains("access_key"), "{text}");
}
