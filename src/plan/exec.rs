//! The physical node.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{ColumnStatistics, Result, Statistics, exec_err, plan_datafusion_err};
use datafusion::config::ConfigOptions;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_expr::projection::ProjectionMapping;
use datafusion::physical_plan::execution_plan::{CardinalityEffect, ChildrenPropertiesMode, ReplaceChildrenOptions};
use datafusion::physical_plan::filter_pushdown::{ChildFilterDescription, FilterDescription, FilterPushdownPhase};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, apply_expression_roots,
};
use datafusion_predict_udfs::{ModelFunction, OnFailure};

use super::metrics::PredictMetrics;
use super::ran::Ran;
use super::share::CoreShare;
use super::stream::{PredictStream, ScoringPlan};
use crate::catalog::Readiness;
use crate::config::PredictConfig;
use crate::engine::RunContext;
use crate::registry::RegisteredModel;

/// Scores batches of its input in each partition: the input's columns, and one more with the prediction.
#[derive(Debug, Clone)]
pub struct PredictExec {
    input: Arc<dyn ExecutionPlan>,
    function: ModelFunction,
    model: RegisteredModel,
    features: Vec<Arc<dyn PhysicalExpr>>,
    condition: Option<Arc<dyn PhysicalExpr>>,
    /// Rows for each run, unless the model decides.
    batch_size: Option<usize>,
    /// Why it is made on this side of a join, where that was decided.
    placement: Option<Placement>,
    /// Partitions that are being scored.
    running: Arc<AtomicUsize>,
    ran: Ran,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl PredictExec {
    /// Scores `input` with `function`, whose model must be a [`RegisteredModel`], on the values of `features`.
    ///
    /// Rows for which `condition` is not true are not scored, and have NULL. `output` names the new column. The model is
    /// loaded when the first row comes.
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
        let model = RegisteredModel::of(function.model()).cloned();
        let model = model
            .ok_or_else(|| plan_datafusion_err!("model '{}' is called as a function only", function.model().label()))?;
        let properties = Arc::new(properties(&input, function.output_field(output))?);
        Ok(Self {
            input,
            function,
            model,
            features,
            condition,
            batch_size: None,
            placement: None,
            running: Arc::default(),
            ran: Ran::default(),
            properties,
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }

    /// Scores `rows` rows in each run, in place of the model's own batch size.
    #[must_use]
    pub fn with_batch_size(self, rows: usize) -> Self {
        Self { batch_size: Some(rows.max(1)), ..self }
    }

    /// The model, which may not be loaded.
    pub fn model(&self) -> &RegisteredModel {
        &self.model
    }

    pub(crate) fn input(&self) -> &Arc<dyn ExecutionPlan> {
        &self.input
    }

    /// The arguments of the call, over the input's columns.
    pub(crate) fn features(&self) -> &[Arc<dyn PhysicalExpr>] {
        &self.features
    }

    /// Which rows are scored.
    pub(crate) fn condition(&self) -> Option<&Arc<dyn PhysicalExpr>> {
        self.condition.as_ref()
    }

    /// The call.
    #[cfg(feature = "proto")]
    pub(super) fn function(&self) -> &ModelFunction {
        &self.function
    }

    /// Rows for each run, unless the model decides.
    #[cfg(feature = "proto")]
    pub(super) fn batch_size(&self) -> Option<usize> {
        self.batch_size
    }

    #[cfg(feature = "proto")]
    pub(super) fn placement(&self) -> Option<Placement> {
        self.placement
    }

    pub(crate) fn output_name(&self) -> &str {
        self.properties.eq_properties.schema().fields().last().map_or("", |field| field.name())
    }

    /// The same over an input with the same columns.
    pub(crate) fn with_input(&self, input: Arc<dyn ExecutionPlan>) -> Result<Self> {
        self.moved_to(input, self.features.clone(), self.condition.clone())
    }

    /// The same call over the columns of another input.
    pub(crate) fn moved_to(
        &self,
        input: Arc<dyn ExecutionPlan>,
        features: Vec<Arc<dyn PhysicalExpr>>,
        condition: Option<Arc<dyn PhysicalExpr>>,
    ) -> Result<Self> {
        let properties = Arc::new(properties(&input, self.function.output_field(self.output_name()))?);
        let metrics = ExecutionPlanMetricsSet::new();
        let (running, ran) = (Arc::default(), Ran::default());
        Ok(Self { input, features, condition, properties, metrics, running, ran, ..self.clone() })
    }

    /// The same, which does with rows that can't be scored what `on_failure` says; `None` where such rows do not fail it, or
    /// where its function can't do otherwise.
    pub(crate) fn tolerant(&self, on_failure: OnFailure) -> Result<Option<Self>> {
        let Some(function) = self.function.tolerant(on_failure) else { return Ok(None) };
        let properties = Arc::new(properties(&self.input, function.output_field(self.output_name()))?);
        let metrics = ExecutionPlanMetricsSet::new();
        let (running, ran) = (Arc::default(), Ran::default());
        Ok(Some(Self { function, properties, metrics, running, ran, ..self.clone() }))
    }

    /// Whether a row that can't be scored ends the query.
    pub(crate) fn fails_at_rows(&self) -> bool {
        self.function.on_failure() == OnFailure::Error
    }

    /// Says why it is made where it is.
    pub(crate) fn with_placement(self, placement: Placement) -> Self {
        Self { placement: Some(placement), ..self }
    }

    /// Whether some row may make the query fail, whatever its model scores besides.
    pub(crate) fn may_refuse_rows(&self) -> bool {
        let schema = self.input.schema();
        let types = self.features.iter().map(|feature| match feature.downcast_ref::<Column>() {
            Some(column) => Some(schema.field(column.index()).data_type().clone()),
            None => feature.downcast_ref::<Literal>().map(|literal| literal.value().data_type()),
        });
        let types: Option<Vec<_>> = types.collect(); // any other expression may fail itself
        self.function.on_failure() == OnFailure::Error
            && types.is_none_or(|types| self.model.handle().may_refuse_rows(&types))
    }
}

/// The side of a join on which a prediction is made, with the estimates that decided.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Placement {
    /// There are fewer rows below.
    BelowJoin {
        /// The rows there.
        rows: f64,
        /// The rows that the join gives.
        instead_of: f64,
    },
    /// The join gives fewer rows.
    AboveJoin {
        /// The rows that the join gives.
        rows: f64,
        /// The rows below it.
        instead_of: f64,
    },
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (place, rows, instead_of) = match self {
            Self::BelowJoin { rows, instead_of } => ("below", rows, instead_of),
            Self::AboveJoin { rows, instead_of } => ("above", rows, instead_of),
        };
        write!(f, "{place} the join for ~{rows:.0} rows instead of ~{instead_of:.0}")
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

impl PredictExec {
    /// What runs the model, as far as is known: what has run it here, else what was recorded when it was created, else what
    /// is loaded here.
    fn readiness(&self) -> Option<Readiness> {
        let recorded = || self.model.handle().readiness().cloned();
        self.ran.get().cloned().or_else(recorded).or_else(|| self.model.peek().map(|predictor| predictor.readiness()))
    }
}

impl PredictExec {
    /// What has run the model here, once it has.
    pub(crate) fn ran_by(&self) -> Option<&Readiness> {
        self.ran.get()
    }
}

impl DisplayAs for PredictExec {
    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let model = self.model.handle().label();
        let batch_size = |ready: &Readiness| self.batch_size.unwrap_or(ready.batch_size);
        let nodes = |ready: &Readiness, before: &str| {
            ready.nodes.as_ref().map(|nodes| format!("{before}nodes={nodes}")).unwrap_or_default()
        };
        let features: Vec<_> = self.features.iter().map(|feature| feature.to_string()).collect();
        let features = features.join(", ");
        let ready = self.readiness();
        if t == DisplayFormatType::TreeRender {
            writeln!(f, "model={model}")?;
            match &ready {
                Some(ready) => {
                    let (engine, device) = (&ready.engine, &ready.device);
                    let (nodes, batch_size) = (nodes(ready, "\n"), batch_size(ready));
                    writeln!(f, "engine={engine}\ndevice={device}{nodes}\nbatch_size={batch_size}")?;
                }
                None => writeln!(f, "engine=not loaded")?,
            }
            if let Some(placement) = &self.placement {
                writeln!(f, "placed={placement}")?;
            }
            let refusals = ready.iter().flat_map(|ready| &ready.not_run_by);
            return refusals.into_iter().try_for_each(|refusal| writeln!(f, "not_run_by={refusal}"));
        }
        write!(f, "PredictExec: model={model}")?;
        match &ready {
            Some(ready) => {
                let (engine, device) = (&ready.engine, &ready.device);
                let (nodes, batch_size) = (nodes(ready, ", "), batch_size(ready));
                write!(f, ", engine={engine}, device={device}{nodes}, batch_size={batch_size}")?;
                if !ready.not_run_by.is_empty() {
                    write!(f, ", not_run_by=[{}]", ready.not_run_by.join("; "))?;
                }
            }
            None => write!(f, ", engine=not loaded")?,
        }
        write!(f, ", features=[{features}], output={}", self.output_name())?;
        if let Some(condition) = &self.condition {
            write!(f, ", if={condition}")?;
        }
        if let Some(placement) = &self.placement {
            write!(f, ", placed={placement}")?;
        }
        match self.function.on_failure() {
            OnFailure::Error => Ok(()),
            OnFailure::Null => write!(f, ", on_failure=null"),
            OnFailure::Reason => write!(f, ", on_failure=reason"),
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
        let (running, ran) = (Arc::default(), Ran::default());
        let mut replaced = Self { input, metrics, running, ran, ..Self::clone(&self) };
        if matches!(options.children_properties, ChildrenPropertiesMode::Recompute) {
            let output = self.function.output_field(self.output_name());
            replaced.properties = Arc::new(properties(&replaced.input, output)?);
        }
        Ok(Arc::new(replaced))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let config = context.session_config();
        let partitions = self.properties.partitioning.partition_count().max(1);
        let options = PredictConfig::of(config.options());
        let bytes_in_flight = match options.bytes_in_flight.0 {
            0 => u64::MAX,
            bytes => bytes / partitions as u64,
        };
        let plan = ScoringPlan {
            model: self.model.clone(),
            cores: self.model.cores().clone(),
            result_type: self.function.result_type().clone(),
            features: self.features.clone(),
            condition: self.condition.clone(),
            on_failure: self.function.on_failure(),
            batch_size: self.batch_size,
            bytes_in_flight: usize::try_from(bytes_in_flight).unwrap_or(usize::MAX),
            run: RunContext::default(),
            remember: options.remember,
            share: CoreShare::new(config.target_partitions(), &self.running),
            ran: self.ran.clone(),
            schema: self.schema(),
        };
        let may_fail = self.function.on_failure() != OnFailure::Error;
        let metrics = PredictMetrics::new(&self.metrics, partition, may_fail);
        let input = self.input.execute(partition, context.clone())?;
        let stream = PredictStream::new(plan, input, metrics, partition, &context);
        Ok(stream.into_record_batches(config.batch_size()))
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
        // Filters on the input's columns, dynamic ones too, pass; those on the prediction can't. A filter finds its column
        // in the input by name: over a join of columns with one name that may be another, so those don't pass either.
        let schema = self.input.schema();
        let mut count = HashMap::new();
        schema.fields().iter().for_each(|field| *count.entry(field.name()).or_insert(0) += 1);
        let passing = (0..schema.fields().len()).filter(|&place| count[schema.field(place).name()] == 1).collect();
        let child = ChildFilterDescription::from_child_with_allowed_indices(&parent_filters, passing, &self.input)?;
        Ok(FilterDescription::new().with_child(child))
    }
}
