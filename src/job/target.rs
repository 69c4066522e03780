//! Where the output of a job lies, and how files come there whole or not at all.
//!
//! ```text
//! scores/g000001/a-1f3a….parquet        output: what a reader lists
//! scores.job/staged/N/…                 files of run N that are written, and not yet in their place
//! scores.job/retired/g000001/…          output that was taken out, for readers that began before
//! scores.job/set_aside/N/…              rows that models have refused
//! ```

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use datafusion::common::Result as DFResult;
use datafusion::datasource::listing::ListingTableUrl;
use datafusion::execution::context::SessionContext;
use datafusion::execution::object_store::{ObjectStoreRegistry, ObjectStoreUrl};
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use super::JobDefinition;
use super::definition::generation_name;
use super::records::OutputFile;
use super::stores::JobStores;
use crate::error::{Error, Result, error};
use crate::storage::patience;

/// The output's folders in their store.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub store: Arc<dyn ObjectStore>,
    pub url: ObjectStoreUrl,
    output: Path,
    work: Path,
    /// Whether it is a folder of this machine.
    is_local: bool,
    /// What errors call it.
    name: String,
}

impl Target {
    /// The target of a job, in a store that the session knows or that the environment says how to reach.
    pub(super) fn open(context: &SessionContext, definition: &JobDefinition) -> DFResult<Self> {
        Self::open_in(&context.runtime_env(), definition)
    }

    /// As [`open`](Self::open).
    pub(super) fn open_in(environment: &RuntimeEnv, definition: &JobDefinition) -> DFResult<Self> {
        let output = ListingTableUrl::parse(&definition.target)?;
        let work = ListingTableUrl::parse(definition.work_folder())?;
        let stores = JobStores::new(environment.object_store_registry.clone(), Arc::default());
        let store = stores.get_store(output.object_store().as_ref())?;
        Ok(Self {
            store,
            url: output.object_store(),
            output: output.prefix().clone(),
            work: work.prefix().clone(),
            is_local: output.scheme() == "file",
            name: definition.target.clone(),
        })
    }

    /// Makes the output a job's, by a file beside it that says whose it is: `owner`, or whoever the file is made for. Two jobs
    /// would count their generations alike, and remove each other's files.
    ///
    /// # Errors
    /// An output of another job.
    pub(super) async fn own(&self, owner: Option<String>) -> Result<String> {
        let owner = owner.unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string());
        let path = below(&self.work, "owner");
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match patience::answer(self.store.put_opts(&path, owner.clone().into(), options)).await {
            Ok(_) => return Ok(owner),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {}
            Err(cause) => return Err(self.failed("written", &path, cause)),
        }
        let there = async { self.store.get(&path).await?.bytes().await };
        let there = patience::answer(there).await.map_err(|cause| self.failed("read", &path, cause))?;
        if there == owner.as_bytes() {
            return Ok(owner);
        }
        Err(error!(
            InvalidJob,
            "'{}' is the output of another job, or of one of another catalog: choose another folder, or remove '{}' if that job is no more",
            self.name,
            self.url_of(&path)
        ))
    }

    /// Where a file of a generation belongs.
    pub(super) fn place(&self, generation: u64, file: &str) -> Path {
        below(&self.output, &format!("{}/{file}", generation_name(generation)))
    }

    /// The folder of a generation.
    pub(super) fn generation(&self, generation: u64) -> Path {
        self.output.clone().join(generation_name(generation))
    }

    /// Where a run writes.
    pub(super) fn staged(&self, run: u64, file: &str) -> Path {
        below(&self.work, &format!("staged/{run}/{file}"))
    }

    /// The runs of which files lie on their way.
    ///
    /// # Errors
    /// A store that can't be listed.
    pub(super) async fn staged_runs(&self) -> Result<BTreeSet<u64>> {
        let folder = below(&self.work, "staged");
        let files = self.list(&folder).await?;
        let run = |file: &ObjectMeta| file.location.prefix_match(&folder)?.next()?.as_ref().parse().ok();
        Ok(files.iter().filter_map(run).collect())
    }

    /// Where a file lies that was taken out of a generation.
    pub(super) fn retired(&self, generation: u64, file: &str) -> Path {
        below(&self.work, &format!("retired/{}/{file}", generation_name(generation)))
    }

    /// Where the rows lie that a run has set aside.
    pub(super) fn set_aside(&self, run: u64, file: &str) -> Path {
        below(&self.work, &format!("set_aside/{run}/{file}"))
    }

    /// The URL of a path in the store.
    pub(super) fn url_of(&self, path: &Path) -> String {
        format!("{}{path}", self.url.as_str())
    }

    /// Sees to it that what was written outlasts the machine's failure; stores promise that by themselves.
    pub(super) async fn make_durable(&self, path: &Path) -> Result<()> {
        let Some(path) = self.local_path(path) else { return Ok(()) };
        let sync = move || -> std::io::Result<()> { std::fs::File::open(path)?.sync_all() };
        let synced = tokio::task::spawn_blocking(sync).await;
        let cause = match synced {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(cause)) => cause,
            Err(cause) => std::io::Error::other(cause),
        };
        Err(error!(Unreadable, "'{}' can't be written", self.name).with_source(cause))
    }

    fn local_path(&self, path: &Path) -> Option<PathBuf> {
        self.is_local.then(|| std::path::Path::new("/").join(path.as_ref()))
    }

    /// Moves a staged file to its place. One that is not there any more was moved by somebody else.
    pub(super) async fn move_in(&self, run: u64, generation: u64, file: &OutputFile) -> Result<()> {
        self.rename(&self.staged(run, &file.staged), &self.place(generation, &file.path)).await
    }

    /// Takes a file out of its generation. One that is not there any more was taken out by somebody else.
    pub(super) async fn move_out(&self, generation: u64, file: &OutputFile) -> Result<()> {
        let to = self.retired(generation, &file.path);
        self.rename(&self.place(generation, &file.path), &to).await?;
        // When it was taken out, not when it was written; a store's copy is as old as that already.
        if let Some(path) = self.local_path(&to) {
            let touch = move || std::fs::File::options().append(true).open(path)?.set_modified(SystemTime::now());
            let _ = tokio::task::spawn_blocking(touch).await;
        }
        Ok(())
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        match patience::answer(self.store.rename(from, to)).await {
            Ok(()) => Ok(()),
            Err(cause @ object_store::Error::NotFound { .. }) => {
                // Somebody else has moved it; if not, it is lost, and nobody may take it for moved.
                let moved = patience::answer(self.store.head(to)).await;
                moved.map(drop).map_err(|_| self.failed("moved", from, cause))
            }
            Err(cause) => Err(self.failed("written", to, cause)),
        }
    }

    /// Removes what an attempt at a split has written.
    pub(super) async fn forget(&self, path: &Path) {
        let _ = self.store.delete(path).await;
        self.remove(path, |_| true).await;
    }

    /// The files below a folder.
    pub(super) async fn list(&self, folder: &Path) -> Result<Vec<ObjectMeta>> {
        let listed = self.store.list(Some(folder)).try_collect().await;
        listed.map_err(|cause| self.failed("listed", folder, cause))
    }

    /// Removes the files below a folder that `old` says; what can't be removed stays.
    pub(super) async fn remove(&self, folder: &Path, old: impl Fn(&ObjectMeta) -> bool + Send + 'static) {
        let files = self.store.list(Some(folder));
        let paths = files.try_filter(move |file| futures::future::ready(old(file))).map_ok(|file| file.location);
        let _ = self.store.delete_stream(paths.boxed()).collect::<Vec<_>>().await;
        if let Some(path) = self.local_path(folder) {
            let _ = tokio::task::spawn_blocking(move || remove_empty(&path)).await;
        }
    }

    /// The error of a file that can't be reached.
    pub(super) fn failed(&self, what: &str, path: &Path, cause: object_store::Error) -> Error {
        let note = crate::storage::hint(&cause);
        error!(Unreadable, "'{}' can't be {what}", self.url_of(path)).with_source(cause).with_note(note)
    }
}

/// The path `file`, in which slashes separate folders, below `folder`. Its parts are as stores have them: characters that a
/// store does not take are encoded already, as in `country=M%C3%BCnchen`.
pub(super) fn below(folder: &Path, file: &str) -> Path {
    let parsed = Path::parse(format!("{folder}/{file}"));
    // What is no path of a store is found nowhere.
    parsed.unwrap_or_else(|_| file.split('/').fold(folder.clone(), |path, part| path.join(part)))
}

/// Removes folders in which there is nothing.
fn remove_empty(folder: &std::path::Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(folder); // one with files stays
}
