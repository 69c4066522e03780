//! The physical node.

use std::any::Any;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{ColumnStatistics, Result, Statistics, exec_err, plan_datafusion_err};
use datafusion::config::ConfigOptions;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::projection::ProjectionMapping;
use datafusion::physical_plan::execution_plan::{CardinalityEffect, ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::filter_pushdown::{ChildFilterDescription, FilterDescription, FilterPushdownPhase};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, apply_expression_roots,
};
use datafusion_predict_udfs::{ModelFunction, OnFailure, ScoringModel};

use super::metrics::PredictMetrics;
use super::share::CoreShare;
use super::stream::{PredictStream, ScoringPlan};
use crate::engine::RunContext;
use crate::predictor::Predictor;

/// Scores batches of its input in each partition: the input's columns, and one more with the prediction.
#[derive(Debug, Clone)]
pub struct PredictExec {
    input: Arc<dyn ExecutionPlan>,
    function: ModelFunction,
    predictor: Arc<Predictor>,
    features: Vec<Arc<dyn PhysicalExpr>>,
    condition: Option<Arc<dyn PhysicalExpr>>,
    batch_size: usize,
    /// Partitions that are being scored.
    running: Arc<AtomicUsize>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl PredictExec {
    /// Scores `input` with `function`, whose model must be a [`Predictor`], on the values of `features`.
    ///
    /// Rows for which `condition`, an Int8, is not 1 are not scored, and have NULL. `output` names the new column.
    ///
    /// # Errors
    /// A function of another kind of model.
    pub fn try_new(
        input: Arc<dyn ExecutionPlan>,
        function: ModelFunction,
        features: Vec<Arc<dyn PhysicalExpr>>,
        condition: Option<Arc<dyn PhysicalExpr>>,
        output: &str,
    ) -> Result<Self> {
        let model: Arc<dyn Any + Send + Sync> = function.model().clone();
        let predictor = model
            .downcast::<Predictor>()
            .map_err(|_| plan_datafusion_err!("model '{}' has no predictor", function.model().label()))?;
        let output = Arc::new(Field::new(output, function.result_type().clone(), true));
        let properties = Arc::new(properties(&input, output)?);
        let metrics = ExecutionPlanMetricsSet::new();
        let batch_size = predictor.batch_size();
        let running = Arc::default();
        Ok(Self { input, function, predictor, features, condition, batch_size, running, properties, metrics })
    }

    /// Scores `rows` rows in each run, in place of the model's own batch size.
    #[must_use]
    pub fn with_batch_size(self, rows: usize) -> Self {
        Self { batch_size: rows.max(1), ..self }
    }

    /// The model at work.
    pub fn predictor(&self) -> &Arc<Predictor> {
        &self.predictor
    }

    fn output_name(&self) -> String {
        self.schema().fields().last().map(|field| field.name().clone()).unwrap_or_default()
    }
}

/// The input's properties, of which the new column changes none.
fn properties(input: &Arc<dyn ExecutionPlan>, output: Arc<Field>) -> Result<PlanProperties> {
    let from = input.schema();
    let fields: Vec<_> = from.fields().iter().cloned().chain([output]).collect();
    let schema: SchemaRef = Arc::new(Schema::new_with_metadata(fields, from.metadata().clone()));
    let columns = from.fields().iter().enumerate().map(|(i, field)| {
        let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(field.name(), i));
        (column, field.name().clone())
    });
    let mapping = ProjectionMapping::try_new(columns, &from)?;
    Ok(PlanProperties::new(
        input.equivalence_properties().project(&mapping, schema),
        input.output_partitioning().clone(),
        input.pipeline_behavior(),
        input.boundedness(),
    ))
}

impl DisplayAs for PredictExec {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let (model, engine, device) = (self.predictor.label(), self.predictor.engine(), self.predictor.device());
        let batch_size = self.batch_size;
        let features: Vec<_> = self.features.iter().map(|feature| feature.to_string()).collect();
        let features = features.join(", ");
        if t == DisplayFormatType::TreeRender {
            writeln!(f, "model={model}\nengine={engine}\ndevice={device}\nbatch_size={batch_size}")?;
            return self.predictor.refusals().iter().try_for_each(|refusal| writeln!(f, "not_run_by={refusal}"));
        }
        write!(f, "PredictExec: model={model}, engine={engine}, device={device}, batch_size={batch_size}")?;
        if !self.predictor.refusals().is_empty() {
            write!(f, ", not_run_by=[{}]", self.predictor.refusals().join("; "))?;
        }
        write!(f, ", features=[{features}], output={}", self.output_name())?;
        if let Some(condition) = &self.condition {
            write!(f, ", if={condition}")?;
        }
        match self.function.on_failure() {
            OnFailure::Error => Ok(()),
            OnFailure::Null => write!(f, ", on_failure=null"),
        }
    }
}

impl ExecutionPlan for PredictExec {
    fn name(&self) -> &str {
        "PredictExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        apply_expression_roots(self.features.iter().chain(&self.condition).cloned(), f)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (Some(input), true) = (children.pop(), children.is_empty()) else {
            return exec_err!("PredictExec has one child");
        };
        let metrics = ExecutionPlanMetricsSet::new();
        let mut replaced = Self { input, metrics, running: Arc::default(), ..Self::clone(&self) };
        if matches!(options.children_properties, ChildrenPropertiesMode::Recompute) {
            let output = Arc::new(Field::new(self.output_name(), self.function.result_type().clone(), true));
            replaced.properties = Arc::new(properties(&replaced.input, output)?);
        }
        Ok(Arc::new(replaced))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let config = context.session_config();
        let plan = ScoringPlan {
            predictor: self.predictor.clone(),
            result_type: self.function.result_type().clone(),
            features: self.features.clone(),
            condition: self.condition.clone(),
            on_failure: self.function.on_failure(),
            run: RunContext::default(),
            share: CoreShare::new(config.target_partitions(), &self.running),
            schema: self.schema(),
        };
        let stream = PredictStream::new(
            plan,
            self.input.execute(partition, context.clone())?,
            self.batch_size,
            PredictMetrics::new(&self.metrics, partition),
            partition,
            &context,
        );
        Ok(stream.into_record_batches())
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(&self, input: &[Arc<Statistics>], _args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let mut statistics =
            input.first().map_or_else(|| Statistics::new_unknown(&self.schema()), |input| input.as_ref().clone());
        statistics.column_statistics.resize(self.schema().fields().len(), ColumnStatistics::new_unknown());
        statistics.total_byte_size = datafusion::common::stats::Precision::Absent;
        Ok(Arc::new(statistics))
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }

    fn gather_filters_for_pushdown(
        &self,
        _phase: FilterPushdownPhase,
        parent_filters: Vec<Arc<dyn PhysicalExpr>>,
        _config: &ConfigOptions,
    ) -> Result<FilterDescription> {
        // Filters on the input's columns, dynamic ones too, pass; those on the prediction can't.
        let passing: HashSet<usize> = (0..self.input.schema().fields().len()).collect();
        let child = ChildFilterDescription::from_child_with_allowed_indices(&parent_filters, passing, &self.input)?;
        Ok(FilterDescription::new().with_child(child))
    }
}
