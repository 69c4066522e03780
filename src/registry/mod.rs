//! Handles to models at work: loaded when rows first need them, unloaded when memory is short.
//!
//! A model is loaded once for each process, however many queries wait for it, and shared by all.

mod model;
pub(crate) mod planning;
mod totals;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use datafusion_predict_native::Model;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};

pub use model::RegisteredModel;
use totals::AllTotals;
pub use totals::ModelTotals;

use crate::background;
use crate::byte_size::ByteSize;
use crate::call::FeatureName;
use crate::cancel::CancelToken;
use crate::catalog::{CatalogSnapshot, Interface, ModelCatalog, ModelHandle, ModelVersion, VersionRecord};
use crate::engine::{CoreBudget, Engine, trim};
use crate::error::{Result, bail, error};
use crate::fetch;
use crate::scoring::{Predictor, PredictorRequest};
use crate::storage::{DiskCache, Downloads, StorageOptions};

/// What a process has loaded.
///
/// A model is loaded by the first who needs it; who comes meanwhile waits for the same answer, be it an error. When all of
/// them are gone, loading ends. After an error the next one who comes tries again.
pub(crate) struct ModelRegistry {
    catalog: Arc<dyn ModelCatalog>,
    engines: Arc<[Arc<dyn Engine>]>,
    cores: Arc<CoreBudget>,
    limits: Limits,
    downloads: Downloads,
    totals: AllTotals,
    state: Mutex<State>,
}

/// What the models of a process may take.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// Memory of all loaded models, in bytes, before the least recently used are unloaded; 0 is no limit.
    pub model_memory: ByteSize,
    /// Disk for what is fetched from afar.
    pub cache_size: ByteSize,
    /// The largest file that is fetched; 0 is no limit.
    pub download_limit: ByteSize,
    /// The folder for what is fetched, if one was named.
    pub cache_folder: Option<PathBuf>,
    /// Whether queries may read files by functions.
    pub file_functions: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            model_memory: ByteSize(0),
            cache_size: ByteSize(10 << 30),
            download_limit: ByteSize(8 << 30),
            cache_folder: None,
            file_functions: false,
        }
    }
}

#[derive(Default)]
struct State {
    ready: HashMap<Arc<ModelHandle>, Ready>,
    /// Held by those who wait alone.
    loading: HashMap<Arc<ModelHandle>, WeakShared<Loading>>,
    /// Where models came from whose files the catalog does not hold, with what neither it nor a handle keeps: credentials.
    origins: HashMap<OriginKey, (String, StorageOptions)>,
    /// Interfaces that the catalog does not know: those of versions that were not run when they were created.
    interfaces: HashMap<(String, u64), Arc<Interface>>,
    /// Models at work that may have been unloaded while queries hold them.
    alive: HashMap<Arc<ModelHandle>, Weak<Predictor>>,
    /// Models by their hashes: versions that are the same file share its weights.
    models: HashMap<String, Weak<Model>>,
    /// Counts uses, to know which is the least recent.
    clock: u64,
}

type Loading = BoxFuture<'static, Result<Arc<Predictor>>>;

struct Ready {
    predictor: Arc<Predictor>,
    used: u64,
    last_use: SystemTime,
    /// Whether it could be loaded again.
    reloadable: bool,
    /// Whether the catalog had the version, so that it was dropped if it has it no more. A plan that came from another
    /// process may call a version that this one has not heard of.
    known: bool,
}

/// A model that is loaded.
#[derive(Debug, Clone)]
pub(crate) struct LoadedModel {
    pub handle: Arc<ModelHandle>,
    pub predictor: Arc<Predictor>,
    pub last_use: SystemTime,
}

impl ModelRegistry {
    pub(crate) fn new(
        catalog: Arc<dyn ModelCatalog>,
        engines: Arc<[Arc<dyn Engine>]>,
        cores: Arc<CoreBudget>,
        limits: Limits,
    ) -> Self {
        let (downloads, totals, state) = (Downloads::default(), AllTotals::default(), Mutex::default());
        Self { catalog, engines, cores, limits, downloads, totals, state }
    }

    /// Where what is fetched from afar is kept.
    pub(crate) fn cache(&self) -> DiskCache {
        let Limits { cache_folder, cache_size, download_limit, .. } = self.limits.clone();
        let largest = if download_limit.0 == 0 { u64::MAX } else { download_limit.0 };
        let mut cache = DiskCache::new(cache_folder, cache_size.0, largest);
        cache.downloads = self.downloads.clone();
        cache
    }

    /// Whether queries may read files by functions.
    pub(crate) fn has_file_functions(&self) -> bool {
        self.limits.file_functions
    }

    /// The files that are being fetched.
    pub(crate) fn downloads(&self) -> &Downloads {
        &self.downloads
    }

    pub(crate) fn engines(&self) -> &Arc<[Arc<dyn Engine>]> {
        &self.engines
    }

    pub(crate) fn cores(&self) -> &Arc<CoreBudget> {
        &self.cores
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The handle of `version`, to be run by `engine`.
    ///
    /// # Errors
    /// A version whose types the catalog does not know, and that is not loaded here.
    pub(crate) fn handle(&self, version: &ModelVersion, engine: &str) -> Result<Arc<ModelHandle>> {
        let known = |interface| ModelHandle::of_version(version, interface, engine).map(Arc::new);
        if let Some(handle) = known(version.interface.clone()) {
            return Ok(handle);
        }
        let seen = self.state().interfaces.get(&(version.model.clone(), version.version)).cloned();
        seen.and_then(known).ok_or_else(|| {
            let label = version.label();
            error!(
                NotLoaded,
                "model '{label}' was not run when it was created, so the type of its predictions is not known yet: DESCRIBE MODEL {label} loads it"
            )
            .about(&label)
        })
    }

    /// The handle of `version`, as [`handle`](Self::handle), after loading it if its types are not known otherwise.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub(crate) async fn handle_after_loading(
        self: &Arc<Self>,
        version: &Arc<ModelVersion>,
        engine: &str,
    ) -> Result<Arc<ModelHandle>> {
        if let Ok(handle) = self.handle(version, engine) {
            return Ok(handle);
        }
        let registry = self.clone();
        let order = Order::new(version.label(), version.record.clone(), &version.interface, engine);
        let cancel = CancelToken::default();
        let _cancel = cancel.cancel_on_drop();
        let predictor = background::run(async move { registry.load_now(order, cancel).await }).await?;
        let interface = Arc::new(predictor.interface());
        self.state().interfaces.insert((version.model.clone(), version.version), interface);
        let handle = self.handle(version, engine)?;
        self.insert(&handle, predictor);
        Ok(handle)
    }

    /// The model of `handle`, if it is loaded.
    pub(crate) fn get(&self, handle: &ModelHandle) -> Option<Arc<Predictor>> {
        let (predictor, is_kept) = {
            let mut state = self.state();
            (state.use_of(handle)?, state.ready.contains_key(handle))
        };
        if is_kept && self.limits.model_memory.0 > 0 {
            self.evict(handle); // engines may have made more sessions since
        }
        Some(predictor)
    }

    /// The model of `version`, if it is loaded, by whichever engine; without counting as a use.
    pub(crate) fn peek(&self, version: &ModelVersion) -> Option<Arc<Predictor>> {
        let state = self.state();
        let of_version = |(handle, _): &(&Arc<ModelHandle>, &Ready)| {
            handle.name() == version.model && handle.version() == Some(version.version)
        };
        let latest = state.ready.iter().filter(of_version).max_by_key(|(_, ready)| ready.used)?;
        Some(latest.1.predictor.clone())
    }

    /// The model of `handle`, if it is loaded; without counting as a use.
    pub(crate) fn peek_handle(&self, handle: &ModelHandle) -> Option<Arc<Predictor>> {
        self.state().ready.get(handle).map(|ready| ready.predictor.clone())
    }

    /// All that is loaded, by label.
    pub(crate) fn loaded(&self) -> Vec<LoadedModel> {
        let snapshot = self.catalog.snapshot();
        let state = self.state();
        let called = state.ready.iter().filter(|(handle, ready)| !is_over(&snapshot, handle, ready));
        let each = called.map(|(handle, ready)| LoadedModel {
            handle: handle.clone(),
            predictor: ready.predictor.clone(),
            last_use: ready.last_use,
        });
        let mut all: Vec<_> = each.collect();
        all.sort_by(|a, b| (a.handle.label(), a.handle.engine()).cmp(&(b.handle.label(), b.handle.engine())));
        all
    }

    /// What all uses of each version have taken.
    pub(crate) fn all_totals(&self) -> Vec<ModelTotals> {
        self.totals.read()
    }

    /// The model of `handle`; loaded first if it is not.
    ///
    /// # Errors
    /// A file that can't be read, or that is not the one that the version was made of; those of loading a model.
    pub(crate) async fn load(self: &Arc<Self>, handle: &Arc<ModelHandle>) -> Result<Arc<Predictor>> {
        self.loading(handle).await
    }

    /// As [`load`](Self::load), on this thread, which waits.
    ///
    /// Only for a call that is a plain function in a plan that our planner did not make: such a call is synchronous. The work
    /// is done by threads of our own, so a worker of an async runtime that waits here waits for nothing that it would do.
    pub(crate) fn load_blocking(self: &Arc<Self>, handle: &Arc<ModelHandle>) -> Result<Arc<Predictor>> {
        let loading = self.loading(handle);
        background::block_on(loading)
    }

    /// The one answer for all who want this model now.
    fn loading(self: &Arc<Self>, handle: &Arc<ModelHandle>) -> Shared<Loading> {
        let mut state = self.state();
        if let Some(predictor) = state.use_of(handle) {
            return futures::future::ready(Ok(predictor)).boxed().shared();
        }
        if let Some(loading) = state.loading.get(handle).and_then(WeakShared::upgrade) {
            return loading;
        }
        let (registry, wanted) = (self.clone(), handle.clone());
        let work = async move {
            let cancel = CancelToken::default();
            let _cancel = cancel.cancel_on_drop();
            let work = {
                let (registry, order) = (registry.clone(), Order::of(&wanted));
                async move { registry.load_now(order, cancel).await }
            };
            let loaded = background::run(work).await;
            let loaded = loaded.and_then(|predictor| checked(&wanted, predictor));
            if let Ok(predictor) = &loaded {
                registry.totals.of(&wanted).loaded();
                registry.insert(&wanted, predictor.clone());
            }
            registry.state().loading.remove(&wanted);
            loaded
        };
        let loading = work.boxed().shared();
        state.loading.retain(|_, loading| loading.upgrade().is_some());
        state.loading.extend(loading.downgrade().map(|weak| (handle.clone(), weak)));
        loading
    }

    /// Takes over a model that is loaded.
    pub(crate) fn insert(&self, handle: &Arc<ModelHandle>, predictor: Arc<Predictor>) {
        let known = is_known(&self.catalog.snapshot(), handle);
        let replaced = {
            let mut state = self.state();
            state.clock += 1;
            let model = predictor.model();
            state.models.insert(model.sha256().to_owned(), Arc::downgrade(model));
            let source = state.origins.get(&origin_key(handle)).map_or(handle.record().uri.as_str(), |(uri, _)| uri);
            let reloadable = handle.record().copied || (model.has_file() && !fetch::is_redacted(source));
            let (used, last_use) = (state.clock, SystemTime::now());
            state.alive.insert(handle.clone(), Arc::downgrade(&predictor));
            state.ready.insert(handle.clone(), Ready { predictor, used, last_use, reloadable, known })
        };
        dispose(replaced.into_iter().collect());
        self.evict(handle);
    }

    /// Remembers where `version` came from, if its files are not in the catalog.
    pub(crate) fn remember(&self, version: &ModelVersion, uri: &str, storage: &StorageOptions) {
        let key = (version.label(), version.record.sha256.clone());
        self.state().origins.insert(key, (uri.to_owned(), storage.clone()));
    }

    async fn load_now(&self, order: Order, cancel: CancelToken) -> Result<Arc<Predictor>> {
        let Order { label, record, .. } = &order;
        let named = |error: crate::error::Error| error.of_model(label);
        let model = match self.model_with_hash(&record.sha256) {
            Some(model) => model,
            None => {
                let path = self.path(&order).await.map_err(named)?;
                match self.read(&order, path).await {
                    Ok(model) if model.sha256() == record.sha256 || !record.copied => model,
                    Err(error) if !record.copied => return Err(named(error)),
                    // What was in the cache is gone, or damaged.
                    Ok(_) | Err(_) => {
                        self.catalog.forget(record, &self.cache());
                        let path = self.path(&order).await.map_err(named)?;
                        self.read(&order, path).await.map_err(named)?
                    }
                }
            }
        };
        if model.sha256() != record.sha256 {
            bail!(
                InvalidModel,
                "model '{label}': the file '{}' is not the one that the version was made of: expected sha256 {}, found {}",
                model.uri(),
                record.sha256,
                model.sha256()
            );
        }
        self.state().models.insert(record.sha256.clone(), Arc::downgrade(&model));
        let chosen_device = record.ready.as_ref().and_then(|ready| ready.device.parse().ok());
        let request = PredictorRequest {
            options: record.options.clone(),
            label: order.label,
            model,
            features: order.features,
            engine: order.engine,
            must_run: false,
            cores: self.cores.total(),
            chosen_device,
        };
        let engines = self.engines.clone();
        background::blocking(move || Predictor::prepare(request, &engines, &cancel)).await
    }

    /// Whether a model of so many bytes is loaded.
    pub(crate) fn has_model_of_size(&self, size: u64) -> bool {
        self.state().models.values().filter_map(Weak::upgrade).any(|model| model.size() == size)
    }

    /// The model with this SHA-256, if it is loaded.
    pub(crate) fn model_with_hash(&self, sha256: &str) -> Option<Arc<Model>> {
        self.state().models.get(sha256).and_then(Weak::upgrade)
    }

    /// Where the file is on this machine, fetched first if it is not.
    async fn path(&self, order: &Order) -> Result<PathBuf> {
        let (record, cache) = (&order.record, self.cache());
        if record.copied {
            return self.catalog.fetch(record, &cache).await;
        }
        let source = self.state().origins.get(&order.origin_key()).cloned();
        let (uri, storage) = source.unwrap_or_else(|| (record.uri.clone(), StorageOptions::default()));
        Ok(fetch::fetch(&uri, &storage, &cache).await?.path)
    }

    async fn read(&self, order: &Order, path: PathBuf) -> Result<Arc<Model>> {
        let record = &order.record;
        // Of what the catalog holds, errors name the copy.
        let uri = if record.copied { path.display().to_string() } else { record.uri.clone() };
        background::blocking(move || Ok(Model::read_file(&uri, &path)?)).await
    }

    /// Unloads what was dropped, and the least recently used while all take more than the limit; never `newest`, nor what
    /// could not be loaded again. Queries that run go on with what they hold, which counts until they are done.
    fn evict(&self, newest: &ModelHandle) {
        let limit = self.limits.model_memory.0;
        let snapshot = self.catalog.snapshot();
        let mut gone = vec![];
        let mut guard = self.state();
        let state = &mut *guard;
        state.models.retain(|_, model| model.strong_count() > 0);
        state.alive.retain(|_, predictor| predictor.strong_count() > 0);
        // With their credentials.
        let is_there = |(label, _): &OriginKey| snapshot.lookup(label).is_ok();
        state.origins.retain(|key, _| is_there(key));
        let over =
            state.ready.iter().filter(|(handle, ready)| ***handle != *newest && is_over(&snapshot, handle, ready));
        let over: Vec<_> = over.map(|(handle, _)| handle.clone()).collect();
        gone.extend(over.iter().filter_map(|handle| state.ready.remove(handle)));
        loop {
            if limit == 0 {
                break;
            }
            // Versions of the same content share its weights.
            let mut alive: Vec<_> = state.alive.values().filter_map(Weak::upgrade).collect();
            // What is unloaded here goes, unless a query holds it, too.
            let goes = |it: &Arc<Predictor>| {
                Arc::strong_count(it) <= 2 && gone.iter().any(|ready: &Ready| Arc::ptr_eq(&ready.predictor, it))
            };
            alive.retain(|predictor| !goes(predictor));
            let models = alive.iter().map(|predictor| predictor.model());
            let models: HashMap<_, _> = models.map(|model| (Arc::as_ptr(model), model.bytes_in_memory())).collect();
            let compiled: u64 = alive.iter().map(|predictor| predictor.compiled_size()).sum();
            if models.values().sum::<u64>() + compiled <= limit {
                break;
            }
            let may_go = state.ready.iter().filter(|(handle, ready)| ready.reloadable && ***handle != *newest);
            let oldest = may_go.min_by_key(|(_, ready)| ready.used);
            let Some(oldest) = oldest.map(|(handle, _)| handle.clone()) else { break };
            gone.extend(state.ready.remove(&oldest));
        }
        drop(guard);
        dispose(gone);
    }
}

/// Lets models go, without the lock: sessions take their time. What they took goes back to the system a little later.
fn dispose(gone: Vec<Ready>) {
    if !gone.is_empty() {
        drop(gone); // now, so that they count no longer
        background::detached(trim);
    }
}

/// Whether the catalog has the version, as far as this process knows.
fn is_known(snapshot: &CatalogSnapshot, handle: &ModelHandle) -> bool {
    let has = |version| snapshot.get(handle.name()).is_some_and(|entry| entry.versions.contains_key(&version));
    handle.version().is_some_and(has)
}

/// Whether nobody calls a model any more: its version was dropped, or it is a function's and nobody but the registry has the
/// handle.
fn is_over(snapshot: &CatalogSnapshot, handle: &Arc<ModelHandle>, ready: &Ready) -> bool {
    match handle.version() {
        Some(_) => ready.known && !is_known(snapshot, handle),
        None => Arc::strong_count(handle) <= 2, // among those that are ready, and among those alive
    }
}

/// `predictor`, if its predictions are of the type that `handle` was planned with.
///
/// # Errors
/// Another type: what an engine gives here is not what another gave when the version was made.
fn checked(handle: &ModelHandle, predictor: Arc<Predictor>) -> Result<Arc<Predictor>> {
    let (found, expected) = (predictor.call().returns(), handle.return_type());
    if found != expected {
        bail!(
            InvalidOutput,
            "model '{}' gives {found} by engine '{}' here, and its version was recorded with {expected}: make it again with CREATE OR REPLACE MODEL",
            handle.label(),
            predictor.engine()
        );
    }
    Ok(predictor)
}

impl State {
    fn use_of(&mut self, handle: &ModelHandle) -> Option<Arc<Predictor>> {
        let Some(ready) = self.ready.get_mut(handle) else {
            // Unloaded, but held by a query that runs.
            return self.alive.get(handle).and_then(Weak::upgrade);
        };
        self.clock += 1;
        ready.used = self.clock;
        ready.last_use = SystemTime::now();
        Some(ready.predictor.clone())
    }
}

/// What loading a model needs to know.
struct Order {
    label: String,
    record: Arc<VersionRecord>,
    /// Names for its features, if any were given.
    features: Vec<FeatureName>,
    engine: String,
}

impl Order {
    fn of(handle: &ModelHandle) -> Self {
        let (record, interface) = (handle.record(), handle.interface());
        Self::new(handle.label().to_owned(), record.clone(), interface, handle.engine())
    }

    fn new(label: String, record: Arc<VersionRecord>, interface: &Interface, engine: &str) -> Self {
        let features = if record.names_given { interface.feature_names() } else { vec![] };
        Self { label, record, features, engine: engine.to_owned() }
    }

    fn origin_key(&self) -> OriginKey {
        (self.label.clone(), self.record.sha256.clone())
    }
}

/// Label and hash.
type OriginKey = (String, String);

fn origin_key(handle: &ModelHandle) -> OriginKey {
    (handle.label().to_owned(), handle.record().sha256.clone())
}

/// Without what it holds, which is long, and may be secret.
impl std::fmt::Debug for ModelRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelRegistry").field("catalog", &self.catalog).finish_non_exhaustive()
    }
}
