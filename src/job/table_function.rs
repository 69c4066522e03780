//! `job_output('nightly')`, a function that is a table.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::catalog::{TableFunctionImpl, TableProvider};
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{Result as DFResult, ScalarValue, plan_err};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan};
use datafusion::sql::parser::{CopyToSource, Statement};
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, TableFactor, Value, Visit, Visitor,
};

use super::output::JobOutput;
use super::output_store::OutputStores;
use super::state::JobState;
use super::{Job, folder};
use crate::background;
use crate::runtime::PredictRuntime;

tokio::task_local! {
    /// The jobs that the statement names which is being planned: a function of tables can't wait for them itself.
    static OPENED: HashMap<String, Job>;
}

/// The function.
#[derive(Debug)]
pub(crate) struct JobOutputFunction {
    runtime: Arc<PredictRuntime>,
    stores: Arc<OutputStores>,
}

impl JobOutputFunction {
    pub(crate) const NAME: &str = "job_output";

    pub(crate) fn new(runtime: Arc<PredictRuntime>) -> Self {
        Self { runtime, stores: Arc::default() }
    }
}

impl TableFunctionImpl for JobOutputFunction {
    fn call(&self, args: &[Expr]) -> DFResult<Arc<dyn TableProvider>> {
        let [Expr::Literal(name, _)] = args else {
            return plan_err!("{}: expected a job's name, as in job_output('nightly')", Self::NAME);
        };
        let (ScalarValue::Utf8(Some(name)) | ScalarValue::Utf8View(Some(name)) | ScalarValue::LargeUtf8(Some(name))) =
            name
        else {
            return plan_err!("{}: a job's name is a string, found {name}", Self::NAME);
        };
        let opened = OPENED.try_with(|opened| opened.get(name).cloned()).ok().flatten();
        let (runtime, stores) = (self.runtime.clone(), self.stores.clone());
        let name = name.clone();
        let output = background::block_on(async move {
            let job = match opened {
                Some(job) => job,
                None => Job::open_in(&folder(&runtime)?, &name).await?,
            };
            let state = job.log.state().await;
            match state.written_as().or_else(|| state.definition.clone()) {
                Some(definition) => JobOutput::new(job.log, definition, stores),
                None => Err(super::job_log::unknown(&name, &[])),
            }
        })?;
        Ok(Arc::new(output))
    }
}

/// The jobs whose output `statement` names.
pub(crate) fn named_outputs(statement: &Statement) -> BTreeSet<String> {
    struct Names(BTreeSet<String>);

    impl Visitor for Names {
        type Break = ();

        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            let (name, args) = match factor {
                TableFactor::Table { name, args: Some(args), .. } => (name, &args.args),
                TableFactor::Function { name, args, .. } => (name, args),
                _ => return ControlFlow::Continue(()),
            };
            if name.to_string().eq_ignore_ascii_case(JobOutputFunction::NAME)
                && let [FunctionArg::Unnamed(FunctionArgExpr::Expr(SqlExpr::Value(value)))] = args.as_slice()
                && let Value::SingleQuotedString(job) = &value.value
            {
                self.0.insert(job.clone());
            }
            ControlFlow::Continue(())
        }
    }

    let mut names = Names(BTreeSet::new());
    visit(statement, &mut names);
    names.0
}

fn visit(statement: &Statement, visitor: &mut impl Visitor<Break = ()>) {
    match statement {
        Statement::Statement(statement) => _ = statement.visit(visitor),
        Statement::Explain(explain) => visit(&explain.statement, visitor),
        Statement::CopyTo(copy) => {
            if let CopyToSource::Query(query) = &copy.source {
                _ = query.visit(visitor);
            }
        }
        _ => {}
    }
}

/// Plans a statement that names the output of `jobs`, which are opened before.
pub(crate) async fn with_outputs<T>(
    runtime: &PredictRuntime,
    jobs: BTreeSet<String>,
    planning: impl Future<Output = DFResult<T>>,
) -> DFResult<T> {
    if jobs.is_empty() {
        return planning.await;
    }
    let folder = folder(runtime)?;
    let mut opened = HashMap::new();
    for name in jobs {
        let job = Job::open_in(&folder, &name).await?;
        opened.insert(name, job);
    }
    OPENED.scope(opened, planning).await
}

/// The plan in which all outputs of one job are those of one moment.
pub(crate) async fn pin_outputs(plan: LogicalPlan) -> DFResult<LogicalPlan> {
    let mut found = BTreeMap::new();
    plan.apply_with_subqueries(|plan| {
        if let LogicalPlan::TableScan(scan) = plan
            && let Some(provider) = provider_of(scan)
            && let Some(output) = (provider.as_ref() as &dyn std::any::Any).downcast_ref::<JobOutput>()
        {
            found.insert(output.log().name().to_owned(), output.log().clone());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    if found.is_empty() {
        return Ok(plan);
    }
    let mut states: BTreeMap<String, Arc<JobState>> = BTreeMap::new();
    for (name, log) in found {
        states.insert(name, log.refresh().await?);
    }
    let pinned = plan.transform_up_with_subqueries(|plan| {
        let LogicalPlan::TableScan(scan) = &plan else { return Ok(Transformed::no(plan)) };
        let pinned = provider_of(scan).and_then(|provider| {
            let output = (provider.as_ref() as &dyn std::any::Any).downcast_ref::<JobOutput>()?;
            Some(output.pinned(states.get(output.log().name())?.clone()))
        });
        let Some(pinned) = pinned else { return Ok(Transformed::no(plan)) };
        let source = provider_as_source(Arc::new(pinned));
        Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan.clone() })))
    })?;
    Ok(pinned.data)
}

fn provider_of(scan: &TableScan) -> Option<Arc<dyn TableProvider>> {
    source_as_provider(&scan.source).ok()
}
