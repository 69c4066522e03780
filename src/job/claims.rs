//! Who scores what: claims that are files created where none was, and signs of life.
//!
//! A worker claims a split by creating its first claim. If its owner is gone, another creates the second one, and so on: the
//! owner is who created the last. Whether somebody is gone is told by the store's own times, as clocks of machines differ; on
//! one machine, by whether the process is there. A claim only saves work: who comes late finds in the journal that the split
//! is scored, and drops its own files.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::job_log::JobLog;
use crate::background;
use crate::error::Result;

/// What a worker says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Life {
    id: String,
    /// What tells machines, and containers on one, apart; `None` where that is not known.
    machine: Option<String>,
    process: u32,
    /// When the process started, since numbers of processes are used again.
    since: Option<String>,
    /// It has left.
    gone: bool,
}

/// The part of one process in a run.
#[derive(Debug)]
pub(super) struct Claims {
    log: JobLog,
    run: u64,
    life: Life,
    lease: Duration,
    /// The store's time when the last sign of life was written, and when that was here.
    beat: std::sync::Mutex<(i64, Instant)>,
}

impl Claims {
    /// Enters the run.
    pub(super) async fn enter(log: JobLog, run: u64, lease: Duration) -> Result<Arc<Self>> {
        let process = std::process::id();
        let life = Life {
            id: uuid::Uuid::new_v4().simple().to_string()[..12].to_owned(),
            machine: machine(),
            process,
            since: start_of(process),
            gone: false,
        };
        let claims = Self { log, run, life, lease, beat: std::sync::Mutex::new((0, Instant::now())) };
        claims.beat().await?;
        Ok(Arc::new(claims))
    }

    pub(super) fn id(&self) -> &str {
        &self.life.id
    }

    /// The time between two signs of life.
    pub(super) fn period(&self) -> Duration {
        self.lease / 5
    }

    /// Gives a sign of life.
    pub(super) async fn beat(&self) -> Result<()> {
        let began = Instant::now();
        let at = self.log.touch(self.file(&self.life.id), serde_json::to_vec(&self.life).unwrap_or_default()).await?;
        *self.beat.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = (at, began);
        Ok(())
    }

    /// Whether this process is now the first owner of `what`.
    pub(super) async fn claim(&self, what: &str) -> Result<bool> {
        self.log.claim(self.claim_file(what, 0), &self.life.id).await
    }

    /// Whether this process is now the owner of `what`, which nobody owned or whose owner is gone.
    pub(super) async fn take_over(&self, what: &str) -> Result<bool> {
        let mut next = 0;
        let mut owner = None;
        while let Some((bytes, _)) = self.log.look(self.claim_file(what, next)).await? {
            owner = Some(String::from_utf8_lossy(&bytes).into_owned());
            next += 1;
        }
        if let Some(owner) = owner
            && (owner == self.life.id || !self.is_gone(&owner).await?)
        {
            return Ok(owner == self.life.id);
        }
        self.log.claim(self.claim_file(what, next), &self.life.id).await
    }

    async fn is_gone(&self, owner: &str) -> Result<bool> {
        let Some((bytes, seen)) = self.log.look(self.file(owner)).await? else { return Ok(true) };
        let Ok(life) = serde_json::from_slice::<Life>(&bytes) else { return Ok(false) };
        if life.gone {
            return Ok(true);
        }
        let here = life.machine.is_some() && life.machine == self.life.machine;
        if here && start_of(life.process) != life.since {
            return Ok(true);
        }
        let (at, since) = *self.beat.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = at.saturating_add(i64::try_from(since.elapsed().as_micros()).unwrap_or(i64::MAX));
        Ok(now.saturating_sub(seen) > i64::try_from(self.lease.as_micros()).unwrap_or(i64::MAX))
    }

    fn file(&self, worker: &str) -> String {
        format!("runs/{}/workers/{worker}", self.run)
    }

    fn claim_file(&self, what: &str, number: usize) -> String {
        format!("runs/{}/claims/{what}-{number}", self.run)
    }
}

/// Its splits need not wait until its signs of life are old.
impl Drop for Claims {
    fn drop(&mut self) {
        let (log, file) = (self.log.clone(), self.file(&self.life.id));
        let life = Life { gone: true, ..self.life.clone() };
        background::spawn(async move {
            if let Ok(Some(_)) = log.look(file.clone()).await {
                let _ = log.touch(file, serde_json::to_vec(&life).unwrap_or_default()).await;
            }
        });
    }
}

/// What tells this machine, and this container on it, from others.
fn machine() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let processes = std::fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", boot.trim(), processes.display()))
}

/// When a process of this machine started, in the system's own count; `None` if there is no such process.
fn start_of(process: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?; // the name before it may hold anything
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    if state == "Z" {
        return None; // it has ended, and its parent has not looked yet
    }
    fields.nth(18).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_number_and_its_start() {
        if machine().is_none() {
            return; // no such system
        }
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("a process");
        let started = start_of(child.id());
        assert!(started.is_some() && start_of(child.id()) == started);
        child.kill().expect("ended");
        child.wait().expect("waited");
        assert_eq!(start_of(child.id()), None);
    }
}
