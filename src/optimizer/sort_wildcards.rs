//! Gives wildcards in ORDER BY the columns of FROM, as those in SELECT have.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result};
use datafusion::functions::core::named_struct;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, Sort, lit};
use datafusion_predict_udfs::{is_wildcard, wildcard_columns};

use super::bind::unbound;
use super::calls::has_expr;

/// A sort by calls with wildcards, with the columns of FROM by their names in place of each wildcard.
///
/// ```text
/// Sort: predict('m', t.*)          Projection: id
///   Projection: id                   Sort: predict('m', {id: id, a: a, b: b})
///     TableScan: t                     Projection: id, a, b
///                                        TableScan: t
/// ```
///
/// A sort is planned on top of the SELECT list, which may lack the model's features. A column of the list whose name FROM
/// does not have, such as that of an aggregate, can be a feature, too. On top of SELECT DISTINCT nothing can be added:
/// there, a wildcard stands for the list alone.
pub(super) fn with_columns_of_from(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let has_wildcard = |expr: &Expr| unbound(expr).is_some_and(|(_, call)| call.args.iter().any(is_wildcard));
    if !matches!(plan, LogicalPlan::Sort(_)) || !has_expr(&plan, has_wildcard)? {
        return Ok(Transformed::no(plan));
    }
    let LogicalPlan::Sort(sort) = &plan else { return Ok(Transformed::no(plan)) };
    let LogicalPlan::Projection(projection) = sort.input.as_ref() else { return Ok(Transformed::no(plan)) };
    let list = projection.schema.columns();
    let mut refused = false;
    let mut columns = Columns { exprs: projection.expr.clone(), list: &list };
    let sorted = sort.expr.iter().map(|sort| {
        let expanded = sort.expr.clone().transform_up(|expr| {
            let Expr::ScalarFunction(mut call) = expr else { return Ok(Transformed::no(expr)) };
            if !has_wildcard(&Expr::ScalarFunction(call.clone())) {
                return Ok(Transformed::no(Expr::ScalarFunction(call)));
            }
            let from = &projection.input;
            let Ok(found) = wildcard_columns("", &call.args[1..], Some(from), from.schema()) else {
                refused = true;
                return Ok(Transformed::no(Expr::ScalarFunction(call)));
            };
            let names: HashSet<_> = found.iter().map(|(name, _)| name.clone()).collect();
            let of_list = list.iter().filter(|column| !names.contains(&column.name));
            let of_list = of_list.map(|column| (column.name.clone(), Expr::Column(column.clone())));
            let found = found.into_iter().map(|(name, column)| (name, columns.carried(column)));
            let fields = found.chain(of_list).flat_map(|(name, column)| [lit(name), column]).collect();
            call.args.truncate(1);
            call.args.push(named_struct().call(fields));
            Ok(Transformed::yes(Expr::ScalarFunction(call)))
        })?;
        Ok(sort.with_expr(expanded.data))
    });
    let sorted = sorted.collect::<Result<Vec<_>>>()?;
    if refused {
        return Ok(Transformed::no(plan)); // binding the call says why
    }
    let Columns { exprs, .. } = columns;
    let wide = LogicalPlan::Projection(Projection::try_new(exprs, projection.input.clone())?);
    let sort = LogicalPlan::Sort(Sort { expr: sorted, input: Arc::new(wide), fetch: sort.fetch });
    let list = list.into_iter().map(Expr::Column).collect();
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(list, Arc::new(sort))?)))
}

/// The SELECT list, and the columns behind it that are carried to the sort.
struct Columns<'a> {
    exprs: Vec<Expr>,
    list: &'a [Column],
}

impl Columns<'_> {
    /// The column of the projection that holds `column` of its input.
    fn carried(&mut self, column: Expr) -> Expr {
        if let Some(place) = self.exprs.iter().position(|expr| expr.clone().unalias() == column) {
            let (qualifier, name) = self.exprs[place].qualified_name();
            return Expr::Column(Column::new(qualifier, name));
        }
        // A name of its own, since the list may have the same name for something else.
        let mut name = column.to_string();
        while self.list.iter().any(|known| known.name == name) {
            name.push('_');
        }
        self.exprs.push(column.alias(&name));
        Expr::Column(Column::new_unqualified(name))
    }
}
