//! Versions of models → models at work: loaded when they are first called, once for each process, and unloaded when
//! they take more memory than they may.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::OnceCell;

use crate::background;
use crate::catalog::{ModelCatalog, ModelVersion};
use crate::config::PredictConfig;
use crate::engine::{CancelOnDrop, CancelToken, CoreBudget, Engine};
use crate::error::{Result, bail};
use crate::model::Model;
use crate::predictor::{Predictor, PredictorSource};
use crate::source;
use crate::storage::{DiskCache, StorageOptions};

/// What a process has loaded.
pub(crate) struct ModelLoader {
    catalog: Arc<dyn ModelCatalog>,
    engines: Arc<[Arc<dyn Engine>]>,
    cores: Arc<CoreBudget>,
    /// The folder of the cache, if one was named.
    pub cache_folder: Option<PathBuf>,
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
    /// Where versions came from whose files the catalog does not hold, with what the catalog does not keep: credentials.
    sources: HashMap<(String, u64), (String, StorageOptions)>,
    /// Models by their hashes: versions that are the same file share its weights.
    models: HashMap<String, Weak<Model>>,
    /// Counts uses, to know which is the least recent.
    clock: u64,
}

#[derive(Debug, Default)]
struct Slot {
    /// Who comes while a model is loaded waits for it.
    predictor: Arc<OnceCell<Arc<Predictor>>>,
    /// Held by all who wait: when the last of them is gone, the trial run is, too.
    waiting: Weak<CancelOnDrop>,
    used: u64,
    /// Whether it could be loaded again.
    reloadable: bool,
}

impl ModelLoader {
    pub(crate) fn new(catalog: Arc<dyn ModelCatalog>, engines: Arc<[Arc<dyn Engine>]>, cores: Arc<CoreBudget>) -> Self {
        let limits = Limits { model_memory: AtomicU64::new(0), cache: AtomicU64::new(0), download: AtomicU64::new(0) };
        let loader = Self { catalog, engines, cores, cache_folder: None, limits, loaded: Mutex::default() };
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
        let folder = self.cache_folder.clone();
        DiskCache::new(folder, self.limits.cache.load(Ordering::Relaxed), self.limits.download.load(Ordering::Relaxed))
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
        let (this, version) = (self.clone(), version.clone());
        let (cell, cancel, _waiting) = {
            let mut loaded = this.loaded();
            loaded.clock += 1;
            let clock = loaded.clock;
            let slot = loaded.slots.entry(key(&version)).or_default();
            slot.used = clock;
            slot.reloadable = true; // it is being loaded
            let waiting = slot.waiting.upgrade().unwrap_or_else(|| Arc::new(CancelToken::default().cancel_on_drop()));
            slot.waiting = Arc::downgrade(&waiting);
            (slot.predictor.clone(), waiting.token().clone(), waiting)
        };
        // The cell is waited for by threads, too: who fills it must not depend on them.
        background::finish(async move {
            let predictor = cell.get_or_try_init(|| this.clone().load_now(version.clone(), cancel)).await?.clone();
            this.evict(&version);
            Ok(predictor)
        })
        .await
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
            let source = loaded.sources.get(&key(version)).map_or(version.record.uri.as_str(), |(uri, _)| uri);
            let reloadable = version.record.copied || (model.has_file() && !source::is_redacted(source));
            let slot = Slot {
                predictor: Arc::new(OnceCell::new_with(Some(predictor))),
                used: loaded.clock,
                reloadable,
                waiting: Weak::new(),
            };
            loaded.slots.insert(key(version), slot);
        }
        self.evict(version);
    }

    /// Remembers where `version` came from, if its files are not in the catalog.
    pub(crate) fn remember(&self, version: &ModelVersion, uri: &str, storage: &StorageOptions) {
        self.loaded().sources.insert(key(version), (uri.to_owned(), storage.clone()));
    }

    async fn load_now(self: Arc<Self>, version: Arc<ModelVersion>, cancel: CancelToken) -> Result<Arc<Predictor>> {
        let label = version.label();
        let named = |error: crate::Error| error.of_model(&label);
        let record = &version.record;
        let shared = self.loaded().models.get(&record.sha256).and_then(Weak::upgrade);
        let model = match shared {
            Some(model) => model,
            None => {
                let path = self.path(&version).await.map_err(named)?;
                match self.read(&version, path).await {
                    Ok(model) if model.sha256() == record.sha256 || !record.copied => model,
                    Err(error) if !record.copied => return Err(named(error)),
                    // What was in the cache is gone, or damaged.
                    Ok(_) | Err(_) => {
                        self.catalog.forget(record, &self.cache());
                        let path = self.path(&version).await.map_err(named)?;
                        self.read(&version, path).await.map_err(named)?
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
        self.loaded().models.insert(record.sha256.clone(), Arc::downgrade(&model));
        let source = PredictorSource {
            label,
            model,
            features: version.given_names(),
            options: record.options.clone(),
            engine: PredictConfig::AUTO.to_owned(),
        };
        let (engines, cores) = (self.engines.clone(), self.cores.clone());
        background::blocking(move || Predictor::load(source, &engines, &cores, &cancel)).await
    }

    /// Where the file of `version` is on this machine, fetched first if it is not.
    async fn path(&self, version: &ModelVersion) -> Result<PathBuf> {
        let (record, cache) = (&version.record, self.cache());
        if record.copied {
            return self.catalog.fetch(record, &cache).await;
        }
        let source = self.loaded().sources.get(&key(version)).cloned();
        let (uri, storage) = source.unwrap_or_else(|| (record.uri.clone(), StorageOptions::default()));
        Ok(source::fetch(&uri, &storage, &cache).await?.path)
    }

    async fn read(&self, version: &ModelVersion, path: PathBuf) -> Result<Arc<Model>> {
        // Of what the catalog holds, errors name the copy.
        let uri = if version.record.copied { path.display().to_string() } else { version.record.uri.clone() };
        background::blocking(move || Model::read_file(&uri, &path)).await
    }

    /// Unloads the least recently used while all take more than the limit; never `newest`, nor what could not be loaded
    /// again. Queries that run go on with what they hold.
    fn evict(&self, newest: &ModelVersion) {
        let limit = self.limits.model_memory.load(Ordering::Relaxed);
        let snapshot = self.catalog.snapshot();
        let mut loaded = self.loaded();
        let loaded = &mut *loaded;
        loaded.models.retain(|_, model| model.strong_count() > 0);
        // What was dropped is not called any more.
        let is_there =
            |model: &str, version: &u64| snapshot.get(model).is_some_and(|entry| entry.versions.contains_key(version));
        let newest = key(newest);
        loaded.slots.retain(|key, slot| *key == newest || slot.predictor.get().is_none() || is_there(&key.0, &key.1));
        loaded.sources.retain(|key, _| *key == newest || is_there(&key.0, &key.1));
        if limit == 0 {
            return;
        }
        loop {
            let there = loaded.slots.iter().filter_map(|(key, slot)| Some((slot, key, slot.predictor.get()?)));
            let there: Vec<_> = there.collect();
            // Versions of the same content share its weights.
            let models: HashMap<_, _> =
                there.iter().map(|(.., it)| (Arc::as_ptr(it.model()), it.model().size())).collect();
            let compiled: u64 = there.iter().map(|(.., predictor)| predictor.compiled_size()).sum();
            if models.values().sum::<u64>() + compiled <= limit {
                return;
            }
            let may_go = there.iter().filter(|(slot, key, _)| slot.reloadable && **key != newest);
            let oldest = may_go.min_by_key(|(slot, ..)| slot.used);
            let Some(oldest) = oldest.map(|(_, key, _)| (*key).clone()) else { return };
            loaded.slots.remove(&oldest);
        }
    }
}

/// Without what it holds, which is long, and may be secret.
impl std::fmt::Debug for ModelLoader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelLoader").field("catalog", &self.catalog).finish_non_exhaustive()
    }
}

fn key(version: &ModelVersion) -> (String, u64) {
    (version.model.clone(), version.version)
}
