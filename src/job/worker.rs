//! One process's part in a run: claims splits, scores them, commits them, until all are done.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::{mpsc, oneshot};

use super::claims::Claims;
use super::events::{Events, JobEvent};
use super::job_log::JobLog;
use super::records::SplitRecord;
use super::run_plan::RunPlan;
use super::score::SplitScorer;
use super::state::{ActiveRun, JobAction, JobState};
use crate::error::Result;

/// How often a process that waits for others looks what they have done.
const LOOK: Duration = Duration::from_millis(200);

/// Looks between which it asks whether those are gone who have splits.
const LOOKS: u32 = 4;

/// A split that was scored, and who wants to know that it is committed.
type Scored = (SplitRecord, oneshot::Sender<Result<()>>);

pub(super) struct Worker {
    pub log: JobLog,
    pub run: u64,
    pub plan: Arc<RunPlan>,
    pub scorer: Arc<SplitScorer>,
    pub claims: Arc<Claims>,
    pub events: Events,
    /// Splits that this process may claim.
    pending: Mutex<VecDeque<u32>>,
    /// Whether nothing more is to be scored here.
    stopped: AtomicBool,
}

impl Worker {
    pub(super) fn new(
        log: JobLog,
        run: u64,
        plan: Arc<RunPlan>,
        scorer: Arc<SplitScorer>,
        claims: Arc<Claims>,
        events: Events,
    ) -> Self {
        Self { log, run, plan, scorer, claims, events, pending: Mutex::default(), stopped: AtomicBool::new(false) }
    }

    /// Works until each split is done, by whomever; or until the run is stopped.
    ///
    /// # Errors
    /// What ends the run.
    pub(super) async fn work(&self, workers: usize) -> Result<()> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let scoring = async {
            let scored = self.score_all(workers, &sender).await;
            drop(sender);
            scored
        };
        let watching = async {
            loop {
                tokio::time::sleep(self.claims.period()).await;
                if let Ok(state) = self.log.refresh().await
                    && self.active(&state).is_none_or(|active| active.stopped.is_some())
                {
                    self.stopped.store(true, Ordering::SeqCst);
                }
            }
        };
        tokio::select! {
            biased;
            (scored, ()) = async { tokio::join!(scoring, self.commit_all(receiver)) } => scored,
            () = watching => Ok(()),
        }
    }

    /// The run, if it is still under way.
    fn active<'s>(&self, state: &'s JobState) -> Option<&'s Arc<ActiveRun>> {
        state.active.as_ref().filter(|active| active.run == self.run)
    }

    async fn score_all(&self, workers: usize, sender: &mpsc::UnboundedSender<Scored>) -> Result<()> {
        let mut claimed: HashSet<u32> = HashSet::new();
        let mut looks = 0;
        let mut state = self.log.refresh().await?;
        loop {
            let Some(active) = self.active(&state).filter(|active| active.stopped.is_none()) else { return Ok(()) };
            let missing = (0..active.splits).filter(|split| !active.done.contains_key(split));
            let (waiting, mut free): (Vec<_>, Vec<_>) = missing.partition(|split| claimed.contains(split));
            if waiting.is_empty() && free.is_empty() {
                return Ok(());
            }
            if free.is_empty() {
                // All that is left is with others, who may be gone: that is asked less often than what they have done.
                looks += 1;
                let asks = looks % LOOKS == 0;
                for split in waiting.into_iter().filter(|_| asks) {
                    if self.claims.take_over(&split.to_string()).await? {
                        free.push(split);
                    }
                }
                if free.is_empty() {
                    tokio::time::sleep(LOOK).await;
                    state = self.log.refresh().await?;
                    continue;
                }
                self.score_some(free, workers, sender, true).await?;
            } else {
                // Each process begins elsewhere, so that they seldom want the same.
                let place = uuid::Uuid::new_v4().as_fields().0 as usize % free.len();
                free.rotate_left(place);
                claimed.extend(&free);
                self.score_some(free, workers, sender, false).await?;
            }
            if self.stopped.load(Ordering::SeqCst) {
                return Ok(());
            }
            state = self.log.refresh().await?;
        }
    }

    /// Scores those of `splits` that this process can claim, or all of them if they are its own.
    async fn score_some(
        &self,
        splits: Vec<u32>,
        workers: usize,
        sender: &mpsc::UnboundedSender<Scored>,
        own: bool,
    ) -> Result<()> {
        *self.pending.lock().unwrap_or_else(PoisonError::into_inner) = splits.into();
        stream::iter(0..workers)
            .map(|_| async {
                while let Some(split) = self.next(own).await? {
                    let inputs = self.plan.splits.get(split as usize).map(|split| split.inputs.as_slice());
                    let record = self.scorer.score(split, inputs.unwrap_or_default()).await?;
                    let (done, committed) = oneshot::channel();
                    if sender.send((record, done)).is_err() {
                        return Ok(());
                    }
                    committed.await.unwrap_or(Ok(()))?;
                }
                Ok(())
            })
            .buffer_unordered(workers.max(1))
            .try_collect::<()>()
            .await
    }

    /// The next split that is now this process's.
    async fn next(&self, own: bool) -> Result<Option<u32>> {
        loop {
            if self.stopped.load(Ordering::SeqCst) {
                return Ok(None);
            }
            let next = self.pending.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(split) = next else { return Ok(None) };
            let state = self.log.state().await;
            let Some(active) = self.active(&state) else { return Ok(None) };
            if active.done.contains_key(&split) {
                continue;
            }
            if own || self.claims.claim(&split.to_string()).await? {
                return Ok(Some(split));
            }
        }
    }

    /// Commits what was scored, all that is there at once.
    async fn commit_all(&self, mut scored: mpsc::UnboundedReceiver<Scored>) {
        while let Some(first) = scored.recv().await {
            let mut group = vec![first];
            while let Ok(more) = scored.try_recv() {
                group.push(more);
            }
            let (records, waiting): (Vec<_>, Vec<_>) = group.into_iter().unzip();
            let records: Arc<[SplitRecord]> = records.into();
            match self.commit(records.clone()).await {
                Ok(state) => {
                    for (record, done) in records.iter().zip(waiting) {
                        let _ = done.send(self.committed(&state, record).await);
                    }
                }
                Err(cause) => {
                    for done in waiting {
                        let _ = done.send(Err(cause.clone()));
                    }
                }
            }
        }
    }

    async fn commit(&self, records: Arc<[SplitRecord]>) -> Result<Arc<JobState>> {
        let run = self.run;
        self.log
            .commit(move |state| {
                let active = state.active.as_ref().filter(|active| active.run == run && active.stopped.is_none());
                let Some(active) = active else { return Ok(vec![]) };
                let missing = records.iter().filter(|record| !active.done.contains_key(&record.split));
                Ok(missing.map(|record| JobAction::Finish { run, split: Box::new(record.clone()) }).collect())
            })
            .await
    }

    /// Moves the files of a committed split to their place; or removes them, if another process was faster.
    async fn committed(&self, state: &JobState, record: &SplitRecord) -> Result<()> {
        let target = &self.scorer.target;
        let active = self.active(state);
        let ours = active.is_some_and(|active| {
            active
                .done
                .get(&record.split)
                .is_some_and(|done| done.worker == record.worker && done.files == record.files)
        });
        match active {
            Some(active) if ours => {
                if !active.held {
                    for file in &record.files {
                        target.move_in(self.run, active.generation, file).await?;
                    }
                }
                self.events.send(JobEvent::split(record, active));
            }
            _ => {
                self.events.send(JobEvent::Lost { split: record.split });
                for file in &record.files {
                    target.forget(&target.staged(self.run, &file.staged)).await;
                }
            }
        }
        Ok(())
    }

    /// Stops the run, for all processes: nothing more is scored.
    pub(super) async fn stop(&self, error: Option<String>) -> Result<()> {
        stop(&self.log, self.run, error).await
    }
}

/// Stops a run for all processes.
pub(super) async fn stop(log: &JobLog, run: u64, error: Option<String>) -> Result<()> {
    let stop = move |state: &JobState| {
        let active = state.active.as_ref().filter(|active| active.run == run);
        let under_way = active.is_some_and(|active| active.stopped.is_none() && active.published.is_none());
        Ok(if under_way { vec![JobAction::Stop { run, error: error.clone() }] } else { vec![] })
    };
    log.commit(stop).await.map(drop)
}
