//! Models and nodes of other extensions in the same session.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, AsArray, Float64Array};
use datafusion::arrow::datatypes::{DataType, Float64Type};
use datafusion::catalog::Session;
use datafusion::catalog::view::ViewTable;
use datafusion::common::{DFSchemaRef, Result, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    Expr, Extension, LogicalPlan, ScalarUDF, UserDefinedLogicalNode, UserDefinedLogicalNodeCore, col, lit,
};
use datafusion::physical_plan::{ExecutionPlan, displayable};
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use datafusion::prelude::SessionContext;
use datafusion_predict::{PredictExt, PredictRuntime, PredictSql};
use datafusion_predict_udfs::{ModelFunction, OnFailure, ScoringModel};

/// A node that gives its input back.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd)]
struct Passing {
    input: LogicalPlan,
}

impl UserDefinedLogicalNodeCore for Passing {
    fn name(&self) -> &str {
        "Passing"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![]
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Passing")
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        match inputs.into_iter().next() {
            Some(input) => Ok(Self { input }),
            None => plan_err!("Passing has an input"),
        }
    }
}

#[derive(Debug)]
struct PassingPlanner;

#[async_trait]
impl ExtensionPlanner for PassingPlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        _session: &dyn Session,
        _context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        Ok(node.as_any().is::<Passing>().then(|| physical_inputs[0].clone()))
    }
}

/// The query planner of an extension that knows its own node alone.
#[derive(Debug)]
struct TheirPlanner;

#[async_trait]
impl QueryPlanner for TheirPlanner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(PassingPlanner)]);
        planner.create_physical_plan(plan, session).await
    }
}

async fn plans_both(context: &SessionContext) {
    context.predict_sql("CREATE MODEL m FROM 'tests/models/types/scalar_double.onnx'").await.expect("a model");
    let rows = "CREATE TABLE t AS SELECT * FROM (VALUES (1, 1.0), (2, 2.0), (3, 3.0)) AS v(id, x)";
    context.predict_sql(rows).await.expect("a table");
    let input = context.table("t").await.expect("a table").into_unoptimized_plan();
    let below = LogicalPlan::Extension(Extension { node: Arc::new(Passing { input }) });
    context.register_table("below", Arc::new(ViewTable::new(below, None))).expect("a view");
    let scored = context.sql("SELECT id, predict('m', x) AS p FROM below WHERE predict('m', x) > 2").await;
    let input = scored.expect("a plan").into_unoptimized_plan();
    let above = LogicalPlan::Extension(Extension { node: Arc::new(Passing { input }) });
    context.register_table("above", Arc::new(ViewTable::new(above, None))).expect("a view");
    let sql = "SELECT id, p, predict('m', p) AS q FROM above ORDER BY id";
    let frame = context.predict_sql(sql).await.expect("a plan");
    let plan = frame.clone().create_physical_plan().await.expect("a plan");
    let shown = displayable(plan.as_ref()).indent(true).to_string();
    assert_eq!(shown.matches("PredictExec").count(), 2, "{shown}");
    let batches = frame.collect().await.expect("rows");
    let table = datafusion::arrow::util::pretty::pretty_format_batches(&batches).expect("a table").to_string();
    assert_eq!(
        table,
        "+----+-----+------+\n\
         | id | p   | q    |\n\
         +----+-----+------+\n\
         | 2  | 4.0 | 8.0  |\n\
         | 3  | 6.0 | 12.0 |\n\
         +----+-----+------+"
    );
}

#[tokio::test]
async fn a_plan_with_nodes_of_two_extensions_is_planned_in_either_order_of_registration() {
    let runtime = Arc::new(PredictRuntime::default());
    let theirs = || SessionStateBuilder::new().with_default_features().with_query_planner(Arc::new(TheirPlanner));
    let ours_last = theirs().with_predict(runtime.clone()).build();
    plans_both(&SessionContext::new_with_state(ours_last)).await;
    let ours_first =
        SessionStateBuilder::new().with_default_features().with_predict(Arc::new(PredictRuntime::default()));
    let ours_first = ours_first.with_query_planner(Arc::new(TheirPlanner)).build();
    plans_both(&SessionContext::new_with_state(ours_first)).await;
}

/// A model of another runtime: the sum of its features.
#[derive(Debug, PartialEq, Eq)]
struct Sum;

impl Hash for Sum {
    fn hash<H: Hasher>(&self, state: &mut H) {
        "sum".hash(state);
    }
}

impl ScoringModel for Sum {
    fn label(&self) -> &str {
        "sum"
    }

    fn feature_names(&self) -> Option<&[String]> {
        None
    }

    fn check_arguments(&self, _types: &[DataType]) -> Result<()> {
        Ok(())
    }

    fn return_type(&self) -> &DataType {
        &DataType::Float64
    }

    fn score(
        &self,
        arguments: &[ArrayRef],
        rows: usize,
        _on_failure: OnFailure,
        _options: &ConfigOptions,
    ) -> Result<ArrayRef> {
        let columns: Vec<_> = arguments.iter().map(|column| column.as_primitive::<Float64Type>()).collect();
        let sums = (0..rows).map(|row| columns.iter().map(|column| column.value(row)).sum::<f64>());
        Ok(Arc::new(Float64Array::from_iter_values(sums)))
    }
}

#[tokio::test]
async fn a_model_of_another_kind_is_a_function_beside_nodes_of_ours() {
    let context = SessionContext::new().with_predict(Arc::new(PredictRuntime::default()));
    context.predict_sql("CREATE MODEL m FROM 'tests/models/types/scalar_double.onnx'").await.expect("a model");
    context.predict_sql("CREATE TABLE t AS SELECT * FROM (VALUES (1.5, 2.0)) AS v(a, b)").await.expect("a table");
    let function = ModelFunction::bound("predict", Arc::new(Sum), OnFailure::Error);
    let function = Arc::new(ScalarUDF::new_from_impl(function));
    let ours = context.sql("SELECT a, b, predict('m', a) AS p FROM t").await.expect("a plan");
    let both =
        ours.select(vec![col("p"), function.call(vec![lit("sum"), col("a"), col("b")]).alias("s")]).expect("a plan");
    let plan = both.clone().create_physical_plan().await.expect("a plan");
    let shown = displayable(plan.as_ref()).indent(true).to_string();
    assert!(shown.contains("PredictExec") && shown.contains("predict(sum, a@"), "{shown}");
    let batches = both.collect().await.expect("rows");
    let value = |column: usize| batches[0].column(column).as_primitive::<Float64Type>().value(0);
    assert_eq!((value(0), value(1)), (3.0, 3.5));
}
