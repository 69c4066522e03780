//! Names → versions of models.

mod memory;
mod name;
mod resolver;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;

pub use memory::MemoryCatalog;
pub(crate) use name::fold_name;
pub use name::{ModelReference, VersionReference};
pub(crate) use resolver::CatalogResolver;

use crate::error::{Result, bail};
use crate::predictor::Predictor;

/// Where models are kept. What it holds is seen through snapshots: planning asks them, and never waits.
#[async_trait]
pub trait ModelCatalog: Debug + Send + Sync {
    /// The models as of the last [`refresh`](Self::refresh) or change made here.
    fn snapshot(&self) -> Arc<CatalogSnapshot>;

    /// Learns what others have changed.
    async fn refresh(&self) -> Result<()>;

    /// Adds `predictor` as the next version of `name`.
    ///
    /// # Errors
    /// The name is taken, and `replace` is false.
    async fn create(&self, name: &str, predictor: Arc<Predictor>, replace: bool) -> Result<Arc<ModelVersion>>;

    /// Removes the name; whether it was there. Queries that were planned with it go on.
    async fn remove(&self, name: &str) -> Result<bool>;
}

/// One version of a model. Immutable.
#[derive(Debug)]
pub struct ModelVersion {
    /// The model's name.
    pub name: String,
    /// Counted from 1.
    pub version: u64,
    /// The model at work.
    pub predictor: Arc<Predictor>,
}

/// The models of a catalog at one moment.
#[derive(Debug, Clone, Default)]
pub struct CatalogSnapshot {
    models: BTreeMap<String, Arc<ModelVersion>>,
}

impl CatalogSnapshot {
    /// The current version of each model, by name.
    pub fn models(&self) -> impl Iterator<Item = &Arc<ModelVersion>> {
        self.models.values()
    }

    /// The current version of the model `name` (folded).
    pub fn get(&self, name: &str) -> Option<&Arc<ModelVersion>> {
        self.models.get(name)
    }

    /// The version that `reference` (`churn`, `churn/3`, `churn@champion`) stands for.
    ///
    /// # Errors
    /// No such name (with the nearest there is), version or alias.
    pub fn lookup(&self, reference: &str) -> Result<&Arc<ModelVersion>> {
        let ModelReference { name, version } = reference.parse()?;
        let Some(found) = self.models.get(&name) else {
            return Err(self.unknown(&name));
        };
        match version {
            VersionReference::Current => Ok(found),
            VersionReference::Number(number) if number == found.version => Ok(found),
            VersionReference::Number(number) => {
                bail!(UnknownModel, "model '{name}' has no version {number} here: there is {}", found.version)
            }
            VersionReference::Alias(alias) => {
                bail!(UnknownModel, "model '{name}' has no alias '{alias}': there is version {}", found.version)
            }
        }
    }

    /// The error for a name that is not here.
    pub(crate) fn unknown(&self, name: &str) -> crate::Error {
        let near = datafusion_predict_udfs::nearest(name, self.models.keys().map(String::as_str));
        let hint = match near {
            Some(near) => format!("; did you mean '{near}'?"),
            None if self.models.is_empty() => "; there are no models: make one with CREATE MODEL".to_owned(),
            None => String::new(),
        };
        crate::error::error!(UnknownModel, "unknown model '{name}'{hint}")
    }

    fn with(&self, version: Arc<ModelVersion>) -> Self {
        let mut models = self.models.clone();
        models.insert(version.name.clone(), version);
        Self { models }
    }

    fn without(&self, name: &str) -> Self {
        let mut models = self.models.clone();
        models.remove(name);
        Self { models }
    }
}
