//! `SELECT * FROM ml_predict(model => 'name', data => (SELECT …))`

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::functions::core::get_field;
use datafusion::logical_expr::expr::WildcardOptions;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, ScalarUDF, lit};
use datafusion::sql::sqlparser::ast::TableFactor;
use datafusion_predict_udfs::PredictFunction;

use super::relation::RelationCall;

pub(super) const NAME: &str = "ml_predict";

/// Plans `ml_predict`: the columns of its data, and the model's outputs.
#[derive(Debug)]
pub(crate) struct MlPredictPlanner;

impl RelationPlanner for MlPredictPlanner {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let Some(call) = RelationCall::of(&relation, NAME, "ml_predict(model => 'name', data => (SELECT …))") else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        call.check(&["model", "data"])?;
        let model = call.model("model")?;
        let data = call.data(context)?;
        let predict = predict_of(context)?;
        let mut columns: Vec<Expr> = data.schema().columns().into_iter().map(Expr::Column).collect();
        for output in outputs(&predict, model)? {
            let name = output.qualified_name().1;
            if data.schema().has_column_with_unqualified_name(&name) {
                return plan_err!(
                    "{NAME}: the data has a column '{name}' already, as an output of model '{model}': rename it in the data"
                );
            }
            columns.push(output);
        }
        let plan = LogicalPlanBuilder::from(data).project(columns)?.build()?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, call.alias))))
    }
}

/// The session's function `predict`.
pub(super) fn predict_of(context: &dyn RelationPlannerContext) -> Result<Arc<ScalarUDF>> {
    match context.context_provider().get_function_meta("predict") {
        Some(predict) => Ok(predict),
        None => plan_err!("the function predict is not registered"),
    }
}

/// A column for each output of the model.
fn outputs(predict: &ScalarUDF, model: &str) -> Result<Vec<Expr>> {
    let Some(function) = predict.inner().downcast_ref::<PredictFunction>() else {
        return plan_err!("{NAME}: the function predict is not the one of datafusion-predict");
    };
    let resolved = function.resolve(Some(&ScalarValue::from(model)))?;
    let return_type = resolved.first()?.return_type();
    let call = call_on_all(predict, model);
    Ok(match return_type {
        DataType::Struct(fields) => fields
            .iter()
            .map(|field| get_field().call(vec![call.clone(), lit(field.name().as_str())]).alias(field.name()))
            .collect(),
        _ => vec![call.alias("prediction")],
    })
}

/// `predict('model', *)`
pub(super) fn call_on_all(predict: &ScalarUDF, model: &str) -> Expr {
    #[expect(deprecated, reason = "a wildcard in a function's arguments is still this expression")]
    let wildcard = Expr::Wildcard { qualifier: None, options: Box::new(WildcardOptions::default()) };
    predict.call(vec![lit(model), wildcard])
}
