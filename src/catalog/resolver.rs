//! The catalog as the SQL functions see it.

use std::sync::Arc;

use datafusion::common::Result as DFResult;
use datafusion_predict_udfs::{ModelResolver, ScoringModel};

use super::ModelCatalog;

/// Resolves names from the catalog's last snapshot.
#[derive(Debug)]
pub(crate) struct CatalogResolver {
    catalog: Arc<dyn ModelCatalog>,
}

impl CatalogResolver {
    /// A resolver for `catalog`.
    pub(crate) fn new(catalog: Arc<dyn ModelCatalog>) -> Self {
        Self { catalog }
    }
}

impl ModelResolver for CatalogResolver {
    fn resolve(&self, name: &str) -> DFResult<Arc<dyn ScoringModel>> {
        Ok(self.catalog.snapshot().lookup(name)?.predictor.clone())
    }
}
