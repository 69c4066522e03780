//! Whether a model still runs: what tells an engine that fails from a row that does.

use std::sync::{Arc, OnceLock};

use datafusion_predict_native::Tensor;

use super::Predictor;
use super::observe::made_up;
use super::run::run_limited;
use crate::engine::RunContext;

/// Inputs on which a model is known to have run.
#[derive(Debug, Clone)]
pub(super) struct Health {
    /// Whether it ran on made-up rows when it was prepared.
    probed: bool,
    /// If it did not: the inputs of the first run that succeeded.
    known_good: Arc<OnceLock<Vec<Tensor>>>,
}

impl Health {
    /// Of a model that ran on made-up rows, or not, when it was prepared.
    pub(super) fn new(probed: bool) -> Self {
        Self { probed, known_good: Arc::default() }
    }

    /// Remembers `inputs`, on which a run has succeeded, if nothing better is known. Of them `rows` rows are kept.
    pub(super) fn note(&self, inputs: Vec<Tensor>, rows: usize) {
        if !self.probed {
            // They outlive the query, whose columns should not.
            self.known_good.get_or_init(|| inputs.into_iter().map(|input| input.truncated(rows).detached()).collect());
        }
    }
}

impl Predictor {
    /// Whether the model still runs on inputs on which it ran before: the made-up ones, or else the first that it was
    /// given. Before any run has succeeded, nothing speaks against the engine.
    pub(super) fn is_healthy(&self, context: &RunContext) -> bool {
        let run = |inputs: &[Tensor]| {
            run_limited(self, context, |context| self.runner.executable.run(inputs, context)).is_ok()
        };
        let rows = self.fixed_batch.unwrap_or(2);
        let made_up = |dynamic| made_up(&self.signature.inputs, rows, dynamic).is_ok_and(|inputs| run(&inputs));
        match (self.health.probed, self.health.known_good.get()) {
            (true, _) => made_up(5) || made_up(1),
            (false, Some(inputs)) => run(inputs),
            (false, None) => true,
        }
    }
}
