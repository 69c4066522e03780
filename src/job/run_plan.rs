//! What a run is to do, decided once when it begins: whoever joins or resumes it keeps to that.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::JobDefinition;
use super::job_log::JobLog;
use super::records::InputFile;
use super::splits::Split;
use super::state::{FORMAT, SplitKey};
use crate::catalog::ModelPin;
use crate::error::{Result, bail};
use crate::storage::journal::Formatted;

/// Why a run is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RunReason {
    /// What is new or has changed is scored.
    #[default]
    New,
    /// All is scored again.
    Full,
    /// What was set aside is scored again.
    Retry,
}

impl RunReason {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::New => "run",
            Self::Full => "full",
            Self::Retry => "retry",
        }
    }
}

/// The file of a run's plan.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RunPlan {
    pub format: u32,
    pub definition: Arc<JobDefinition>,
    /// When it began: what `now()` is in its query.
    pub at: i64,
    /// What the names of its models stand for.
    pub pins: Vec<ModelPin>,
    pub splits: Vec<Split>,
    pub retires: Vec<SplitKey>,
    /// The files that each split reads whole.
    pub lookups: Vec<InputFile>,
}

impl Formatted for RunPlan {
    const NEWEST: u32 = FORMAT;

    fn format(&self) -> u32 {
        self.format
    }
}

pub(super) fn file_of(id: &str) -> String {
    format!("plans/{id}.json")
}

/// The plan of a run.
pub(super) async fn read(log: &JobLog, id: &str) -> Result<RunPlan> {
    match log.read(file_of(id)).await? {
        Some(plan) => Ok(plan),
        None => bail!(InvalidCatalog, "job '{}': the plan of a run is missing", log.name()),
    }
}
