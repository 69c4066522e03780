//! The rules that know models, in their order.

mod bind;
mod calls;
mod expand_wildcards;
mod extract;
mod filter_pushdown;
mod guard;
mod joins;
mod leaf_projections;
mod map_keys;
mod names;
mod outcomes;
mod place;
mod projection_pushdown;
mod provenance;
mod sort_wildcards;
mod tokenizers;
mod without_calls;

use std::sync::Arc;

use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::{Analyzer, Optimizer, OptimizerRule};
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;

pub(crate) use bind::BindPredict;
pub(crate) use expand_wildcards::ExpandWildcards;
pub(crate) use extract::ExtractPredict;

use crate::files::PlanReadBlob;
use crate::plan::LoadModels;
use filter_pushdown::UnambiguousFilterPushdown;
use guard::GuardCalls;
use leaf_projections::LeafProjections;
use map_keys::ReadMapKeys;
use place::PlacePredict;
use projection_pushdown::ProjectionPushdown;
use without_calls::WithoutCalls;

/// Adds our analyzer rule.
pub(crate) fn add_analyzer_rules(analyzer: &mut Analyzer) {
    // First: the types that DataFusion's own rules check are those of the bound model.
    if !analyzer.rules.iter().any(|rule| rule.name() == BindPredict::NAME) {
        analyzer.rules.insert(0, Arc::new(BindPredict));
        analyzer.rules.insert(1, Arc::new(ReadMapKeys)); // before fields of fields are read in one step
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
    let ours: [Arc<dyn OptimizerRule + Send + Sync>; 3] = [
        Arc::new(OptimizeProjections::new()), // first, what no one reads: a prediction that is not read is not made
        Arc::new(GuardCalls),                 // before filters are split, and before calls become nodes
        Arc::new(ExtractPredict),
    ];
    rules.splice(place..place, ours);
    for rule in rules.iter_mut() {
        if LeafProjections::fences(rule.name()) {
            *rule = Arc::new(LeafProjections::new(rule.clone()));
        }
        *rule = Arc::new(WithoutCalls::new(rule.clone()));
    }
}

/// Adds our rules for physical plans.
pub(crate) fn add_physical_optimizer_rules(optimizer: &mut PhysicalOptimizer) {
    let rules = &mut optimizer.rules;
    if rules.iter().any(|rule| rule.name() == PlacePredict::NAME) {
        return;
    }
    // Before the side of a join is chosen that its hash table is built from: by then a filter should be in its place. No
    // join has a projection or a dynamic filter yet.
    let place = rules.iter().position(|rule| rule.name() == "join_selection").unwrap_or(rules.len());
    rules.insert(place, Arc::new(PlacePredict));
    for rule in rules.iter_mut() {
        if UnambiguousFilterPushdown::fences(rule.name()) {
            *rule = Arc::new(UnambiguousFilterPushdown::new(rule.clone()));
        } else if ProjectionPushdown::fences(rule.name()) {
            *rule = Arc::new(ProjectionPushdown::new(rule.clone()));
        }
    }
    // First: rules ask of a node what it keeps of its input, which DataFusion's own does not say.
    rules.insert(0, Arc::new(PlanReadBlob));
    // Last: what is an expression by then, stays one.
    rules.push(Arc::new(LoadModels));
}
