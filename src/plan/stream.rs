//! One partition of predictions.
//!
//! ```text
//!  input ─► batches ─► units: a batch, or parts of it ─► scored, several at once ─► batches with predictions, in order
//! ```

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt64Array, new_empty_array};
use datafusion::arrow::compute::{cast, concat, take_record_batch};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::{Result, exec_datafusion_err, exec_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::metrics::RecordOutput;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion_predict_udfs::OnFailure;
use futures::future::{BoxFuture, ready};
use futures::stream::FuturesOrdered;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use tokio::sync::oneshot;

use super::bytes::bytes;
use super::input::InputBatches;
use super::metrics::PredictMetrics;
use super::ran::Ran;
use super::scorers::Scorers;
use super::share::CoreShare;
use crate::byte_size::ByteSize;
use crate::cancel::CancelOnDrop;
use crate::encode::scatter;
use crate::engine::{CoreBudget, CoreLease, RunContext};
use crate::registry::RegisteredModel;
use crate::scoring::{BatchSize, Predictor, ScoreStats};

/// What takes longer than this is not done where the stream is polled: other tasks wait there.
const LONGEST_INLINE: Duration = Duration::from_millis(10);

/// Units of a stream on a device, at least, beside those on it: one is encoded, one is decoded.
const BESIDE_DEVICE: usize = 2;

/// What is done with each batch.
pub(super) struct ScoringPlan {
    pub model: RegisteredModel,
    pub cores: Arc<CoreBudget>,
    pub result_type: DataType,
    pub features: Vec<Arc<dyn PhysicalExpr>>,
    pub condition: Option<Arc<dyn PhysicalExpr>>,
    pub on_failure: OnFailure,
    /// Rows for each run, unless the model decides.
    pub batch_size: Option<usize>,
    /// Bytes that this partition may have under way.
    pub bytes_in_flight: usize,
    pub run: RunContext,
    /// Bytes of what the session wants to be remembered.
    pub remember: ByteSize,
    pub share: CoreShare,
    /// Where it is noted what runs the model here.
    pub ran: Ran,
    /// Of the output.
    pub schema: SchemaRef,
}

/// Scores batches, several parts of them at once where the query has more cores than partitions at work.
///
/// No thread waits: for cores, for the model to be loaded and for runs on other threads the stream is pending. Quick runs
/// are made where it is polled: two changes of thread for each batch cost more than the cancellation that waits so long.
/// On two cores, a dense network is a quarter faster for it.
///
/// Dropping it ends the running inference.
pub(super) struct PredictStream {
    plan: Arc<ScoringPlan>,
    input: InputBatches,
    /// `None` until the first row is there.
    predictor: Option<Arc<Predictor>>,
    batch_size: BatchSize,
    /// Batches that are not done, the oldest first.
    open: VecDeque<OpenBatch>,
    /// Parts of them that are being scored, in their order.
    units: FuturesOrdered<BoxFuture<'static, Result<ScoredUnit>>>,
    /// Bytes of the units that are being scored.
    bytes_under_way: usize,
    /// Bytes of the prediction of one row, in the unit that was done last.
    bytes_of_score: usize,
    scorers: Arc<Scorers>,
    /// When this stream last let other tasks have its thread.
    polled_since: Instant,
    metrics: PredictMetrics,
    memory: MemoryReservation,
    _cancel: CancelOnDrop,
}

/// A batch of which not all rows are scored yet.
struct OpenBatch {
    batch: RecordBatch,
    /// The rows that are scored, if not all are.
    chosen: Option<UInt64Array>,
    /// Of the rows that are scored.
    features: Vec<ArrayRef>,
    /// Rows that are to be scored.
    count: usize,
    /// Of those, rows that were given to units.
    started: usize,
    /// Of those, rows that have predictions.
    done: usize,
    scores: Vec<ArrayRef>,
    /// Bytes of the batch, the features and the scores so far.
    bytes: usize,
    bytes_of_row: usize,
}

/// Rows of one batch after they were scored.
struct ScoredUnit {
    scores: ArrayRef,
    rows: usize,
    bytes: usize,
    batch_size: BatchSize,
    stats: ScoreStats,
}

impl PredictStream {
    pub(super) fn new(
        plan: ScoringPlan,
        input: SendableRecordBatchStream,
        metrics: PredictMetrics,
        partition: usize,
        context: &TaskContext,
    ) -> Self {
        Self {
            // The first batch comes as it is: nothing is known of the model.
            input: InputBatches::new(input, 1),
            predictor: None,
            batch_size: BatchSize::new(1),
            open: VecDeque::new(),
            units: FuturesOrdered::new(),
            scorers: Scorers::new(plan.cores.clone(), plan.run.threads),
            polled_since: Instant::now(),
            bytes_under_way: 0,
            bytes_of_score: 0,
            metrics,
            memory: MemoryConsumer::new(format!("PredictExec[{partition}]")).register(context.memory_pool()),
            _cancel: plan.run.cancel.cancel_on_drop(),
            plan: Arc::new(plan),
        }
    }

    pub(super) fn into_record_batches(self, arrow_batch: usize) -> SendableRecordBatchStream {
        let schema = self.plan.schema.clone();
        let batches = stream::try_unfold(self, move |mut this| async move {
            Ok(this.next_scored(arrow_batch).await?.map(|batch| (batch, this)))
        });
        Box::pin(RecordBatchStreamAdapter::new(schema, batches.into_stream()))
    }

    /// The next batch with its predictions, in the input's order.
    async fn next_scored(&mut self, arrow_batch: usize) -> Result<Option<RecordBatch>> {
        loop {
            if self.open.front().is_some_and(|batch| batch.done == batch.count)
                && let Some(done) = self.open.pop_front()
            {
                let batch = done.into_scored(&self.plan)?;
                self.account()?;
                return Ok(Some(batch.record_output(&self.metrics.baseline)));
            }
            self.start_units().await?;
            if self.open.front().is_some_and(|batch| batch.done == batch.count) {
                continue; // it was quick
            }
            // More input while units run, if there is room for more of them.
            let wants_input = self.has_room()
                && self.open.iter().all(|batch| batch.started == batch.count)
                && (self.open.is_empty() || self.bytes_open() < self.plan.bytes_in_flight);
            if self.predictor.is_some() {
                self.input.aim_at(self.batch_size.rows().min(arrow_batch));
            }
            tokio::select! {
                biased;
                Some(unit) = self.units.next(), if !self.units.is_empty() => self.take(unit?)?,
                batch = self.input.next(), if wants_input => match batch? {
                    Some(batch) => self.open(batch).await?,
                    None if self.units.is_empty() && self.open.is_empty() => {
                        self.memory.free();
                        return Ok(None);
                    }
                    None => {
                        if let Some(unit) = self.units.next().await {
                            self.take(unit?)?;
                        }
                    }
                },
                else => return exec_err!("a prediction of model '{}' has stalled", self.plan.model.handle().label()),
            }
        }
    }

    /// Evaluates the features of `batch`, whose rows are then to be scored.
    async fn open(&mut self, batch: RecordBatch) -> Result<()> {
        let rows = batch.num_rows();
        // Features of rows that are not scored are not evaluated either: they may be what CASE guards against.
        let chosen = self.plan.condition.as_ref().map(|condition| chosen_rows(condition, &batch)).transpose()?;
        let chosen = chosen.filter(|chosen| chosen.len() < rows);
        let scored = match &chosen {
            Some(chosen) => take_record_batch(&batch, chosen)?,
            None => batch.clone(),
        };
        let count = scored.num_rows();
        let features = self.plan.features.iter().map(|feature| feature.evaluate(&scored)?.into_array(count));
        let features = features.collect::<Result<Vec<_>>>()?;
        if count > 0 && self.predictor.is_none() {
            self.load().await?;
        }
        // The features, and their copy as tensors.
        let of_features = 2 * bytes(&features)?;
        self.open.push_back(OpenBatch {
            bytes: bytes(batch.columns())? + of_features,
            bytes_of_row: of_features.div_ceil(count.max(1)) + self.bytes_of_score,
            batch,
            chosen,
            features,
            count,
            started: 0,
            done: 0,
            scores: vec![],
        });
        self.account()
    }

    async fn load(&mut self) -> Result<()> {
        let predictor = match self.plan.model.loaded() {
            Some(predictor) => predictor,
            None => self.plan.model.load().await?,
        };
        self.plan.ran.note(&predictor);
        let asked = |rows| BatchSize::asked(rows, predictor.runs_on_cpu());
        self.batch_size = self.plan.batch_size.map_or_else(|| predictor.batch_sizing(), asked);
        self.predictor = Some(predictor);
        Ok(())
    }

    /// Whether one more unit may be under way.
    fn has_room(&self) -> bool {
        let cores = self.plan.share.cores();
        // More than can run, so that no core waits for the input.
        let most = if cores > 1 { 2 * cores } else { 1 };
        let most = most.max(self.predictor.as_deref().map_or(1, on_device));
        self.units.is_empty() || (self.units.len() < most && self.bytes_under_way < self.plan.bytes_in_flight)
    }

    /// Starts units of the batches that are open, as many as may be under way; quick ones are done here.
    async fn start_units(&mut self) -> Result<()> {
        while self.has_room() {
            let Some(place) = self.open.iter().position(|batch| batch.started < batch.count) else { return Ok(()) };
            let Some(predictor) = self.predictor.clone() else { return Ok(()) }; // loaded with the first row
            let threads = self.plan.share.cores();
            let open = &mut self.open[place];
            let left = open.count - open.started;
            // Units share what may be under way.
            let sharing = if predictor.runs_on_cpu() { threads + 1 } else { on_device(&predictor) + 1 };
            let most = self.plan.bytes_in_flight / sharing / open.bytes_of_row.max(1);
            let batch_size = self.batch_size.bounded(most);
            let fixed = predictor.fixed_batch().unwrap_or(1);
            let rows = batch_size.unit(left, threads).next_multiple_of(fixed).min(left);
            let features: Vec<_> = open.features.iter().map(|feature| feature.slice(open.started, rows)).collect();
            let bytes = rows.saturating_mul(open.bytes_of_row);
            open.started += rows;
            self.bytes_under_way += bytes;
            // A device may be at work for another run, which nobody waits for here.
            let on_cpu = predictor.runs_on_cpu();
            let quick = on_cpu && batch_size.estimate(rows).is_some_and(|time| time < LONGEST_INLINE);
            // Where cores are to spare, other threads score what is worth a change of threads, and this task fetches more.
            let shared = threads > 1 && batch_size.is_worth_sharing(rows);
            let unit = Unit { plan: self.plan.clone(), predictor, features, rows, bytes, batch_size };
            // Not by waiting for cores here: who polls this stream may stop to, and then nobody would give them back.
            let cores = (quick && !shared).then(|| self.plan.cores.try_take(self.plan.run.threads)).flatten();
            match cores {
                Some(cores) => {
                    let done = unit.score(Duration::ZERO, None)?;
                    drop(cores);
                    if self.units.is_empty() {
                        self.take(done)?
                    } else {
                        self.units.push_back(ready(Ok(done)).boxed())
                    }
                    if self.polled_since.elapsed() > LONGEST_INLINE {
                        tokio::task::yield_now().await; // to other tasks, and to a cancellation
                        self.polled_since = Instant::now();
                    }
                }
                // A thread whose run is on a device has no core, so that more of them than cores have work.
                None => {
                    let most = threads.max(on_device(&unit.predictor));
                    self.units.push_back(unit.elsewhere(&self.scorers, most));
                }
            }
        }
        Ok(())
    }

    /// Adds what a unit has scored to its batch, which is the first that is not done.
    fn take(&mut self, unit: ScoredUnit) -> Result<()> {
        self.bytes_under_way -= unit.bytes;
        self.batch_size = unit.batch_size.unbounded();
        self.metrics.record(&unit.stats);
        self.plan.model.totals().add(&unit.stats);
        let Some(open) = self.open.iter_mut().find(|batch| batch.done < batch.count) else { return Ok(()) };
        let of_scores = bytes(std::slice::from_ref(&unit.scores))?;
        open.done += unit.rows;
        open.bytes += of_scores;
        let of_score = of_scores / unit.rows.max(1);
        open.bytes_of_row = (open.bytes_of_row + of_score).saturating_sub(self.bytes_of_score);
        self.bytes_of_score = of_score; // what comes out counts, too, from the first run on
        open.scores.push(unit.scores);
        self.account()
    }

    /// Bytes of all batches that are not done.
    fn bytes_open(&self) -> usize {
        self.open.iter().map(|batch| batch.bytes).sum()
    }

    /// Tells the pool what is held.
    fn account(&self) -> Result<()> {
        self.memory.try_resize(self.bytes_open())
    }
}

/// Units of a stream that keep the model's devices at work: one on each, and those beside; 1 where it runs on the CPU.
fn on_device(predictor: &Predictor) -> usize {
    if predictor.runs_on_cpu() { 1 } else { predictor.sessions() + BESIDE_DEVICE }
}

/// Rows of one batch to be scored.
struct Unit {
    plan: Arc<ScoringPlan>,
    predictor: Arc<Predictor>,
    features: Vec<ArrayRef>,
    rows: usize,
    bytes: usize,
    batch_size: BatchSize,
}

impl Unit {
    /// Scores them on a thread where blocking is allowed, when cores are free; also while nobody polls.
    fn elsewhere(self, scorers: &Arc<Scorers>, most: usize) -> BoxFuture<'static, Result<ScoredUnit>> {
        let (sender, receiver) = oneshot::channel();
        let label = self.plan.model.handle().label().to_owned();
        let asked = Instant::now();
        scorers.submit(most, move |cores| {
            if !sender.is_closed() {
                let _ = sender.send(self.score(asked.elapsed(), Some(cores.clone()))); // nobody may wait for it any more
            }
        });
        let scored = receiver.map(move |scored| match scored {
            Ok(scored) => scored,
            Err(_) => exec_err!("a run of model '{label}' was given up"),
        });
        scored.boxed()
    }

    /// Scores them on this thread, which has waited for so long, and gives up its `cores` while a run is on a device.
    fn score(mut self, wait: Duration, cores: Option<Arc<CoreLease>>) -> Result<ScoredUnit> {
        let Self { plan, predictor, features, rows, bytes, .. } = self;
        let run = RunContext { counts: Arc::default(), cores, ..plan.run.clone() };
        let remembered = plan.model.remembered(&predictor, plan.remember);
        let mut scorer = predictor.scorer(plan.on_failure, &run).remembering(remembered);
        scorer.stats.wait = wait;
        let score = AssertUnwindSafe(|| scorer.score(&features, rows, &mut self.batch_size));
        let scores = catch_unwind(score).map_err(|panic| {
            let (label, message) = (plan.model.handle().label(), message(panic.as_ref()));
            exec_datafusion_err!("a run of model '{label}' panicked: {message}")
        })??;
        let scores = if scores.data_type() == &plan.result_type { scores } else { cast(&scores, &plan.result_type)? };
        Ok(ScoredUnit { scores, rows, bytes, batch_size: self.batch_size, stats: scorer.stats })
    }
}

impl OpenBatch {
    fn into_scored(self, plan: &ScoringPlan) -> Result<RecordBatch> {
        let scores = match self.scores.as_slice() {
            [] => new_empty_array(&plan.result_type),
            [only] => only.clone(),
            several => concat(&several.iter().map(AsRef::as_ref).collect::<Vec<_>>())?,
        };
        let scores = match &self.chosen {
            Some(chosen) => scatter(&scores, chosen, self.batch.num_rows())?,
            None => scores,
        };
        let mut columns = self.batch.columns().to_vec();
        columns.push(scores);
        Ok(RecordBatch::try_new(plan.schema.clone(), columns)?)
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
