//! Names of expressions that are rewritten.

use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, GroupingSet};

/// `rewritten` under the name that `original` had; in grouping sets, each of their expressions.
pub(super) fn keep_name(original: &Expr, rewritten: Expr, names: &NamePreserver) -> Expr {
    let keep_all = |originals: &[Expr], rewritten: Vec<Expr>| -> Vec<Expr> {
        originals.iter().zip(rewritten).map(|(original, rewritten)| keep_name(original, rewritten, names)).collect()
    };
    match (original, rewritten) {
        (Expr::GroupingSet(GroupingSet::Rollup(from)), Expr::GroupingSet(GroupingSet::Rollup(to))) => {
            Expr::GroupingSet(GroupingSet::Rollup(keep_all(from, to)))
        }
        (Expr::GroupingSet(GroupingSet::Cube(from)), Expr::GroupingSet(GroupingSet::Cube(to))) => {
            Expr::GroupingSet(GroupingSet::Cube(keep_all(from, to)))
        }
        (Expr::GroupingSet(GroupingSet::GroupingSets(from)), Expr::GroupingSet(GroupingSet::GroupingSets(to))) => {
            let sets = from.iter().zip(to).map(|(from, to)| keep_all(from, to)).collect();
            Expr::GroupingSet(GroupingSet::GroupingSets(sets))
        }
        (original, rewritten) => names.save(original).restore(rewritten),
    }
}
