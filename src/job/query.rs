//! The query of a job, planned once for all splits of a run.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result as DFResult, exec_err};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::execution::TaskContext;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::scalar_subquery::ScalarSubqueryExec;
use datafusion_predict_udfs::{ModelFunction, OnFailure};
use object_store::path::Path;
use sha2::{Digest, Sha256};

use super::failure::Failure;
use super::input_table::{InputScan, ScanRole, file_range, input_file};
use super::records::InputFile;
use super::session::JobSession;
use super::set_aside::{SetAsideExec, SetAsideRows};
use super::splittable::cut_query;
use super::tap::{Passed, TapExec};
use super::{JobDefinition, OnRowError};
use crate::catalog::{ModelHandle, ModelPin};
use crate::error::{Error, Result, bail, error};
use crate::plan::{LoadModelsExec, PredictExec};
use crate::registry::RegisteredModel;
use crate::storage::hex;

/// The files of one scan of the query.
#[derive(Debug, Clone)]
struct ScanFiles {
    store: ObjectStoreUrl,
    files: HashMap<String, PartitionedFile>,
    reads_ranges: bool,
}

/// Copies of a plan before it is made anew: they share the counters of its scans, which grow with each copy that is run.
const COPIES: usize = 256;

struct Template {
    plan: Arc<dyn ExecutionPlan>,
    /// Copies that may still be made.
    copies: usize,
}

impl Template {
    fn new(plan: Arc<dyn ExecutionPlan>) -> Self {
        // The expressions of a plan hold on to the results of its scalar subqueries, which a copy shares.
        let shares = plan.exists(|plan| Ok(plan.is::<ScalarSubqueryExec>())).unwrap_or(true);
        Self { plan, copies: if shares { 1 } else { COPIES } }
    }
}

/// A job's query as a physical plan, of which each split runs a copy that reads its files alone.
pub(super) struct JobQuery {
    /// The optimized query, its scans marked.
    query: LogicalPlan,
    on_row_error: OnRowError,
    template: tokio::sync::Mutex<Template>,
    schema: SchemaRef,
    split: BTreeMap<usize, ScanFiles>,
    whole: BTreeMap<usize, ScanFiles>,
    /// The files of the tables that are read whole, as the run has fixed them.
    lookups: Vec<InputFile>,
    /// The models that it calls.
    pub models: Vec<Arc<ModelHandle>>,
    pub session: JobSession,
    pub task: Arc<TaskContext>,
}

impl JobQuery {
    /// # Errors
    /// A query that can't be planned, or that can't be cut and is to be.
    pub(super) async fn plan(session: JobSession, definition: &JobDefinition) -> DFResult<Self> {
        let plan = session.plan(&definition.query).await?;
        let models = models_of(&plan)?;
        let plan = cut_query(plan, definition.options.one_split)?;
        let state = session.state();
        let query = state.optimize(&plan)?;
        let on_row_error = definition.options.on_row_error;
        let template = physical(&session, &query, on_row_error).await?;
        let (mut split, mut whole) = (BTreeMap::new(), BTreeMap::new());
        template.apply(|plan| {
            if let Some(scan) = InputScan::of(plan) {
                let files = scan.files().map(|file| (file.object_meta.location.to_string(), file.clone())).collect();
                let files = ScanFiles { store: scan.store().clone(), files, reads_ranges: scan.reads_ranges() };
                match scan.role {
                    ScanRole::Split(number) => split.insert(number, files),
                    ScanRole::Whole(number) => whole.insert(number, files),
                };
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        let lookups = files_of(&whole);
        let task = Arc::new(TaskContext::from(&state));
        let schema = template.schema();
        let template = tokio::sync::Mutex::new(Template::new(template));
        Ok(Self { query, on_row_error, template, schema, split, whole, lookups, models, session, task })
    }

    pub(super) fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// A copy of the plan of the whole query.
    pub(super) async fn template(&self) -> DFResult<Arc<dyn ExecutionPlan>> {
        let mut template = self.template.lock().await;
        if template.copies == 0 {
            *template = Template::new(physical(&self.session, &self.query, self.on_row_error).await?);
        }
        template.copies -= 1;
        reset_plan_states(template.plan.clone())
    }

    /// The files that are split between splits, in the order of their paths.
    pub(super) fn inputs(&self) -> Vec<InputFile> {
        files_of(&self.split)
    }

    /// The files that each split reads whole.
    pub(super) fn lookups(&self) -> &[InputFile] {
        &self.lookups
    }

    /// Whether parts of all split files can be read on their own.
    pub(super) fn reads_ranges(&self) -> bool {
        self.split.values().all(|scan| scan.reads_ranges)
    }

    /// From now on these files are read in these versions, and no others.
    pub(super) fn fix(&mut self, inputs: impl IntoIterator<Item = InputFile>, lookups: Vec<InputFile>) {
        let pin = |scans: &BTreeMap<usize, ScanFiles>, file: &InputFile| {
            let Some((scan, etag)) = scans.get(&file.scan).zip(file.etag.clone()) else { return };
            if let Ok(path) = Path::parse(&file.path) {
                self.session.pins.pin(scan.store.as_ref(), path, etag);
            }
        };
        inputs.into_iter().for_each(|file| pin(&self.split, &file));
        lookups.iter().for_each(|file| pin(&self.whole, file));
        self.lookups = lookups;
    }

    /// What the output depends on, beside the split files: the query, the models, the tables that are read whole.
    pub(super) fn fingerprint(&self, definition: &JobDefinition, pins: &[ModelPin]) -> String {
        let mut hash = Sha256::new();
        let mut add = |part: &str| {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        };
        let JobDefinition { query, format, partition_by, format_options, tables, options, .. } = definition;
        let json = |value: serde_json::Result<String>| value.unwrap_or_default();
        add(query);
        add(format);
        add(&json(serde_json::to_string(&(partition_by, format_options, tables, options.one_split))));
        add(&format!("{:?}", options.on_row_error));
        for model in &self.models {
            add(model.label());
            add(&json(serde_json::to_string(model.record())));
        }
        for pin in pins {
            add(&json(serde_json::to_string(&pin.traffic)));
        }
        if options.on_lookup_change == super::OnLookupChange::Rescore && !options.one_split {
            for file in &self.lookups {
                add(self.whole.get(&file.scan).map_or("", |scan| scan.store.as_str()));
                add(&json(serde_json::to_string(&InputFile { modified: 0, ..file.clone() })));
                if file.etag.is_none() {
                    add(&file.modified.to_string());
                }
            }
        }
        hex(hash.finalize())
    }

    /// The plan of the split that reads `inputs`.
    ///
    /// # Errors
    /// A file that is not there any more.
    pub(super) fn restricted(
        &self,
        template: Arc<dyn ExecutionPlan>,
        inputs: &[InputFile],
    ) -> Result<SplitPlan, Failure> {
        let by_scan = |scans: &BTreeMap<usize, ScanFiles>, inputs: &[InputFile]| {
            let mut files: BTreeMap<usize, Vec<PartitionedFile>> = BTreeMap::new();
            for input in inputs {
                files.entry(input.scan).or_default().push(file_of(scans, input)?);
            }
            Ok::<_, Error>(files)
        };
        // One split reads all tables whole.
        let own = if self.split.is_empty() { &[] } else { inputs };
        let mut own = by_scan(&self.split, own).map_err(Failure::Input)?;
        let mut whole = by_scan(&self.whole, &self.lookups).map_err(Failure::Final)?;
        let (mut set_aside, mut counted, mut lookups) = (vec![], vec![], vec![]);
        let plan = template.transform_up(|plan| {
            if let Some(scan) = InputScan::of(&plan) {
                let (files, taps) = match scan.role {
                    ScanRole::Split(number) => (own.remove(&number), &mut counted),
                    ScanRole::Whole(number) => (whole.remove(&number), &mut lookups),
                };
                let Some(files) = files else {
                    let nothing: Arc<dyn ExecutionPlan> = Arc::new(EmptyExec::new(plan.schema()));
                    return Ok(Transformed::yes(nothing));
                };
                let (tap, passed) = TapExec::new(scan.restricted(files));
                taps.push(passed);
                return Ok(Transformed::yes(Arc::new(tap) as Arc<dyn ExecutionPlan>));
            }
            if let Some(exec) = plan.downcast_ref::<SetAsideExec>() {
                let (exec, rows) = exec.fresh();
                set_aside.push(rows);
                return Ok(Transformed::yes(Arc::new(exec) as Arc<dyn ExecutionPlan>));
            }
            Ok(Transformed::no(plan))
        });
        let unplanned = |cause| Failure::Final(error!(InvalidJob, "a split can't be planned").with_source(cause));
        let plan = plan.map_err(unplanned)?.data;
        // A table whose files are all gone is no scan any more.
        if !own.is_empty() || !whole.is_empty() {
            let gone = error!(Unreadable, "the files of a table are not there any more");
            return Err(if own.is_empty() { Failure::Final(gone) } else { Failure::Input(gone) });
        }
        Ok(SplitPlan { plan, set_aside, counted, lookups })
    }
}

/// The files of some scans, in the order of their paths.
fn files_of(scans: &BTreeMap<usize, ScanFiles>) -> Vec<InputFile> {
    let files = scans.iter().flat_map(|(scan, of)| of.files.values().map(|file| input_file(*scan, file)));
    let mut files: Vec<_> = files.collect();
    files.sort_by(|a, b| (a.scan, &a.path).cmp(&(b.scan, &b.path)));
    files
}

/// The file of an input, in the version that the run has fixed.
fn file_of(scans: &BTreeMap<usize, ScanFiles>, input: &InputFile) -> Result<PartitionedFile> {
    let scan = scans.get(&input.scan);
    let gone = || error!(Unreadable, "'{}' is not there any more", input.path);
    let listed = scan.and_then(|scan| scan.files.get(&input.path)).ok_or_else(gone)?;
    if !input_file(input.scan, listed).is_same_file(input) {
        bail!(Unreadable, "'{}' has changed since the run began", input.path);
    }
    let mut file = listed.clone();
    file.range = input.range.map(file_range);
    Ok(file)
}

/// The plan of one split.
pub(super) struct SplitPlan {
    pub plan: Arc<dyn ExecutionPlan>,
    /// Where its rows go that models refuse.
    pub set_aside: Vec<Arc<SetAsideRows>>,
    counted: Vec<Arc<Passed>>,
    lookups: Vec<Arc<Passed>>,
}

impl SplitPlan {
    /// The error of a table that is read whole, if that is why the split has failed.
    pub(super) fn lookup_error(&self) -> Option<Arc<DataFusionError>> {
        self.lookups.iter().find_map(|passed| passed.error())
    }

    /// Rows that were read of the split's own files; of all, where the query is run as one split.
    pub(super) fn rows_in(&self) -> u64 {
        let of = if self.counted.is_empty() { &self.lookups } else { &self.counted };
        of.iter().map(|passed| passed.rows()).sum()
    }

    /// What ran each of its models that had rows: `native on cpu`.
    pub(super) fn engines(&self) -> BTreeMap<String, String> {
        let mut engines = BTreeMap::new();
        let _ = self.plan.apply(|plan| {
            if let Some(predict) = plan.downcast_ref::<PredictExec>()
                && let Some(ran) = predict.ran_by()
            {
                let label = predict.model().handle().label().to_owned();
                engines.insert(label, format!("{} on {}", ran.engine, ran.device));
            }
            Ok(TreeNodeRecursion::Continue)
        });
        engines
    }

    /// Seconds that its models computed.
    pub(super) fn model_seconds(&self) -> f64 {
        let mut nanoseconds = 0;
        let _ = self.plan.apply(|plan| {
            if plan.is::<PredictExec>()
                && let Some(time) = plan.metrics().and_then(|counted| counted.sum_by_name("run_time"))
            {
                nanoseconds += time.as_usize();
            }
            Ok(TreeNodeRecursion::Continue)
        });
        nanoseconds as f64 / 1e9
    }
}

async fn physical(
    session: &JobSession,
    query: &LogicalPlan,
    on_row_error: OnRowError,
) -> DFResult<Arc<dyn ExecutionPlan>> {
    let state = session.state();
    tolerant(state.query_planner().create_physical_plan(query, &state).await?, on_row_error)
}

/// The versions that `plan` calls, each once, by name and number.
fn models_of(plan: &LogicalPlan) -> DFResult<Vec<Arc<ModelHandle>>> {
    let mut models = BTreeMap::new();
    plan.apply_with_subqueries(|plan| {
        plan.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let datafusion::logical_expr::Expr::ScalarFunction(call) = expr
                    && let Some(function) = call.func.inner().downcast_ref::<ModelFunction>()
                    && let Some(model) = RegisteredModel::of(function.model())
                {
                    let handle = model.handle();
                    models.insert((handle.name().to_owned(), handle.version()), handle.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(models.into_values().collect())
}

/// The plan in which rows that a model refuses do not end the query, if the job says so.
fn tolerant(plan: Arc<dyn ExecutionPlan>, on_row_error: OnRowError) -> DFResult<Arc<dyn ExecutionPlan>> {
    if on_row_error == OnRowError::Fail {
        return Ok(plan);
    }
    let tolerant = plan.transform_up(|plan| {
        if let Some(load) = plan.downcast_ref::<LoadModelsExec>() {
            let models: Vec<_> = load.models().iter().map(|model| model.handle().label().to_owned()).collect();
            return exec_err!(
                "on_row_error: a call of {} is made within an expression, where its rows can't be told: use try_predict there",
                models.join(", ")
            );
        }
        let Some(predict) = plan.downcast_ref::<PredictExec>() else { return Ok(Transformed::no(plan)) };
        Ok(if on_row_error == OnRowError::SetAside {
            match SetAsideExec::around(predict)? {
                Some(exec) => Transformed::yes(Arc::new(exec) as Arc<dyn ExecutionPlan>),
                None => Transformed::no(plan),
            }
        } else {
            match predict.tolerant(OnFailure::Null)? {
                Some(exec) => Transformed::yes(Arc::new(exec) as Arc<dyn ExecutionPlan>),
                None => Transformed::no(plan),
            }
        })
    })?;
    Ok(tolerant.data)
}
