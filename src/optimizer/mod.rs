//! The rules that know models, in their order.

mod bind;
mod expand_wildcards;
mod extract;

use std::sync::Arc;

use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::{Analyzer, Optimizer, OptimizerRule};

pub(crate) use bind::BindPredict;
pub(crate) use expand_wildcards::ExpandWildcards;
pub(crate) use extract::ExtractPredict;

/// Adds our analyzer rule.
pub(crate) fn add_analyzer_rules(analyzer: &mut Analyzer) {
    // First: the types that DataFusion's own rules check are those of the bound model.
    if !analyzer.rules.iter().any(|rule| rule.name() == BindPredict::NAME) {
        analyzer.rules.insert(0, Arc::new(BindPredict));
    }
}

/// Adds our optimizer rules.
pub(crate) fn add_optimizer_rules(optimizer: &mut Optimizer) {
    let rules = &mut optimizer.rules;
    if rules.iter().any(|rule| rule.name() == ExtractPredict::NAME) {
        return;
    }
    // Before anything prunes columns: PREPARE optimizes calls whose wildcards nothing has bound.
    rules.insert(0, Arc::new(ExpandWildcards));
    // After simplification and decorrelation, which see through calls but not through nodes; before limits and filters
    // are pushed, which would copy a projected call into a filter, and can pass a node.
    let before = ["push_down_limit", "push_down_filter"];
    let place = rules.iter().position(|rule| before.contains(&rule.name())).unwrap_or(rules.len());
    let ours: [Arc<dyn OptimizerRule + Send + Sync>; 2] = [
        Arc::new(OptimizeProjections::new()), // first, what no one reads: a prediction that is not read is not made
        Arc::new(ExtractPredict),
    ];
    rules.splice(place..place, ours);
}
