//! Takes off what the field of a column says of a model, where that would be wrong or in the way.

use std::sync::Arc;

use datafusion::arrow::datatypes::Field;
use datafusion::common::{Column, DFSchema, DFSchemaRef, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, RecursiveQuery, ScalarUDF, Union};
use datafusion_predict_udfs::{PlainFunction, is_provenance};

/// `plan`, if it is a union or a recursive query in which inputs say different things of the models that a column is of, with
/// columns that say nothing of models; `None` if nothing is to be done.
///
/// DataFusion would merge what the inputs of a union say, and name one model for the rows of several; and it plans the two
/// terms of a recursive query only if their fields say the same. Other metadata stays as it is.
pub(super) fn without_conflicts(plan: &LogicalPlan) -> Result<Option<LogicalPlan>> {
    match plan {
        LogicalPlan::Union(union) => without_conflicts_in_union(union),
        LogicalPlan::RecursiveQuery(query) => without_conflicts_in_terms(query),
        _ => Ok(None),
    }
}

/// Whether a field of one says something else of models than the field at its place in the other.
pub(super) fn differs(before: &DFSchema, now: &DFSchema) -> bool {
    before.fields().iter().zip(now.fields()).any(|(before, now)| !says_the_same(before, now))
}

fn says_the_same(one: &Field, other: &Field) -> bool {
    let said = |field: &Field, by: &Field| {
        let mut said = field.metadata().iter().filter(|(key, _)| is_provenance(key));
        said.all(|(key, value)| by.metadata().get(key) == Some(value))
    };
    said(one, other) && said(other, one)
}

fn says_something(field: &Field) -> bool {
    field.metadata().keys().any(|key| is_provenance(key))
}

fn without_conflicts_in_union(union: &Union) -> Result<Option<LogicalPlan>> {
    let in_conflict = |place: usize| {
        let mut fields = union.inputs.iter().filter_map(|input| input.schema().fields().get(place));
        fields.next().is_some_and(|first| fields.any(|other| !says_the_same(first, other)))
    };
    let in_conflict: Vec<_> = (0..union.schema.fields().len()).map(in_conflict).collect();
    if !in_conflict.contains(&true) {
        return Ok(None);
    }
    let is_plain = |place: usize| in_conflict.get(place).copied().unwrap_or(false);
    let inputs = union.inputs.iter().map(|input| plain_columns(input, is_plain)).collect::<Result<Vec<_>>>()?;
    // Types that are still to be coerced stay as they are.
    let schema = plain_schema(&union.schema, is_plain)?;
    Ok(Some(LogicalPlan::Union(Union { inputs, schema })))
}

fn without_conflicts_in_terms(query: &RecursiveQuery) -> Result<Option<LogicalPlan>> {
    let says = |plan: &LogicalPlan| plan.schema().fields().iter().any(|field| says_something(field));
    if !says(&query.static_term) && !says(&query.recursive_term) {
        return Ok(None);
    }
    Ok(Some(LogicalPlan::RecursiveQuery(RecursiveQuery {
        static_term: plain_columns(&query.static_term, |_| true)?,
        recursive_term: plain_columns(&query.recursive_term, |_| true)?,
        schema: plain_schema(&query.schema, |_| true)?,
        ..query.clone()
    })))
}

/// The columns of `plan`; those for whose places `is_plain` holds say nothing of models.
fn plain_columns(plan: &Arc<LogicalPlan>, is_plain: impl Fn(usize) -> bool) -> Result<Arc<LogicalPlan>> {
    let function = Arc::new(ScalarUDF::new_from_impl(PlainFunction::default()));
    let columns = plan.schema().iter().enumerate().map(|(place, (qualifier, field))| {
        let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
        if !is_plain(place) || !says_something(field) {
            return column;
        }
        let plain = Expr::ScalarFunction(ScalarFunction::new_udf(function.clone(), vec![column]));
        plain.alias_qualified(qualifier.cloned(), field.name())
    });
    Ok(Arc::new(LogicalPlan::Projection(Projection::try_new(columns.collect(), plan.clone())?)))
}

/// `schema`, in which the fields at the places for which `is_plain` holds say nothing of models.
fn plain_schema(schema: &DFSchema, is_plain: impl Fn(usize) -> bool) -> Result<DFSchemaRef> {
    let fields = schema.iter().enumerate().map(|(place, (qualifier, field))| {
        let mut metadata = field.metadata().clone();
        metadata.retain(|key, _| !is_plain(place) || !is_provenance(key));
        (qualifier.cloned(), Arc::new(field.as_ref().clone().with_metadata(metadata)))
    });
    Ok(Arc::new(DFSchema::new_with_metadata(fields.collect(), schema.metadata().clone())?))
}
