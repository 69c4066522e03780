//! One partition of predictions.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt64Array};
use datafusion::arrow::compute::{cast, take_record_batch};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{Result, exec_datafusion_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::coalesce::LimitedBatchCoalescer;
use datafusion::physical_plan::metrics::RecordOutput;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion_predict_udfs::{OnFailure, ScoringModel};
use futures::{StreamExt, TryStreamExt, stream};

use super::metrics::PredictMetrics;
use super::share::CoreShare;
use crate::engine::{CancelOnDrop, RunContext};
use crate::predictor::{BatchSize, LONGEST_RUN, Predictor, ScoreStats};
use crate::tensor::scatter;

/// What is done with each batch.
pub(super) struct ScoringPlan {
    pub predictor: Arc<Predictor>,
    pub result_type: DataType,
    pub features: Vec<Arc<dyn PhysicalExpr>>,
    pub condition: Option<Arc<dyn PhysicalExpr>>,
    pub on_failure: OnFailure,
    pub run: RunContext,
    pub share: CoreShare,
    /// Of the output.
    pub schema: SchemaRef,
}

/// Takes batches, brings small ones together, and scores them; those that take long on a thread where blocking is
/// allowed.
///
/// Dropping it ends the running inference.
pub(super) struct PredictStream {
    plan: Arc<ScoringPlan>,
    input: Option<SendableRecordBatchStream>,
    coalescer: LimitedBatchCoalescer,
    /// Batches of at least this many rows are scored as they come.
    large: usize,
    ready: VecDeque<RecordBatch>,
    batch_size: BatchSize,
    /// Whether the last batch took no longer than a run should. Then the next is scored where the stream is polled: two
    /// changes of thread for each batch cost more than the cancellation that waits so long. On two cores, a dense
    /// network is a quarter faster for it.
    short: bool,
    metrics: PredictMetrics,
    memory: MemoryReservation,
    _cancel: CancelOnDrop,
}

impl PredictStream {
    pub(super) fn new(
        plan: ScoringPlan,
        input: SendableRecordBatchStream,
        batch_size: usize,
        metrics: PredictMetrics,
        partition: usize,
        context: &TaskContext,
    ) -> Self {
        let arrow_batch = context.session_config().batch_size();
        let target = batch_size.min(arrow_batch).max(1);
        Self {
            coalescer: LimitedBatchCoalescer::new(input.schema(), target, None),
            large: target.div_ceil(2),
            input: Some(input),
            ready: VecDeque::new(),
            batch_size: BatchSize::new(batch_size),
            short: false,
            metrics,
            memory: MemoryConsumer::new(format!("PredictExec[{partition}]")).register(context.memory_pool()),
            _cancel: plan.run.cancel.cancel_on_drop(),
            plan: Arc::new(plan),
        }
    }

    pub(super) fn into_record_batches(self) -> SendableRecordBatchStream {
        let schema = self.plan.schema.clone();
        let batches =
            stream::try_unfold(
                self,
                |mut this| async move { Ok(this.next_scored().await?.map(|batch| (batch, this))) },
            );
        Box::pin(RecordBatchStreamAdapter::new(schema, batches.into_stream()))
    }

    async fn next_scored(&mut self) -> Result<Option<RecordBatch>> {
        let Some(batch) = self.next_input().await? else {
            self.memory.free();
            return Ok(None);
        };
        let scored = self.score(batch).await?;
        Ok(Some(scored.record_output(&self.metrics.baseline)))
    }

    /// The next batch to score, in the input's order.
    async fn next_input(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            while let Some(batch) = self.coalescer.next_completed_batch() {
                self.ready.push_back(batch);
            }
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some(batch));
            }
            let Some(input) = &mut self.input else {
                return Ok(None);
            };
            match input.next().await.transpose()? {
                // A large batch needs no copy, unless smaller ones wait before it.
                Some(batch) if batch.num_rows() >= self.large && self.coalescer.is_empty() => {
                    self.ready.push_back(batch)
                }
                Some(batch) => {
                    self.coalescer.push_batch(batch)?;
                }
                None => {
                    self.input = None;
                    self.coalescer.finish()?;
                }
            }
        }
    }

    async fn score(&mut self, batch: RecordBatch) -> Result<RecordBatch> {
        let plan = self.plan.clone();
        let rows = batch.num_rows();
        // Features of rows that are not scored are not evaluated either: they may be what CASE guards against.
        let chosen = plan.condition.as_ref().map(|condition| chosen_rows(condition, &batch)).transpose()?;
        let chosen = chosen.filter(|chosen| chosen.len() < rows);
        let scored = match &chosen {
            Some(chosen) => take_record_batch(&batch, chosen)?,
            None => batch.clone(),
        };
        let count = scored.num_rows();
        let features = plan.features.iter().map(|feature| feature.evaluate(&scored)?.into_array(count));
        let features = features.collect::<Result<Vec<_>>>()?;
        // The features, and their copy as tensors.
        let bytes = features.iter().map(|feature| feature.to_data().get_slice_memory_size());
        let bytes = 2 * bytes.sum::<Result<usize, ArrowError>>()?;
        self.memory.try_resize(bytes)?;

        let mut batch_size = std::mem::replace(&mut self.batch_size, BatchSize::new(1));
        let start = Instant::now();
        let score = move || {
            let mut stats = ScoreStats::default();
            let scores = plan.score(&features, count, &mut batch_size, &mut stats);
            (scores, batch_size, stats)
        };
        let scored = match self.short {
            true => catch_unwind(AssertUnwindSafe(score)).map_err(|panic| message(panic.as_ref())),
            false => SpawnedTask::spawn_blocking(score).join().await.map_err(|error| error.to_string()),
        };
        let (scores, batch_size, stats) = scored.map_err(|error| {
            exec_datafusion_err!("a run of model '{}' panicked: {error}", self.plan.predictor.label())
        })?;
        self.short = start.elapsed() < LONGEST_RUN;
        self.batch_size = batch_size;
        self.metrics.record(&stats);
        let scores = match &chosen {
            Some(chosen) => scatter(&scores?, chosen, rows)?,
            None => scores?,
        };
        self.memory.try_resize(bytes + scores.to_data().get_slice_memory_size()?)?;
        let mut columns = batch.columns().to_vec();
        columns.push(scores);
        Ok(RecordBatch::try_new(self.plan.schema.clone(), columns)?)
    }
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a message").to_owned()
}

/// The rows for which `condition` is true.
fn chosen_rows(condition: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<UInt64Array> {
    let values = condition.evaluate(batch)?.into_array(batch.num_rows())?;
    let values = cast(&values, &DataType::Boolean)?; // of type Null, where nothing else is known
    let values = values.as_boolean();
    let chosen = (0..values.len()).filter(|&row| values.is_valid(row) && values.value(row));
    Ok(chosen.map(|row| row as u64).collect::<Vec<_>>().into())
}

impl ScoringPlan {
    fn score(
        &self,
        features: &[ArrayRef],
        rows: usize,
        batch_size: &mut BatchSize,
        stats: &mut ScoreStats,
    ) -> Result<ArrayRef> {
        let parallel = self.share.cores();
        let predictor = &self.predictor;
        let scores =
            predictor.score_batches(features, rows, self.on_failure, batch_size, parallel, &self.run, stats)?;
        match scores.data_type() == &self.result_type {
            true => Ok(scores),
            false => Ok(cast(&scores, &self.result_type)?),
        }
    }
}
