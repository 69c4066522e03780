//! `SELECT * FROM ml_compare(old => 'm/3', new => 'm/4', data => t)`: the rows that two versions disagree on.

use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::functions::core::get_field;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, ScalarUDF, col, lit, when};
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, TableFactor, Value};
use datafusion_predict_udfs::CompareFunction;

use super::ml_predict::{call_on_all, predict_of};
use super::relation::RelationCall;

pub(super) const NAME: &str = "ml_compare";
const FORM: &str = "ml_compare(old => 'm/3', new => 'm/4', data => (SELECT …) [, tolerance => 0.001])";
/// The comparison, on its way to these.
const COMPARED: &str = "__compared";
/// What it adds to the columns of its data.
const COLUMNS: [&str; 3] = ["old", "new", "difference"];

/// Plans `ml_compare`: the columns of its data, both predictions, and how far apart they are.
#[derive(Debug)]
pub(crate) struct MlComparePlanner;

impl RelationPlanner for MlComparePlanner {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let Some(call) = RelationCall::of(&relation, NAME, FORM) else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        call.check(&["old", "new", "data", "tolerance"])?;
        let tolerance = call.find("tolerance").map_or(Ok(0.0), tolerance)?;
        let (old, new) = (call.model("old")?, call.model("new")?);
        let data = call.data(context)?;
        if let Some(taken) = COLUMNS.iter().find(|name| data.schema().has_column_with_unqualified_name(name)) {
            return plan_err!("{NAME}: the data has a column '{taken}' already: rename it in the data");
        }
        let columns: Vec<Expr> = data.schema().columns().into_iter().map(Expr::Column).collect();
        let (predict, compare) = (predict_of(context)?, ScalarUDF::new_from_impl(CompareFunction::default()));
        let mut scored = columns.clone();
        for (name, model) in [("old", old), ("new", new)] {
            scored.push(call_on_all(&predict, model).alias(name));
        }
        let compared = compare.call(vec![col("old"), col("new")]).alias(COMPARED);
        let part = |name: &str| get_field().call(vec![col(COMPARED), lit(name)]);
        let apart = part("difference").gt(lit(tolerance));
        // A label has no distance.
        let difference = when(part("difference").gt(lit(0.0)), part("difference")).end()?.alias("difference");
        let with = |more: Vec<Expr>| columns.iter().cloned().chain([col("old"), col("new")]).chain(more);
        let plan = LogicalPlanBuilder::from(data)
            .project(scored)?
            .project(with(vec![compared]))?
            .filter(part("differs").or(apart))?
            .project(with(vec![difference]))?
            .build()?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, call.alias))))
    }
}

fn tolerance(value: &SqlExpr) -> Result<f64> {
    let number = match value {
        SqlExpr::Value(value) => match &value.value {
            Value::Number(number, _) => {
                ScalarValue::try_from_string(number.clone(), &datafusion::arrow::datatypes::DataType::Float64).ok()
            }
            _ => None,
        },
        _ => None,
    };
    match number {
        Some(ScalarValue::Float64(Some(number))) => Ok(number),
        _ => plan_err!("{NAME}: the tolerance must be a number from 0 on, found {value}"),
    }
}
