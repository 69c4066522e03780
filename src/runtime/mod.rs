//! The models of a process and what runs them.

mod builder;
mod create;

use std::sync::Arc;

use datafusion::execution::context::SessionContext;
use datafusion_predict_native::Model;

pub use builder::PredictRuntimeBuilder;
pub use create::{CreateModel, CreateOptions};

use crate::background;
use crate::call::{FeatureName, ModelOptions};
use crate::catalog::{Change, Committed, ModelCatalog, ModelHandle, ModelVersion, VersionRecord, VersionReference};
use crate::encode::InputEncoder;
use crate::engine::{self, CoreBudget};
use crate::error::{Result, bail};
use crate::fetch::{self, Fetched};
use crate::registry::{LoadedModel, ModelRegistry, ModelTotals, RegisteredModel};
use crate::scoring::{Predictor, PredictorRequest, declared_interface};
use crate::storage::{Download, absolute};

/// The models of a process and the engines that run them. Sessions may share one.
///
/// [`default`](Self::default) keeps models in memory; [`builder`](Self::builder) sets where they are kept, what runs them and
/// what they may take of the machine.
///
/// ```
/// # #[tokio::main] async fn main() -> datafusion_predict::Result<()> {
/// use datafusion_predict::{CreateModel, PredictRuntime};
///
/// let runtime = PredictRuntime::default();
/// let create = CreateModel::new("iris", "tests/models/sklearn/iris_forest.onnx")?;
/// let version = runtime.create(&create, "auto").await?.expect("a new name");
/// assert_eq!(version.label(), "iris/1");
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct PredictRuntime {
    catalog: Arc<dyn ModelCatalog>,
    registry: Arc<ModelRegistry>,
}

impl Default for PredictRuntime {
    fn default() -> Self {
        Self::builder().build()
    }
}

impl PredictRuntime {
    /// Sets what is not as [`default`](Self::default) has it.
    pub fn builder() -> PredictRuntimeBuilder {
        PredictRuntimeBuilder::default()
    }

    /// The one that [`with_predict`](crate::PredictExt::with_predict) gave to a session.
    ///
    /// # Errors
    /// A session that it was not called for.
    pub(crate) fn of_session(context: &SessionContext) -> Result<Arc<Self>> {
        match context.state_ref().read().config().get_extension::<Self>() {
            Some(runtime) => Ok(runtime),
            None => bail!(InvalidStatement, "this session knows no models: call with_predict first"),
        }
    }

    /// The files of models that are being fetched from afar, for who shows how far that is.
    pub fn downloads(&self) -> Vec<Download> {
        self.registry.downloads().all()
    }

    /// What all uses of each version in this process have taken until now.
    pub fn model_totals(&self) -> Vec<ModelTotals> {
        self.registry.all_totals()
    }

    /// The cores that runs of models share.
    pub fn cores(&self) -> &Arc<CoreBudget> {
        self.registry.cores()
    }

    /// Bytes of memory that the loaded models take, by version and engine.
    pub fn model_memory(&self) -> Vec<(String, String, u64)> {
        let loaded = self.registry.loaded();
        let of =
            |it: &LoadedModel| (it.handle.label().to_owned(), it.predictor.engine().to_owned(), it.predictor.memory());
        loaded.iter().map(of).collect()
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
        features: Vec<FeatureName>,
        options: ModelOptions,
        engine: &str,
    ) -> Result<Arc<Predictor>> {
        let (model, features) = self.read(label, uri, features, &CreateOptions::default()).await?;
        let options = with_labels(options, &model)?;
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
        let secrets = fetch::holds_secrets(&create.uri) || !create.options.storage.is_empty();
        if create.options.copy == Some(false) && self.catalog.keeps_files() && secrets {
            bail!(
                InvalidOption,
                "model '{name}' can't be referred to (option 'copy'): its URI or options may hold credentials, which the catalog does not keep, and others would need: set environment variables instead"
            );
        }
        if create.options.copy == Some(false) && self.catalog.keeps_files() && create.options.tokenizer.is_some() {
            bail!(
                InvalidOption,
                "model '{name}' has its tokenizer elsewhere (option 'tokenizer'), so it can't be referred to (option 'copy')"
            );
        }
        let (model, features) = self.read(name, &create.uri, create.features.clone(), &create.options).await?;
        if let Some(expected) = create.options.sha256.as_ref().filter(|expected| **expected != model.sha256()) {
            bail!(
                InvalidModel,
                "model '{name}': '{}' is not the file that is expected: its sha256 is {}, the option 'sha256' says {expected}",
                model.uri(),
                model.sha256()
            );
        }
        let options = with_labels(create.options.model.clone(), &model)?;
        let predictor = if create.options.validate {
            Some(self.predictor(name, model.clone(), features.clone(), options.clone(), engine).await?)
        } else {
            None
        };
        match self.commit(create, model, features, options, predictor).await {
            // Somebody else was faster, which IF NOT EXISTS allows.
            Err(error) if *if_not_exists && error.kind() == crate::error::ErrorKind::ModelExists => Ok(None),
            created => created.map(Some),
        }
    }

    /// The model at `uri`, and names for its features: those given, or those that its description gives.
    async fn read(
        &self,
        label: &str,
        uri: &str,
        given: Vec<FeatureName>,
        options: &CreateOptions,
    ) -> Result<(Arc<Model>, Vec<FeatureName>)> {
        let (uri, storage, cache) = (uri.to_owned(), options.storage.clone(), self.registry.cache());
        let tokenizer = options.tokenizer.clone();
        let registry = self.registry.clone();
        let read = background::run(async move {
            let mut fetched = fetch::fetch(&uri, &storage, &cache).await?;
            if let Some(tokenizer) = tokenizer {
                let with = move || fetch::with_tokenizer(fetched, &tokenizer, &cache.with_tokenizers());
                fetched = background::blocking(with).await?;
            }
            let Fetched { uri, path, features } = fetched;
            let has_size = {
                let registry = registry.clone();
                move |size| registry.has_model_of_size(size)
            };
            let known = move |sha256: &str| registry.model_with_hash(sha256);
            let read = move || Ok(Model::read_unless_known(&uri, &path, has_size, known)?);
            let model = background::blocking(read).await?;
            Ok((model, features))
        });
        let (model, described) = read.await.map_err(|error| error.of_model(label))?;
        if !given.is_empty() {
            return Ok((model, given));
        }
        // Inputs that are features of their own have names in the graph.
        let encoder = InputEncoder::new(model.signature().inputs.clone());
        let fit = encoder.matrix().is_some() && encoder.width().is_none_or(|width| width == described.len());
        Ok((model, if fit { described.into_iter().map(FeatureName::from).collect() } else { vec![] }))
    }

    async fn predictor(
        &self,
        label: &str,
        model: Arc<Model>,
        features: Vec<FeatureName>,
        options: ModelOptions,
        engine: &str,
    ) -> Result<Arc<Predictor>> {
        let request = PredictorRequest {
            label: label.to_owned(),
            model,
            features,
            options,
            engine: engine.to_owned(),
            must_run: true,
            cores: self.registry.cores().total(),
            chosen_device: None,
        };
        let engines = self.registry.engines().clone();
        background::cancellable(move |cancel| Predictor::prepare(request, &engines, cancel)).await
    }

    /// Copies the files, where they are to be kept; then the version is there, and not before.
    async fn commit(
        &self,
        create: &CreateModel,
        model: Arc<Model>,
        features: Vec<FeatureName>,
        options: ModelOptions,
        predictor: Option<Arc<Predictor>>,
    ) -> Result<Arc<ModelVersion>> {
        let name = &create.name;
        let files = model.files();
        let copied = self.catalog.keeps_files() && create.options.copy != Some(false);
        let uri = if self.catalog.keeps_files() && !copied { absolute(model.uri()) } else { model.uri().to_owned() };
        let interface = match &predictor {
            Some(predictor) => predictor.interface(),
            None => declared_interface(name, &model, &features, &options)?,
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
        let engine = predictor.as_ref().map_or(engine::AUTO, |predictor| predictor.chosen());
        if !copied {
            // An alias of MLflow's was resolved; what is secret is in the statement alone.
            let secret = fetch::holds_secrets(&create.uri);
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
        let interface = Arc::new(predictor.interface());
        let handle =
            ModelHandle::new(name.to_owned(), None, Arc::new(record), interface, predictor.chosen().to_owned());
        let Some(handle) = handle.map(Arc::new) else {
            bail!(InvalidOutput, "function '{name}': its predictions are of a type that can't be planned");
        };
        self.registry.insert(&handle, predictor);
        Ok(Arc::new(RegisteredModel::new(handle, self.registry.clone())))
    }
}

/// The options with the classes' names read from their file.
fn with_labels(options: ModelOptions, model: &Model) -> Result<ModelOptions> {
    let file = model.files().map(|files| files.path);
    let labels = options.labels.map(|labels| labels.read(file.as_deref())).transpose()?;
    Ok(ModelOptions { labels, ..options })
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
