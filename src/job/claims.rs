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

    /// Gives signs of life as long as `work` takes.
    pub(super) async fn beat_during<T>(&self, work: impl Future<Output = T>) -> T {
        let beating = async {
            loop {
                tokio::time::sleep(self.period()).await;
                if let Err(error) = self.beat().await {
                    log::warn!("job '{}': no sign of life was written: {error}", self.log.name());
                }
            }
        };
        tokio::select! {
            biased;
            done = work => done,
            () = beating => unreachable!("it has no end"),
        }
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
    use async_trait::async_trait;
    use futures::stream::BoxStream;
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use object_store::{
        CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
        PutOptions, PutPayload, PutResult,
    };

    use super::*;
    use crate::job::job_log::JobFolder;
    use crate::storage::StoreFolder;

    /// A store whose clock is an hour ahead of ours.
    #[derive(Debug, Default)]
    struct Ahead(InMemory);

    impl std::fmt::Display for Ahead {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a store whose clock is ahead")
        }
    }

    #[async_trait]
    impl ObjectStore for Ahead {
        async fn put_opts(
            &self,
            path: &Path,
            payload: PutPayload,
            options: PutOptions,
        ) -> object_store::Result<PutResult> {
            self.0.put_opts(path, payload, options).await
        }

        async fn put_multipart_opts(
            &self,
            path: &Path,
            options: PutMultipartOptions,
        ) -> object_store::Result<Box<dyn MultipartUpload>> {
            self.0.put_multipart_opts(path, options).await
        }

        async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
            let mut got = self.0.get_opts(path, options).await?;
            got.meta.last_modified += Duration::from_secs(3600);
            Ok(got)
        }

        fn delete_stream(
            &self,
            paths: BoxStream<'static, object_store::Result<Path>>,
        ) -> BoxStream<'static, object_store::Result<Path>> {
            self.0.delete_stream(paths)
        }

        fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
            self.0.list(prefix)
        }

        async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
            self.0.list_with_delimiter(prefix).await
        }

        async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
            self.0.copy_opts(from, to, options).await
        }
    }

    async fn worker(jobs: &JobFolder, machine: &str) -> Claims {
        let log = jobs.open("nightly").await.expect("a journal");
        let life = Life {
            id: machine.to_owned(),
            machine: Some(machine.to_owned()),
            process: 1,
            since: Some("elsewhere".to_owned()),
            gone: false,
        };
        let beat = std::sync::Mutex::new((0, Instant::now()));
        let claims = Claims { log, run: 1, life, lease: Duration::from_secs(1), beat };
        claims.beat().await.expect("a sign of life");
        claims
    }

    #[tokio::test]
    async fn a_silent_worker_is_gone_by_the_clock_of_the_store() {
        let folder = StoreFolder::new(Arc::new(Ahead::default()), Path::default(), "catalog 'ahead'");
        let jobs = JobFolder::new(folder, "ana@host".to_owned());
        let (one, other) = (worker(&jobs, "one").await, worker(&jobs, "other").await);
        assert!(one.claim("7").await.expect("claimed") && !other.claim("7").await.expect("taken"));
        // An hour between the clocks is no hour of silence.
        assert!(!other.take_over("7").await.expect("looked"));
        tokio::time::sleep(Duration::from_millis(1500)).await;
        one.beat().await.expect("a sign of life");
        other.beat().await.expect("a sign of life");
        assert!(!other.take_over("7").await.expect("looked"), "it has just given a sign of life");
        tokio::time::sleep(Duration::from_millis(1500)).await;
        other.beat().await.expect("a sign of life");
        assert!(other.take_over("7").await.expect("taken over"), "it has been silent for longer than its lease");
        one.beat().await.expect("it was only slow");
        assert!(!one.take_over("7").await.expect("looked"), "the last claim counts");
    }

    #[tokio::test]
    async fn a_worker_that_leaves_is_gone_at_once() {
        let folder = StoreFolder::new(Arc::new(InMemory::new()), Path::default(), "catalog 'memory'");
        let jobs = JobFolder::new(folder, "ana@host".to_owned());
        let (one, other) = (worker(&jobs, "one").await, worker(&jobs, "other").await);
        assert!(one.claim("7").await.expect("claimed"));
        drop(one);
        for _ in 0..100 {
            if other.take_over("7").await.expect("looked") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("its split is not free");
    }

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
