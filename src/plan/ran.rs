//! What ran the model of a node, for EXPLAIN ANALYZE.

use std::sync::{Arc, OnceLock};

use crate::catalog::Readiness;
use crate::scoring::Predictor;

/// What ran the model, once it was loaded: a note, which does not keep the model in memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Ran(Arc<OnceLock<Readiness>>);

impl Ran {
    pub(super) fn note(&self, predictor: &Predictor) {
        self.0.get_or_init(|| predictor.readiness());
    }

    pub(super) fn get(&self) -> Option<&Readiness> {
        self.0.get()
    }
}
