//! A catalog that lasts as long as the process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{CatalogSnapshot, ModelCatalog, ModelVersion};
use crate::error::{Result, bail};
use crate::predictor::Predictor;

/// Models in memory: the current version of each name.
#[derive(Debug, Default)]
pub struct MemoryCatalog {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    snapshot: Arc<CatalogSnapshot>,
    /// The last number that each name has had, dropped names too: numbers are never used again.
    numbers: HashMap<String, u64>,
}

impl MemoryCatalog {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ModelCatalog for MemoryCatalog {
    fn snapshot(&self) -> Arc<CatalogSnapshot> {
        self.state().snapshot.clone()
    }

    async fn refresh(&self) -> Result<()> {
        Ok(()) // nobody else writes here
    }

    async fn create(&self, name: &str, predictor: Arc<Predictor>, replace: bool) -> Result<Arc<ModelVersion>> {
        let mut state = self.state();
        if state.snapshot.get(name).is_some() && !replace {
            bail!(ModelExists, "model '{name}' exists already: CREATE OR REPLACE MODEL makes a new version");
        }
        let number = state.numbers.entry(name.to_owned()).or_default();
        *number += 1;
        let version = *number;
        let predictor = Arc::new(predictor.labelled(format!("{name}/{version}")));
        let version = Arc::new(ModelVersion { name: name.to_owned(), version, predictor });
        state.snapshot = Arc::new(state.snapshot.with(version.clone()));
        Ok(version)
    }

    async fn remove(&self, name: &str) -> Result<bool> {
        let mut state = self.state();
        if state.snapshot.get(name).is_none() {
            return Ok(false);
        }
        state.snapshot = Arc::new(state.snapshot.without(name));
        Ok(true)
    }
}
