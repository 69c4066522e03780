//! What a run says while it goes on.

use tokio::sync::mpsc;

use super::records::{RunSummary, SplitRecord};
use super::state::ActiveRun;

/// Something that has happened in a run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum JobEvent {
    /// This process takes part.
    Entered {
        /// The run.
        run: u64,
        /// Whether it was under way.
        joined: bool,
        /// The splits that are to be scored.
        splits: u32,
        /// Those that are done already.
        done: u32,
    },
    /// A split was scored here.
    Split {
        /// Its number.
        split: u32,
        /// Rows that were written.
        rows: u64,
        /// Rows that were set aside.
        rows_set_aside: u64,
        /// Files that could not be scored.
        files_failed: u64,
        /// The splits that are done, by all processes.
        done: u32,
        /// The splits that there are.
        splits: u32,
    },
    /// A split was scored here that another process had scored before: what was scored is dropped.
    Lost {
        /// Its number.
        split: u32,
    },
    /// The output is published.
    Published {
        /// The generation that readers see.
        generation: u64,
    },
    /// The run has ended.
    Ended(Box<RunSummary>),
}

impl JobEvent {
    pub(super) fn split(record: &SplitRecord, active: &ActiveRun) -> Self {
        Self::Split {
            split: record.split,
            rows: record.rows_out,
            rows_set_aside: record.rows_set_aside,
            files_failed: record.failed.len() as u64,
            done: u32::try_from(active.done.len()).unwrap_or(u32::MAX),
            splits: active.splits,
        }
    }
}

/// Where events go; nobody needs to listen.
#[derive(Debug, Clone)]
pub(super) struct Events(pub mpsc::UnboundedSender<JobEvent>);

impl Events {
    pub(super) fn send(&self, event: JobEvent) {
        let _ = self.0.send(event);
    }
}
