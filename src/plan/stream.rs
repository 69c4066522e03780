//! One partition of predictions.

use std::collections::VecDeque;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt64Array};
use datafusion::arrow::compute::{cast, prep_null_mask_filter, take};
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
use datafusion_predict_udfs::OnFailure;
use futures::{StreamExt, TryStreamExt, stream};

use super::metrics::PredictMetrics;
use crate::engine::{CancelToken, RunContext};
use crate::predictor::{BatchSize, Predictor, ScoreStats};
use crate::tensor::scatter;

/// What is done with each batch.
pub(super) struct ScoringPlan {
    pub predictor: Arc<Predictor>,
    pub result_type: DataType,
    pub features: Vec<Arc<dyn PhysicalExpr>>,
    pub condition: Option<Arc<dyn PhysicalExpr>>,
    pub on_failure: OnFailure,
    pub run: RunContext,
    /// Of the output.
    pub schema: SchemaRef,
}

/// Takes batches, brings small ones together, and scores them on a thread where blocking is allowed.
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
    metrics: PredictMetrics,
    memory: MemoryReservation,
    _cancel: CancelOnDrop,
}

struct CancelOnDrop(CancelToken);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
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
            metrics,
            memory: MemoryConsumer::new(format!("PredictExec[{partition}]")).register(context.memory_pool()),
            _cancel: CancelOnDrop(plan.run.cancel.clone()),
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
        let features = plan.features.iter().map(|feature| feature.evaluate(&batch)?.into_array(rows));
        let features = features.collect::<Result<Vec<_>>>()?;
        let chosen = plan.condition.as_ref().map(|condition| chosen_rows(condition, &batch)).transpose()?;
        let chosen = chosen.filter(|chosen| chosen.len() < rows);
        // The features, their copy as tensors, and the outputs: about as much again as the features take.
        let bytes = features.iter().map(|feature| feature.to_data().get_slice_memory_size());
        self.memory.try_resize(2 * bytes.sum::<Result<usize, ArrowError>>()?)?;

        let mut batch_size = std::mem::replace(&mut self.batch_size, BatchSize::new(1));
        let task = SpawnedTask::spawn_blocking(move || {
            let mut stats = ScoreStats::default();
            let scores = plan.score(features, rows, chosen, &mut batch_size, &mut stats);
            (scores, batch_size, stats)
        });
        let (scores, batch_size, stats) =
            task.join().await.map_err(|error| exec_datafusion_err!("a run of the model panicked: {error}"))?;
        self.batch_size = batch_size;
        self.metrics.record(&stats);
        let mut columns = batch.columns().to_vec();
        columns.push(scores?);
        Ok(RecordBatch::try_new(self.plan.schema.clone(), columns)?)
    }
}

/// The rows for which `condition` is true.
fn chosen_rows(condition: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<UInt64Array> {
    let mask = condition.evaluate(batch)?.into_array(batch.num_rows())?;
    let mask: &BooleanArray = mask.as_boolean();
    let mask = if mask.null_count() > 0 { prep_null_mask_filter(mask) } else { mask.clone() };
    Ok(UInt64Array::from_iter_values(mask.values().set_indices().map(|row| row as u64)))
}

impl ScoringPlan {
    fn score(
        &self,
        features: Vec<ArrayRef>,
        rows: usize,
        chosen: Option<UInt64Array>,
        batch_size: &mut BatchSize,
        stats: &mut ScoreStats,
    ) -> Result<ArrayRef> {
        let mut score = |features: &[ArrayRef], rows| {
            self.predictor.score_batches(features, rows, self.on_failure, batch_size, &self.run, stats)
        };
        let scores = match &chosen {
            None => score(&features, rows)?,
            Some(chosen) => {
                let features =
                    features.iter().map(|feature| Ok(take(feature, chosen, None)?)).collect::<Result<Vec<_>>>()?;
                scatter(&score(&features, chosen.len())?, chosen, rows)?
            }
        };
        match scores.data_type() == &self.result_type {
            true => Ok(scores),
            false => Ok(cast(&scores, &self.result_type)?),
        }
    }
}
