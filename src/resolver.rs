//! The catalog as the SQL functions see it.

use std::sync::Arc;

use datafusion::common::Result as DFResult;
use datafusion_predict_udfs::{ModelResolver, Resolved, ScoringModel};

use crate::catalog::{CatalogSnapshot, ModelReference, VersionReference};
use crate::runtime::PredictRuntime;

/// Resolves names from the catalog's last snapshot, or from the one that a query is pinned to.
#[derive(Debug)]
pub(crate) struct CatalogResolver {
    runtime: Arc<PredictRuntime>,
    pinned: Option<Arc<CatalogSnapshot>>,
}

impl CatalogResolver {
    /// A resolver for the catalog of `runtime`.
    pub(crate) fn new(runtime: Arc<PredictRuntime>) -> Self {
        Self { runtime, pinned: None }
    }
}

impl ModelResolver for CatalogResolver {
    fn resolve(&self, name: &str) -> DFResult<Resolved> {
        let snapshot = self.pinned.clone().unwrap_or_else(|| self.runtime.catalog().snapshot());
        let reference: ModelReference = name.parse()?;
        let model = snapshot.model(&reference.name)?;
        let load = |version| -> DFResult<Arc<dyn ScoringModel>> { Ok(self.runtime.loader().load_blocking(version)?) };
        if let (VersionReference::Current, Some(traffic)) = (&reference.version, &model.traffic) {
            let shares = traffic.shares.iter().filter(|(_, share)| *share > 0).map(|(number, share)| {
                let version = snapshot.version(&reference.name, &VersionReference::Number(*number))?;
                Ok((load(version)?, *share))
            });
            return Ok(Resolved::Split {
                name: model.name.clone(),
                shares: shares.collect::<DFResult<_>>()?,
                by: traffic.by.clone(),
            });
        }
        load(snapshot.version(&reference.name, &reference.version)?).map(Resolved::Model)
    }

    fn pin(&self) -> Arc<dyn ModelResolver> {
        let pinned = Some(self.runtime.catalog().snapshot());
        Arc::new(Self { runtime: self.runtime.clone(), pinned })
    }
}
