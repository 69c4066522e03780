//! DELETE and UPDATE with calls of models, in the form that tables take.
//!
//! DataFusion gives a table that has such statements (in 55 those in memory do) the conditions and the new values as
//! expressions, which it picks out of the optimized input by its shape. The table then changes while the physical plan is
//! made. What is picked out wrongly is therefore fenced here: conditions that were folded away or that are not picked
//! would delete every row, and EXPLAIN would delete rows.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result, TableReference, plan_err};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    DmlStatement, EmptyRelation, Explain, Expr, ExprSchemable, Filter, LogicalPlan, LogicalPlanBuilder, Projection,
    TableScan, WriteOp, lit,
};

/// `plan` so that DataFusion changes the rows that the statement means, if it is DELETE or UPDATE; or, if it is EXPLAIN
/// of a statement that changes a table, so that nothing is changed: the plan of its input is shown.
///
/// # Errors
/// A statement whose rows DataFusion would not find: one with a subquery or a join, or with a condition on another table.
pub(super) fn with_conditions_on_the_table(plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    match plan {
        LogicalPlan::Explain(explain) => match explain.plan.as_ref() {
            LogicalPlan::Dml(dml) if !matches!(dml.op, WriteOp::Insert(_) | WriteOp::Ctas) => {
                let checked = normalized(dml)?; // what would be refused is refused here, too
                let shown = match checked {
                    Some(LogicalPlan::Dml(dml)) => dml.input,
                    Some(nothing) => Arc::new(nothing),
                    None => dml.input.clone(),
                };
                Ok(Some(LogicalPlan::Explain(Explain { plan: shown, ..explain.clone() })))
            }
            _ => Ok(None),
        },
        LogicalPlan::Analyze(analyze) => {
            let input = with_conditions_on_the_table(&analyze.input)?;
            Ok(input.map(|input| {
                let mut analyze = analyze.clone();
                analyze.input = Arc::new(input);
                LogicalPlan::Analyze(analyze)
            }))
        }
        LogicalPlan::Dml(dml) => normalized(dml),
        _ => Ok(None),
    }
}

/// The statement over `Projection (of UPDATE) → Filter → TableScan`; a plan that changes nothing, if no row can fulfil
/// its conditions; `None` if it is another statement.
fn normalized(dml: &DmlStatement) -> Result<Option<LogicalPlan>> {
    if !matches!(dml.op, WriteOp::Delete | WriteOp::Update) {
        return Ok(None);
    }
    let statement = if dml.op == WriteOp::Delete { "DELETE" } else { "UPDATE" };
    let Some(rows) = ChangedRows::of(&dml.input, &dml.table_name, statement)? else {
        let nothing = LogicalPlanBuilder::empty(true).project([lit(0_u64).alias("count")])?;
        return Ok(Some(nothing.build()?));
    };
    let mut input = Arc::new(LogicalPlan::TableScan(rows.scan));
    let table = input.schema().clone();
    if let Some(condition) = conjunction(rows.conditions) {
        input = Arc::new(LogicalPlan::Filter(Filter::try_new(condition, input)?));
    }
    if dml.op == WriteOp::Update {
        let fields = dml.input.schema().iter();
        let values = fields.map(|(qualifier, field)| {
            let column = Column::new(qualifier.cloned(), field.name());
            match rows.columns.get(&column) {
                // DataFusion takes what has the column's name and is not the column itself for a new value. It adds the cast
                // to the column's type before it knows the value's own, such as that of a CASE of several types.
                Some(value) => {
                    let value = value.clone().unalias_nested().data;
                    let target = dml.target.schema();
                    let value = match target.field_with_name(field.name()) {
                        Ok(field) => value.cast_to(field.data_type(), &table)?,
                        Err(_) => value,
                    };
                    Ok(value.alias(field.name()))
                }
                None => plan_err!("UPDATE of '{}': its column '{}' is not known", dml.table_name, field.name()),
            }
        });
        let values = values.collect::<Result<Vec<_>>>()?;
        input = Arc::new(LogicalPlan::Projection(Projection::try_new(values, input)?));
    }
    Ok(Some(LogicalPlan::Dml(DmlStatement { input, ..dml.clone() })))
}

/// The rows of one table that a statement changes.
struct ChangedRows {
    scan: TableScan,
    /// All of them are true of each row; over the table's columns.
    conditions: Vec<Expr>,
    /// The columns of the statement's input, over the table's columns.
    columns: HashMap<Column, Expr>,
}

impl ChangedRows {
    /// The rows of `plan`; `None` if there are none, whatever the table holds.
    fn of(plan: &LogicalPlan, target: &TableReference, statement: &str) -> Result<Option<Self>> {
        let below = |input: &LogicalPlan| Self::of(input, target, statement);
        match plan {
            LogicalPlan::TableScan(scan) if scan.table_name.resolved_eq(target) => {
                let columns = plan.schema().columns().into_iter().map(|column| (column.clone(), Expr::Column(column)));
                let mut scan = scan.clone();
                let conditions = std::mem::take(&mut scan.filters);
                Ok(Some(Self { columns: columns.collect(), scan, conditions }))
            }
            LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: false, .. }) => Ok(None),
            LogicalPlan::SubqueryAlias(alias) => {
                let Some(rows) = below(&alias.input)? else { return Ok(None) };
                let renamed = rows
                    .columns
                    .into_iter()
                    .map(|(column, value)| (Column::new(Some(alias.alias.clone()), column.name), value));
                Ok(Some(Self { columns: renamed.collect(), ..rows }))
            }
            LogicalPlan::Projection(projection) => {
                let Some(rows) = below(&projection.input)? else { return Ok(None) };
                let mut columns = HashMap::new();
                for expr in &projection.expr {
                    let (qualifier, name) = expr.qualified_name();
                    let value = rows.of_the_table(expr.clone().unalias(), target, statement)?;
                    columns.insert(Column::new(qualifier, name), value);
                }
                Ok(Some(Self { columns, ..rows }))
            }
            LogicalPlan::Filter(filter) => {
                let Some(mut rows) = below(&filter.input)? else { return Ok(None) };
                for condition in split_conjunction_owned(filter.predicate.clone()) {
                    let condition = rows.of_the_table(condition, target, statement)?;
                    rows.conditions.push(condition);
                }
                Ok(Some(rows))
            }
            other => {
                let found = match other {
                    LogicalPlan::Join(_) | LogicalPlan::Subquery(_) => "a join or a subquery",
                    LogicalPlan::Limit(_) => "LIMIT",
                    LogicalPlan::TableScan(_) => "another table",
                    _ => "more than conditions on its columns",
                };
                plan_err!(
                    "{statement} of '{target}' can't find its rows by {found}: DataFusion would change other rows; name its rows by their own columns, as in id IN (1, 2), or make the table anew: CREATE OR REPLACE TABLE … AS SELECT …"
                )
            }
        }
    }

    /// `expr` over the table's columns.
    fn of_the_table(&self, expr: Expr, target: &TableReference, statement: &str) -> Result<Expr> {
        let replaced = expr.transform_up(|expr| match &expr {
            Expr::Column(column) => match self.columns.get(column) {
                Some(value) => Ok(Transformed::yes(value.clone())),
                None => plan_err!("{statement} of '{target}' can't name '{column}', a column of another table"),
            },
            Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::OuterReferenceColumn(_, _) => {
                plan_err!("{statement} of '{target}' can't hold a subquery: its table could not run it")
            }
            _ => Ok(Transformed::no(expr)),
        })?;
        Ok(replaced.data)
    }
}
