//! Which tables of a query can be read part by part: the query of a part must give the part of the query's rows.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{JoinType, Result as DFResult};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::{LogicalPlan, TableScan};

use super::input_table::{InputTable, ScanRole};
use crate::error::{Result, error};

/// The query with its tables of files as inputs of a run: each is split, or read whole by each split; all are read whole
/// where `one_split`.
///
/// # Errors
/// A query whose rows depend on more than one part of its table, by the name of what does that.
pub(super) fn cut_query(plan: LogicalPlan, one_split: bool) -> DFResult<LogicalPlan> {
    let mut split = vec![];
    if !one_split {
        split_scans(&plan, &mut vec![], &mut split)?;
    }
    let plan = mark(plan, &mut vec![], &split, &mut 0)?;
    let mut whole = 0;
    let marked = plan.transform_down_with_subqueries(|plan| match plan {
        LogicalPlan::TableScan(scan) if !is_marked(&scan) => {
            whole += 1;
            marked(scan, ScanRole::Whole(whole - 1)).map(Transformed::yes)
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(marked.data)
}

/// Where a node stands: the children to go down to it from the root.
type Place = Vec<usize>;

/// The places of the tables that can be split.
fn split_scans(plan: &LogicalPlan, place: &mut Place, found: &mut Vec<Place>) -> Result<()> {
    let mut down = |child: usize, found: &mut Vec<Place>| {
        let inputs = plan.inputs();
        place.push(child);
        let went = inputs.get(child).map_or(Ok(()), |input| split_scans(input, place, found));
        place.pop();
        went
    };
    let refused = |what: &str| {
        Err(error!(
            InvalidJob,
            "the query can't be cut into splits: {what} needs all rows at once; OPTIONS (one_split true) runs it as one"
        ))
    };
    match plan {
        LogicalPlan::TableScan(scan) if scan.fetch.is_none() => {
            found.push(place.clone());
            Ok(())
        }
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Unnest(_) => down(0, found),
        LogicalPlan::Repartition(_) => down(0, found),
        LogicalPlan::Extension(node) if node.node.name() == "Predict" => down(0, found),
        LogicalPlan::Union(union) => (0..union.inputs.len()).try_for_each(|child| down(child, found)),
        LogicalPlan::Join(join) => match join.join_type {
            // The first table is split, unless only the other can be.
            JoinType::Inner => {
                let before = found.len();
                down(0, found).or_else(|first| {
                    found.truncate(before);
                    down(1, found).map_err(|_| first)
                })
            }
            JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => down(0, found),
            JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => down(1, found),
            JoinType::Full => refused("FULL JOIN"),
        },
        LogicalPlan::Sort(sort) if sort.fetch.is_some() => refused("ORDER BY with LIMIT"),
        LogicalPlan::Sort(_) => refused("ORDER BY"),
        LogicalPlan::Limit(_) | LogicalPlan::TableScan(_) => refused("LIMIT"),
        LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() => refused("an aggregate"),
        LogicalPlan::Aggregate(_) => refused("GROUP BY"),
        LogicalPlan::Distinct(_) => refused("DISTINCT"),
        LogicalPlan::Window(_) => refused("a window function"),
        LogicalPlan::RecursiveQuery(_) => refused("WITH RECURSIVE"),
        LogicalPlan::Values(_) | LogicalPlan::EmptyRelation(_) => Err(error!(
            InvalidJob,
            "the query can't be cut into splits: a part of it reads no table; OPTIONS (one_split true) runs it as one"
        )),
        other => refused(&format!("`{}`", other.display())),
    }
}

/// The plan with the scans at `split` as inputs, in the order of the plan.
fn mark(plan: LogicalPlan, place: &mut Place, split: &[Place], next: &mut usize) -> DFResult<LogicalPlan> {
    if !split.iter().any(|scan| scan.starts_with(place)) {
        return Ok(plan);
    }
    if let LogicalPlan::TableScan(scan) = plan {
        let role = ScanRole::Split(*next);
        *next += 1;
        return marked(scan, role);
    }
    let mut child = 0;
    let marked = plan.map_children(|input| {
        place.push(child);
        let marked = mark(input, place, split, next);
        place.pop();
        child += 1;
        marked.map(Transformed::yes)
    })?;
    Ok(marked.data)
}

fn is_marked(scan: &TableScan) -> bool {
    source_as_provider(&scan.source).is_ok_and(|provider| (provider.as_ref() as &dyn std::any::Any).is::<InputTable>())
}

fn marked(scan: TableScan, role: ScanRole) -> DFResult<LogicalPlan> {
    let table = source_as_provider(&scan.source)?;
    let table = InputTable::try_new(&scan.table_name, table, role)?;
    Ok(LogicalPlan::TableScan(TableScan { source: provider_as_source(std::sync::Arc::new(table)), ..scan }))
}
