//! `SELECT * FROM ml_predict(model => 'name', data => (SELECT …))`

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::functions::core::get_field;
use datafusion::logical_expr::expr::WildcardOptions;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, ScalarUDF, lit};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, ObjectName, Query, TableFactor, Value, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion_predict_udfs::PredictFunction;

const NAME: &str = "ml_predict";

/// Plans `ml_predict`: the columns of its data, and the model's outputs.
#[derive(Debug)]
pub(crate) struct MlPredictPlanner {
    predict: Arc<ScalarUDF>,
}

impl MlPredictPlanner {
    pub(crate) fn new(predict: Arc<ScalarUDF>) -> Self {
        Self { predict }
    }
}

/// The arguments, if `relation` is a call of `ml_predict`.
fn arguments(relation: &TableFactor) -> Option<&Vec<FunctionArg>> {
    let (name, arguments) = match relation {
        TableFactor::Table { name, args: Some(arguments), .. } => (name, &arguments.args),
        TableFactor::Function { name, args, .. } => (name, args),
        _ => return None,
    };
    is_ours(name).then_some(arguments)
}

fn is_ours(name: &ObjectName) -> bool {
    name.to_string().eq_ignore_ascii_case(NAME)
}

fn named<'a>(arguments: &'a [FunctionArg], wanted: &str) -> Result<&'a SqlExpr> {
    let found = arguments.iter().find_map(|argument| match argument {
        FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. }
            if name.value.eq_ignore_ascii_case(wanted) =>
        {
            Some(value)
        }
        _ => None,
    });
    match found {
        Some(value) => Ok(value),
        None => plan_err!("{NAME}: expected {NAME}(model => 'name', data => (SELECT …)): '{wanted}' is missing"),
    }
}

impl RelationPlanner for MlPredictPlanner {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let Some(arguments) = arguments(&relation) else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let SqlExpr::Value(value) = named(arguments, "model")? else {
            return plan_err!("{NAME}: the model's name must be a string literal");
        };
        let Value::SingleQuotedString(model) = &value.value else {
            return plan_err!("{NAME}: the model's name must be a string literal, found {value}");
        };
        let SqlExpr::Subquery(subquery) = named(arguments, "data")? else {
            return plan_err!(
                "{NAME}: write the data as a subquery, data => (SELECT * FROM t): a table's name alone is understood where statements run through predict_sql or the shell"
            );
        };
        let alias = match &relation {
            TableFactor::Table { alias, .. } | TableFactor::Function { alias, .. } => alias.clone(),
            _ => None,
        };
        let derived = TableFactor::Derived { lateral: false, subquery: subquery.clone(), alias: None, sample: None };
        let data = context.plan(derived)?;
        let mut columns: Vec<Expr> = data.schema().columns().into_iter().map(Expr::Column).collect();
        for output in self.outputs(model)? {
            let name = output.qualified_name().1;
            if data.schema().has_column_with_unqualified_name(&name) {
                return plan_err!(
                    "{NAME}: the data has a column '{name}' already, as an output of model '{model}': rename it in the data"
                );
            }
            columns.push(output);
        }
        let plan = LogicalPlanBuilder::from(data).project(columns)?.build()?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

impl MlPredictPlanner {
    /// A column for each output of the model.
    fn outputs(&self, model: &str) -> Result<Vec<Expr>> {
        let Some(function) = self.predict.inner().downcast_ref::<PredictFunction>() else {
            return plan_err!("{NAME}: predict is not registered");
        };
        let resolved = function.resolve(Some(&ScalarValue::from(model)))?;
        #[expect(deprecated, reason = "a wildcard in a function's arguments is still this expression")]
        let wildcard = Expr::Wildcard { qualifier: None, options: Box::new(WildcardOptions::default()) };
        let call = self.predict.call(vec![lit(model), wildcard]);
        Ok(match resolved.return_type() {
            DataType::Struct(fields) => fields
                .iter()
                .map(|field| get_field().call(vec![call.clone(), lit(field.name().as_str())]).alias(field.name()))
                .collect(),
            _ => vec![call.alias("prediction")],
        })
    }
}

/// Rewrites `data => t` to `data => (SELECT * FROM t)`: DataFusion looks for a statement's tables before it plans, and
/// finds none in an argument.
pub(super) fn rewrite_tables(statement: &mut Statement) {
    struct Rewriter;

    impl VisitorMut for Rewriter {
        type Break = ();

        fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
            let arguments = match factor {
                TableFactor::Table { name, args: Some(arguments), .. } if is_ours(name) => &mut arguments.args,
                TableFactor::Function { name, args, .. } if is_ours(name) => args,
                _ => return ControlFlow::Continue(()),
            };
            for argument in arguments {
                if let FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. } = argument
                    && name.value.eq_ignore_ascii_case("data")
                    && let Some(query) = select_all(value)
                {
                    *value = SqlExpr::Subquery(query);
                }
            }
            ControlFlow::Continue(())
        }
    }

    match statement {
        Statement::Statement(statement) => _ = statement.visit(&mut Rewriter),
        Statement::Explain(explain) => rewrite_tables(&mut explain.statement),
        Statement::CopyTo(copy) => {
            if let datafusion::sql::parser::CopyToSource::Query(query) = &mut copy.source {
                _ = query.visit(&mut Rewriter);
            }
        }
        _ => {}
    }
}

/// `SELECT * FROM t`, if `expr` may be the table's name `t`.
fn select_all(expr: &SqlExpr) -> Option<Box<Query>> {
    if !matches!(expr, SqlExpr::Identifier(_) | SqlExpr::CompoundIdentifier(_)) {
        return None;
    }
    let parser = Parser::new(&GenericDialect {}).try_with_sql(&format!("SELECT * FROM {expr}"));
    parser.and_then(|mut parser| parser.parse_query()).ok()
}
