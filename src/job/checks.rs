//! `CHECK (…)`: conditions on what a run has scored, before it is published.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result as DFResult, ScalarValue};
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::expr_rewriter::normalize_cols;
use datafusion::logical_expr::utils::find_aggregate_exprs;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder};
use datafusion::prelude::DataFrame;

use url::Url;

use super::JobDefinition;
use super::output::scan_files;
use super::output_store::{Listing, OutputStore};
use super::records::OutputFile;
use super::target::Target;
use crate::error::{Error, error};

/// The conditions of a job as expressions over its output.
///
/// # Errors
/// A condition that does not fit the output.
pub(super) fn parse(context: &SessionContext, checks: &[String], schema: &DFSchema) -> DFResult<Vec<Expr>> {
    let wrong = |check: &str, cause| -> Error { error!(InvalidJob, "CHECK ({check})").with_source(cause) };
    let parse = |check: &String| {
        let expr = context.parse_sql_expr(check, schema).map_err(|cause| wrong(check, cause))?;
        let aggregates = find_aggregate_exprs([&expr]);
        if aggregates.is_empty() {
            return Err(error!(
                InvalidJob,
                "CHECK ({check}) is about single rows: expected an aggregate, as in CHECK (count(*) > 0)"
            )
            .into());
        }
        Ok(expr)
    };
    checks.iter().map(parse).collect()
}

/// The first condition that `files` do not fulfil, with what was found; `None` if they fulfil all.
pub(super) async fn failed(
    context: &SessionContext,
    definition: &JobDefinition,
    target: &Target,
    run: u64,
    generation: u64,
    files: Vec<OutputFile>,
) -> DFResult<Option<String>> {
    let has_rows = !files.is_empty();
    let store = Arc::new(OutputStore::new(target.clone()));
    // DataFusion remembers lists of files by their path alone.
    let label = uuid::Uuid::new_v4().simple().to_string();
    let folder = store.show(&label, Listing::new(generation, Some(run), files, 1));
    let url = Url::parse(&format!("predict-job://{label}"));
    let url = url.map_err(|cause| error!(InvalidJob, "'{label}' is no host").with_source(cause))?;
    let state = context.state();
    let table = scan_files(&state, definition, &store, &url, &folder).await?;
    let rows = context.read_table(Arc::new(table))?;
    let checked = check(context, definition, rows, has_rows).await;
    let _ = context.runtime_env().deregister_object_store(&url);
    checked
}

async fn check(
    context: &SessionContext,
    definition: &JobDefinition,
    rows: DataFrame,
    has_rows: bool,
) -> DFResult<Option<String>> {
    let checks = parse(context, &definition.checks, rows.schema())?;
    let checks = normalize_cols(checks, rows.logical_plan())?;
    let mut aggregates: Vec<Expr> = vec![];
    for aggregate in find_aggregate_exprs(&checks) {
        if !aggregates.contains(&aggregate) {
            aggregates.push(aggregate);
        }
    }
    let columns = checks.iter().chain(&aggregates).enumerate();
    let columns = columns.map(|(i, expr)| Ok(over_aggregates(expr.clone(), &aggregates)?.alias(format!("c{i}"))));
    let columns: Vec<Expr> = columns.collect::<DFResult<_>>()?;
    let aggregated = rows.aggregate(vec![], aggregates.clone())?.into_unoptimized_plan();
    let plan = LogicalPlanBuilder::from(aggregated).project(columns)?.build()?;
    let batches = DataFrame::new(context.state(), plan).collect().await?;
    let Some(batch) = batches.iter().find(|batch| batch.num_rows() > 0) else { return Ok(None) };
    for (i, check) in definition.checks.iter().enumerate() {
        let value = ScalarValue::try_from_array(batch.column(i), 0)?;
        // Without rows nearly all aggregates are NULL, which is then no reason to fail.
        if value == ScalarValue::Boolean(Some(true)) || (value.is_null() && !has_rows) {
            continue;
        }
        let found = find_aggregate_exprs([&checks[i]]).into_iter().filter_map(|aggregate| {
            let place = aggregates.iter().position(|known| *known == aggregate)?;
            let value = ScalarValue::try_from_array(batch.column(checks.len() + place), 0).ok()?;
            Some(format!("{} is {value}", shown(&aggregate)))
        });
        let found = found.collect::<Vec<_>>().join(", ");
        return Ok(Some(format!("CHECK ({check}) is not true: {found}")));
    }
    Ok(None)
}

/// The aggregate without the name that its table has here.
fn shown(aggregate: &Expr) -> String {
    aggregate.human_display().to_string().replace("?table?.", "")
}

/// The expression over the columns of the aggregates that stand in it.
fn over_aggregates(expr: Expr, aggregates: &[Expr]) -> DFResult<Expr> {
    let over = expr.transform_down(|expr| {
        if aggregates.contains(&expr) {
            let column = Column::from_name(expr.schema_name().to_string());
            return Ok(Transformed::new(Expr::Column(column), true, TreeNodeRecursion::Jump));
        }
        Ok(Transformed::no(expr))
    })?;
    Ok(over.data)
}
