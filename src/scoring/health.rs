//! Whether a model still runs: what tells an engine that fails from a row that does.

use std::sync::{Arc, OnceLock};

use datafusion_predict_native::Tensor;

use super::Predictor;
use super::made_up::{self, Floats};
use super::run::run_limited;
use crate::engine::RunContext;

/// Inputs on which a model is known to have run.
#[derive(Debug, Clone)]
pub(super) struct Health {
    /// The size of free dimensions in which it ran on zeros when it was prepared, if it did.
    probed: Option<usize>,
    /// If it did not: the inputs of the first run that succeeded.
    known_good: Arc<OnceLock<Vec<Tensor>>>,
}

impl Health {
    /// Of a model that ran on made-up rows of this size, or not at all, when it was prepared.
    pub(super) fn new(probed: Option<usize>) -> Self {
        Self { probed, known_good: Arc::default() }
    }

    /// Remembers `inputs`, on which a run has succeeded, if nothing better is known. Of them `rows` rows are kept.
    pub(super) fn note(&self, inputs: Vec<Tensor>, rows: usize) {
        if self.probed.is_none() {
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
        match (self.health.probed, self.health.known_good.get()) {
            (Some(size), _) => {
                let inputs = &self.signature.inputs;
                let tries = [made_up::zeros(inputs, rows, size), made_up::rows(inputs, rows, size, Floats::Positive)];
                tries.into_iter().flatten().any(|mut inputs| {
                    inputs.iter_mut().for_each(|input| self.make_up.iter().for_each(|make_up| make_up(input)));
                    run(&inputs)
                })
            }
            (None, Some(inputs)) => run(inputs),
            (None, None) => true,
        }
    }
}
