//! The catalog as the SQL functions see it.

use std::sync::Arc;

use datafusion::common::Result as DFResult;
use datafusion_predict_udfs::{ModelResolver, Resolved, ScoringModel};

use crate::catalog::{CatalogSnapshot, ModelReference};
use crate::engine;
use crate::registry::RegisteredModel;
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

    /// A resolver for the models of `snapshot`.
    pub(crate) fn pinned(runtime: Arc<PredictRuntime>, snapshot: Arc<CatalogSnapshot>) -> Self {
        Self { runtime, pinned: Some(snapshot) }
    }
}

impl ModelResolver for CatalogResolver {
    fn resolve(&self, name: &str) -> DFResult<Resolved> {
        let snapshot = self.pinned.clone().unwrap_or_else(|| self.runtime.catalog().snapshot());
        let registry = self.runtime.registry();
        let model = |version| -> DFResult<Arc<dyn ScoringModel>> {
            let handle = registry.handle(version, engine::AUTO)?;
            Ok(Arc::new(RegisteredModel::new(handle, registry.clone())))
        };
        let called = snapshot.called(name)?;
        if let [(only, _)] = called.as_slice() {
            return model(only).map(Resolved::Model);
        }
        let entry = snapshot.model(&name.parse::<ModelReference>()?.name)?;
        Ok(Resolved::Split {
            name: entry.name.clone(),
            by: entry.traffic.as_ref().and_then(|traffic| traffic.by.clone()),
            shares: called.into_iter().map(|(version, share)| Ok((model(version)?, share))).collect::<DFResult<_>>()?,
        })
    }

    fn pin(&self) -> Arc<dyn ModelResolver> {
        let pinned = self.pinned.clone().unwrap_or_else(|| self.runtime.catalog().snapshot());
        Arc::new(Self { runtime: self.runtime.clone(), pinned: Some(pinned) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Change;
    use crate::runtime::CreateModel;

    #[tokio::test]
    async fn what_is_pinned_does_not_move() {
        let runtime = Arc::new(PredictRuntime::default());
        for _ in 0..2 {
            let create = CreateModel::new("m", "tests/models/types/scalar_double.onnx").expect("a name");
            runtime.create(&CreateModel { or_replace: true, ..create }, "auto").await.expect("a version");
        }
        let resolver = CatalogResolver::new(runtime.clone());
        let pinned = resolver.pin();
        let back = Change::Rollback { model: "m".into(), to: None };
        runtime.catalog().commit(back).await.expect("rolled back");
        let label =
            |resolved: DFResult<Resolved>| resolved.and_then(|it| it.first().map(|model| model.label().to_owned()));
        assert_eq!(label(pinned.resolve("m")).expect("a version"), "m/2");
        assert_eq!(label(resolver.resolve("m")).expect("a version"), "m/1");
        assert_eq!(label(pinned.pin().resolve("m")).expect("a version"), "m/2");
    }
}
