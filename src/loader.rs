//! Versions of models → models at work: loaded when they are first called, once for each process, and unloaded when
//! they take more memory than they may.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use datafusion::common::runtime::SpawnedTask;
use tokio::sync::OnceCell;

use crate::background;
use crate::catalog::{ModelCatalog, ModelVersion};
use crate::config::PredictConfig;
use crate::engine::{CoreBudget, Engine};
use crate::error::{Result, bail, error};
use crate::model::Model;
use crate::predictor::{Predictor, PredictorSource};
use crate::source;
use crate::storage::{DiskCache, StorageOptions};

/// What a process has loaded.
#[derive(Debug)]
pub(crate) struct ModelLoader {
    catalog: Arc<dyn ModelCatalog>,
    engines: Arc<[Arc<dyn Engine>]>,
    cores: Arc<CoreBudget>,
    limits: Limits,
    loaded: Mutex<Loaded>,
}

/// Bytes, as the session whose statement came last has set them: what they limit belongs to the process.
#[derive(Debug)]
struct Limits {
    model_memory: AtomicU64,
    cache: AtomicU64,
    download: AtomicU64,
}

#[derive(Debug, Default)]
struct Loaded {
    /// By model and version, whose content never changes.
    slots: HashMap<(String, u64), Slot>,
    /// Models by their hashes: versions that are the same file share its weights.
    models: HashMap<String, Weak<Model>>,
    /// Counts uses, to know which is the least recent.
    clock: u64,
}

#[derive(Debug, Default)]
struct Slot {
    /// Who comes while a model is loaded waits for it.
    predictor: Arc<OnceCell<Arc<Predictor>>>,
    used: u64,
}

impl ModelLoader {
    pub(crate) fn new(catalog: Arc<dyn ModelCatalog>, engines: Arc<[Arc<dyn Engine>]>, cores: Arc<CoreBudget>) -> Self {
        let limits = Limits { model_memory: AtomicU64::new(0), cache: AtomicU64::new(0), download: AtomicU64::new(0) };
        let loader = Self { catalog, engines, cores, limits, loaded: Mutex::default() };
        loader.limit(&PredictConfig::default());
        loader
    }

    /// Takes over the limits of a session.
    pub(crate) fn limit(&self, config: &PredictConfig) {
        self.limits.model_memory.store(config.model_memory.0, Ordering::Relaxed);
        self.limits.cache.store(config.cache_size.0, Ordering::Relaxed);
        self.limits.download.store(config.download_limit.0, Ordering::Relaxed);
    }

    /// Where what is fetched from afar is kept.
    pub(crate) fn cache(&self) -> DiskCache {
        DiskCache::new(self.limits.cache.load(Ordering::Relaxed), self.limits.download.load(Ordering::Relaxed))
    }

    pub(crate) fn engines(&self) -> &Arc<[Arc<dyn Engine>]> {
        &self.engines
    }

    pub(crate) fn cores(&self) -> &Arc<CoreBudget> {
        &self.cores
    }

    fn loaded(&self) -> MutexGuard<'_, Loaded> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The model of `version`, if it is loaded.
    pub(crate) fn get(&self, version: &ModelVersion) -> Option<Arc<Predictor>> {
        let mut loaded = self.loaded();
        loaded.clock += 1;
        let clock = loaded.clock;
        let slot = loaded.slots.get_mut(&key(version))?;
        slot.used = clock;
        slot.predictor.get().cloned()
    }

    /// Whether the model of `version` is loaded, without counting as a use; and its bytes.
    pub(crate) fn peek(&self, version: &ModelVersion) -> Option<Arc<Predictor>> {
        self.loaded().slots.get(&key(version))?.predictor.get().cloned()
    }

    /// The model of `version`; loaded first if it is not.
    ///
    /// # Errors
    /// A file that can't be read, or that is not the one that the version was made of; those of loading a model.
    pub(crate) async fn load(self: &Arc<Self>, version: &Arc<ModelVersion>) -> Result<Arc<Predictor>> {
        if let Some(predictor) = self.get(version) {
            return Ok(predictor);
        }
        let cell = self.loaded().slots.entry(key(version)).or_default().predictor.clone();
        let (this, wanted) = (self.clone(), version.clone());
        let load = || background::run(async move { this.load_now(wanted).await });
        let predictor = cell.get_or_try_init(load).await?.clone();
        self.evict(version);
        Ok(predictor)
    }

    /// As [`load`](Self::load), on this thread, which waits.
    pub(crate) fn load_blocking(self: &Arc<Self>, version: &Arc<ModelVersion>) -> Result<Arc<Predictor>> {
        if let Some(predictor) = self.get(version) {
            return Ok(predictor);
        }
        let (this, version) = (self.clone(), version.clone());
        background::wait(async move { this.load(&version).await })
    }

    /// Takes over a model that was loaded when its version was created.
    pub(crate) fn insert(&self, version: &ModelVersion, predictor: Arc<Predictor>) {
        {
            let mut loaded = self.loaded();
            loaded.clock += 1;
            let model = predictor.model();
            loaded.models.insert(model.sha256().to_owned(), Arc::downgrade(model));
            let slot = Slot { predictor: Arc::new(OnceCell::new_with(Some(predictor))), used: loaded.clock };
            loaded.slots.insert(key(version), slot);
        }
        self.evict(version);
    }

    async fn load_now(self: Arc<Self>, version: Arc<ModelVersion>) -> Result<Arc<Predictor>> {
        let label = version.label();
        let named = |error: crate::Error| error.of_model(&label);
        let record = &version.record;
        let shared = self.loaded().models.get(&record.sha256).and_then(Weak::upgrade);
        let model = match shared {
            Some(model) => model,
            None => {
                let cache = self.cache();
                let path = match record.copied {
                    true => self.catalog.fetch(record, &cache).await,
                    false => source::fetch(&record.uri, &StorageOptions::default(), &cache).await.map(|it| it.path),
                };
                let (path, uri) = (path.map_err(named)?, record.uri.clone());
                let read = SpawnedTask::spawn_blocking(move || Model::read_file(&uri, &path)).join().await;
                read.map_err(|cause| error!(EngineFailed, "loading it failed").with_source(cause))
                    .and_then(|read| read)
                    .map_err(named)?
            }
        };
        if model.sha256() != record.sha256 {
            bail!(
                InvalidModel,
                "model '{label}': the file at '{}' is not the one that the version was made of: expected sha256 {}, found {}",
                if record.copied { "the catalog" } else { &record.uri },
                record.sha256,
                model.sha256()
            );
        }
        self.loaded().models.insert(record.sha256.clone(), Arc::downgrade(&model));
        let source = PredictorSource {
            label: label.clone(),
            model,
            features: record.features.clone(),
            options: record.options.clone(),
            engine: PredictConfig::AUTO.to_owned(),
        };
        let (engines, cores) = (self.engines.clone(), self.cores.clone());
        let loaded = SpawnedTask::spawn_blocking(move || Predictor::load(source, &engines, &cores)).join().await;
        loaded.map_err(|cause| error!(EngineFailed, "model '{label}': loading it failed").with_source(cause))?
    }

    /// Unloads the least recently used while all take more than the limit; never `newest`, nor what could not be loaded
    /// again. Queries that run go on with what they hold.
    fn evict(&self, newest: &ModelVersion) {
        let limit = self.limits.model_memory.load(Ordering::Relaxed);
        let snapshot = self.catalog.snapshot();
        let mut loaded = self.loaded();
        loaded.models.retain(|_, model| model.strong_count() > 0);
        // What was dropped is not called any more.
        let is_there =
            |model: &str, version: &u64| snapshot.get(model).is_some_and(|entry| entry.versions.contains_key(version));
        let newest = key(newest);
        loaded.slots.retain(|key, slot| *key == newest || slot.predictor.get().is_none() || is_there(&key.0, &key.1));
        if limit == 0 {
            return;
        }
        let mut slots: Vec<_> = loaded
            .slots
            .iter()
            .filter_map(|(key, slot)| Some((slot.used, key.clone(), slot.predictor.get()?.clone())))
            .collect();
        slots.sort_by_key(|(used, ..)| *used);
        let mut total: u64 = slots.iter().map(|(_, _, predictor)| predictor.memory()).sum();
        for (_, key, predictor) in slots {
            if total <= limit {
                break;
            }
            if key != newest && predictor.model().has_file() {
                loaded.slots.remove(&key);
                total -= predictor.memory();
            }
        }
    }
}

fn key(version: &ModelVersion) -> (String, u64) {
    (version.model.clone(), version.version)
}
