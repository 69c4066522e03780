//! The models of a process and what runs them.

use std::path::PathBuf;
use std::sync::Arc;

use crate::background;
use crate::catalog::{
    Change, Committed, Interface, ModelCatalog, ModelHandle, ModelVersion, ObjectStoreCatalog, VersionRecord,
    VersionReference,
};
use crate::config::ByteSize;
use crate::engine::ort::OrtEngine;
use crate::engine::{CoreBudget, Engine, NativeEngine};
use crate::error::{Result, bail};
use crate::model::{Model, ModelOptions};
use crate::predictor::{Predictor, PredictorSource};
use crate::registry::{Limits, ModelRegistry, RegisteredModel};
use crate::source::{self, Fetched};
use crate::statement::CreateModel;
use crate::storage::{Download, StorageOptions, absolute};
use crate::tensor::InputEncoder;

/// The models of a process and the engines that run them. Sessions may share one.
///
/// What models may take of the machine is set here, for all sessions.
///
/// ```
/// # use datafusion_predict::PredictRuntime;
/// let runtime = PredictRuntime::default().with_model_memory(2 << 30).with_cache_size(20 << 30);
/// ```
#[derive(Debug)]
pub struct PredictRuntime {
    catalog: Arc<dyn ModelCatalog>,
    registry: Arc<ModelRegistry>,
}

impl Default for PredictRuntime {
    fn default() -> Self {
        Self::new(None)
    }
}

impl PredictRuntime {
    /// Models in memory, run by our own engine where it can, else by the ONNX Runtime at `onnxruntime` or the one that is
    /// found.
    pub fn new(onnxruntime: Option<PathBuf>) -> Self {
        let cores = Arc::new(CoreBudget::default());
        Self::of_engines(OrtEngine::new(onnxruntime, cores.clone()), cores)
    }

    fn of(
        catalog: Arc<dyn ModelCatalog>,
        engines: Arc<[Arc<dyn Engine>]>,
        cores: Arc<CoreBudget>,
        limits: Limits,
    ) -> Self {
        let registry = Arc::new(ModelRegistry::new(catalog.clone(), engines, cores, limits));
        Self { catalog, registry }
    }

    /// Lets all runs of ONNX Runtime on the CPU take `bytes` of memory, where a run that asks for more is an error; 0 is no
    /// limit, and half of the machine's memory unless it is called. The library is the one at `onnxruntime`, or the one that
    /// is found.
    #[must_use]
    pub fn with_runtime_memory(onnxruntime: Option<PathBuf>, bytes: u64) -> Self {
        let cores = Arc::new(CoreBudget::default());
        let ort = OrtEngine::new(onnxruntime, cores.clone()).with_memory_limit(bytes);
        Self::of_engines(ort, cores)
    }

    fn of_engines(ort: OrtEngine, cores: Arc<CoreBudget>) -> Self {
        let engines: [Arc<dyn Engine>; 2] = [Arc::new(NativeEngine), Arc::new(ort)];
        let catalog = Arc::new(ObjectStoreCatalog::in_memory());
        Self::of(catalog, Arc::new(engines), cores, Limits::default())
    }

    fn with_limits(self, change: impl FnOnce(&mut Limits)) -> Self {
        let (engines, cores) = (self.registry.engines().clone(), self.registry.cores().clone());
        let mut limits = self.registry.limits().clone();
        change(&mut limits);
        Self::of(self.catalog, engines, cores, limits)
    }

    /// Keeps the models in `catalog`.
    #[must_use]
    pub fn with_catalog(self, catalog: Arc<dyn ModelCatalog>) -> Self {
        let (engines, cores) = (self.registry.engines().clone(), self.registry.cores().clone());
        Self::of(catalog, engines, cores, self.registry.limits().clone())
    }

    /// Prefers `engine` for the models that it accepts.
    #[must_use]
    pub fn with_engine(self, engine: Arc<dyn Engine>) -> Self {
        let engines = std::iter::once(engine).chain(self.registry.engines().iter().cloned()).collect();
        Self::of(self.catalog, engines, self.registry.cores().clone(), self.registry.limits().clone())
    }

    /// Keeps what is fetched from afar in `folder`, instead of the user's cache folder.
    #[must_use]
    pub fn with_cache_folder(self, folder: PathBuf) -> Self {
        self.with_limits(|limits| limits.cache_folder = Some(folder))
    }

    /// Lets loaded models take `bytes` of memory, about, before the least recently used are unloaded. 0, the default, is no
    /// limit.
    #[must_use]
    pub fn with_model_memory(self, bytes: u64) -> Self {
        self.with_limits(|limits| limits.model_memory = ByteSize(bytes))
    }

    /// Lets files that were fetched from afar take `bytes` of the disk before the least recently used are removed; 10 GiB
    /// unless it is called.
    #[must_use]
    pub fn with_cache_size(self, bytes: u64) -> Self {
        self.with_limits(|limits| limits.cache_size = ByteSize(bytes))
    }

    /// Refuses to fetch a file of more than `bytes`; 8 GiB unless it is called.
    #[must_use]
    pub fn with_download_limit(self, bytes: u64) -> Self {
        self.with_limits(|limits| limits.download_limit = ByteSize(bytes))
    }

    /// The files of models that are being fetched from afar, for who shows how far that is.
    pub fn downloads(&self) -> Vec<Download> {
        self.registry.downloads().all()
    }

    /// Where the models are kept.
    pub fn catalog(&self) -> &Arc<dyn ModelCatalog> {
        &self.catalog
    }

    pub(crate) fn registry(&self) -> &Arc<ModelRegistry> {
        &self.registry
    }

    /// Reads the model at `uri` and makes it ready. `features` names its features; empty, its own names are taken.
    /// `engine` names the engine that is to run it; `auto` is the first that can.
    ///
    /// # Errors
    /// A file that can't be read, a model that is none or that can't be run, options that do not fit it.
    pub async fn load(
        &self,
        label: &str,
        uri: &str,
        features: Vec<String>,
        options: ModelOptions,
        engine: &str,
    ) -> Result<Arc<Predictor>> {
        let (model, features) = self.read(label, uri, features, &StorageOptions::default()).await?;
        self.predictor(label, model, features, options, engine).await
    }

    /// Makes a model that was [loaded](Self::load) a version of `name`: the first, or the next if `replace`.
    ///
    /// # Errors
    /// A name that is taken or that is none; a catalog that can't be written.
    pub async fn register(&self, name: &str, predictor: Arc<Predictor>, replace: bool) -> Result<Arc<ModelVersion>> {
        let create = CreateModel { or_replace: replace, ..CreateModel::new(name, predictor.model().uri())? };
        let (model, features) = (predictor.model().clone(), predictor.given_features().to_vec());
        self.commit(&create, model, features, predictor.options().clone(), Some(predictor)).await
    }

    /// Runs `CREATE MODEL`; `engine` as in [`load`](Self::load). `None` if there is such a model, and that is no error.
    ///
    /// # Errors
    /// As [`load`](Self::load) and [`register`](Self::register); another content than `sha256` says; another signature
    /// than that of the version before.
    pub async fn create(&self, create: &CreateModel, engine: &str) -> Result<Option<Arc<ModelVersion>>> {
        let CreateModel { name, or_replace, if_not_exists, .. } = create;
        if !or_replace && self.catalog.snapshot().get(name).is_some() {
            if *if_not_exists {
                return Ok(None);
            }
            bail!(ModelExists, "model '{name}' exists already: CREATE OR REPLACE MODEL makes a new version");
        }
        let secrets = source::holds_secrets(&create.uri) || !create.options.storage.is_empty();
        if create.options.copy == Some(false) && self.catalog.keeps_files() && secrets {
            bail!(
                InvalidOption,
                "model '{name}' can't be referred to (option 'copy'): its URI or options may hold credentials, which the catalog does not keep, and others would need: set environment variables instead"
            );
        }
        let (model, features) = self.read(name, &create.uri, create.features.clone(), &create.options.storage).await?;
        if let Some(expected) = create.options.sha256.as_ref().filter(|expected| **expected != model.sha256()) {
            bail!(
                InvalidModel,
                "model '{name}': '{}' is not the file that is expected: its sha256 is {}, the option 'sha256' says {expected}",
                model.uri(),
                model.sha256()
            );
        }
        let options = create.options.model.clone();
        let predictor = match create.options.validate {
            true => Some(self.predictor(name, model.clone(), features.clone(), options.clone(), engine).await?),
            false => None,
        };
        match self.commit(create, model, features, options, predictor).await {
            // Somebody else was faster, which IF NOT EXISTS allows.
            Err(error) if *if_not_exists && error.kind() == crate::ErrorKind::ModelExists => Ok(None),
            created => created.map(Some),
        }
    }

    /// The model at `uri`, and names for its features: those given, or those that its description gives.
    async fn read(
        &self,
        label: &str,
        uri: &str,
        given: Vec<String>,
        storage: &StorageOptions,
    ) -> Result<(Arc<Model>, Vec<String>)> {
        let (uri, storage, cache) = (uri.to_owned(), storage.clone(), self.registry.cache());
        let read = background::run(async move {
            let Fetched { uri, path, features } = source::fetch(&uri, &storage, &cache).await?;
            let model = background::blocking(move || Model::read_file(&uri, &path)).await?;
            Ok((model, features))
        });
        let (model, described) = read.await.map_err(|error| error.of_model(label))?;
        if !given.is_empty() {
            return Ok((model, given));
        }
        // Inputs that are features of their own have names in the graph.
        let encoder = InputEncoder::new(model.signature().inputs.clone());
        let fit = encoder.matrix().is_some() && encoder.width().is_none_or(|width| width == described.len());
        Ok((model, if fit { described } else { vec![] }))
    }

    async fn predictor(
        &self,
        label: &str,
        model: Arc<Model>,
        features: Vec<String>,
        options: ModelOptions,
        engine: &str,
    ) -> Result<Arc<Predictor>> {
        let source = PredictorSource { label: label.to_owned(), model, features, options, engine: engine.to_owned() };
        let engines = self.registry.engines().clone();
        background::cancellable(move |cancel| Predictor::load(source, &engines, cancel)).await
    }

    /// Copies the files, where they are to be kept; then the version is there, and not before.
    async fn commit(
        &self,
        create: &CreateModel,
        model: Arc<Model>,
        features: Vec<String>,
        options: ModelOptions,
        predictor: Option<Arc<Predictor>>,
    ) -> Result<Arc<ModelVersion>> {
        let name = &create.name;
        let files = model.files();
        let copied = self.catalog.keeps_files() && create.options.copy != Some(false);
        let uri = match self.catalog.keeps_files() && !copied {
            true => absolute(model.uri()),
            false => model.uri().to_owned(),
        };
        let interface = match &predictor {
            Some(predictor) => Interface::of(predictor),
            None => Interface::declared(&model, &features),
        };
        let ready = predictor.as_ref().map(|predictor| predictor.readiness());
        let record = VersionRecord { ready, ..record_of(&model, uri, copied, !features.is_empty(), options) };
        let change = Change::Create {
            model: name.clone(),
            record: Box::new(record),
            interface: Box::new(interface),
            replace: create.or_replace,
            activate: create.options.activate,
            allow_signature_change: create.options.allow_signature_change,
        };
        if copied {
            // What is refused leaves no files behind.
            change.check(&self.catalog.snapshot())?;
            let Some(files) = &files else {
                bail!(InvalidStatement, "model '{name}' has no file that the catalog could keep");
            };
            self.catalog.publish(files).await.map_err(|error| error.of_model(name))?;
        }
        let Committed { snapshot, created } = self.catalog.commit(change).await?;
        let Some(number) = created else {
            bail!(InvalidCatalog, "model '{name}': the catalog does not say which version it made");
        };
        let version = snapshot.version(name, &VersionReference::Number(number))?.clone();
        let engine = predictor.as_ref().map_or(ModelHandle::AUTO, |predictor| predictor.chosen());
        if !copied {
            // An alias of MLflow's was resolved; what is secret is in the statement alone.
            let secret = source::holds_secrets(&create.uri);
            let uri = if secret { &create.uri } else { &version.record.uri };
            self.registry.remember(&version, uri, &create.options.storage);
        }
        if let Some(predictor) = &predictor {
            let handle = self.registry.handle(&version, engine)?;
            self.registry.insert(&handle, Arc::new(predictor.labelled(version.label())));
        }
        Ok(version)
    }

    /// The model of a function `name` that no catalog knows: the one that was [loaded](Self::load).
    pub(crate) fn function_model(&self, name: &str, predictor: Arc<Predictor>) -> Result<Arc<RegisteredModel>> {
        let model = predictor.model();
        let names_given = !predictor.given_features().is_empty();
        let options = predictor.options().clone();
        let ready = Some(predictor.readiness());
        let record = VersionRecord { ready, ..record_of(model, absolute(model.uri()), false, names_given, options) };
        let interface = Arc::new(Interface::of(&predictor));
        let handle =
            ModelHandle::new(name.to_owned(), None, Arc::new(record), interface, predictor.chosen().to_owned());
        let Some(handle) = handle.map(Arc::new) else {
            bail!(InvalidOutput, "function '{name}': its predictions are of a type that can't be planned");
        };
        self.registry.insert(&handle, predictor);
        Ok(Arc::new(RegisteredModel::new(handle, self.registry.clone())))
    }
}

/// What is recorded of `model`, which is not ready to run yet.
fn record_of(model: &Model, uri: String, copied: bool, names_given: bool, options: ModelOptions) -> VersionRecord {
    VersionRecord {
        uri,
        sha256: model.sha256().to_owned(),
        size: model.size(),
        external_files: model.files().map(|files| files.external).unwrap_or_default(),
        copied,
        names_given,
        options,
        producer: model.metadata().producer.clone(),
        opset: model.metadata().opsets_line(),
        ready: None,
    }
}
