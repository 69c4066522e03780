//! Binds a call by name to a version of the model and to its features.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result, TableReference, plan_err};
use datafusion::functions::core::{get_field, named_struct};
use datafusion::functions_nested::expr_fn::array_element;
use datafusion::logical_expr::expr::{ScalarFunction, WildcardOptions};
use datafusion::logical_expr::utils::{expand_qualified_wildcard, expand_wildcard};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, ScalarUDF, ScalarUDFImpl, lit, when};

use crate::model::{ModelResolver, OUTCOME, OnFailure, Resolved, ScoringModel};
use crate::model_function::ModelFunction;
use crate::predict::PredictFunction;
use crate::suggest::nearest;
use crate::traffic::TrafficFunction;

/// Binds `predict('name', …)`, `function` with `arguments`, as it stands over `input`, whose columns `schema` holds.
///
/// The result is a call of a [`ModelFunction`] whose arguments are the model's features in the model's order,
/// whichever form the call had: by position, by name in a struct, a wildcard, or one list column. `resolver` says what the
/// name stands for; `choose` may put another form of the model in its place, with the same features. Where rows are split
/// between versions, the result is a CASE over the [`TrafficFunction`], with a call of each version.
///
/// # Errors
/// A model that is not known, a wildcard on a model without feature names, features that are missing or ambiguous,
/// and a wrong number or type of arguments.
pub fn bind_call(
    function: &PredictFunction,
    resolver: &dyn ModelResolver,
    mut arguments: Vec<Expr>,
    input: Option<&LogicalPlan>,
    schema: &DFSchema,
    choose: &dyn Fn(Arc<dyn ScoringModel>) -> Arc<dyn ScoringModel>,
) -> Result<Expr> {
    if arguments.len() < 2 {
        return function.too_few_arguments();
    }
    let name = arguments.remove(0);
    let literal = match &name {
        Expr::Literal(value, _) => Some(value),
        _ => None,
    };
    let bind = |model| -> Result<BoundCall> {
        let model = choose(model);
        function.purpose().check(model.as_ref())?;
        let features = features(model.as_ref(), arguments.clone(), input, schema)?;
        let types = features.iter().map(|feature| feature.get_type(schema)).collect::<Result<Vec<_>>>()?;
        model.check_arguments(&types)?;
        Ok(BoundCall { model, features })
    };
    match function.resolve_by(resolver, literal)? {
        Resolved::Model(model) => Ok(bind(model)?.into_expr(function)),
        Resolved::Split { name, shares, by } => {
            let shares = shares.into_iter().map(|(model, share)| Ok((bind(model)?, share)));
            split(function, &name, shares.collect::<Result<_>>()?, by.as_deref())
        }
    }
}

/// A version with its features, in order.
struct BoundCall {
    model: Arc<dyn ScoringModel>,
    features: Vec<Expr>,
}

impl BoundCall {
    fn into_expr(self, function: &PredictFunction) -> Expr {
        let Self { model, features } = self;
        let mut bound = vec![lit(model.label())];
        bound.extend(features);
        let reason = function.on_failure() == OnFailure::Reason;
        let name = if reason { ModelFunction::OUTCOME } else { function.name() };
        let udf = ScalarUDF::new_from_impl(ModelFunction::bound(name, model, function.on_failure()));
        let call = Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(udf), bound));
        if reason { get_field().call(vec![call, lit(OUTCOME[1])]) } else { call }
    }
}

/// `CASE WHEN traffic(…) = 0 THEN predict('m/3', …) … ELSE predict('m/4', …) END`
fn split(function: &PredictFunction, name: &str, shares: Vec<(BoundCall, u32)>, by: Option<&str>) -> Result<Expr> {
    let Some((first, _)) = shares.first() else {
        return plan_err!("model '{name}': its traffic is split between no versions");
    };
    if let Some((other, _)) = shares.iter().find(|(call, _)| call.model.return_type() != first.model.return_type()) {
        return plan_err!(
            "model '{name}': its traffic can't be split: '{}' gives {}, '{}' {}",
            first.model.label(),
            first.model.return_type(),
            other.model.label(),
            other.model.return_type()
        );
    }
    let keys = match by {
        None => first.features.clone(),
        Some(by) => {
            let place = first.model.feature_names().and_then(|names| names.iter().position(|name| name == by));
            let width = first.model.feature_names().map_or(0, <[String]>::len);
            match place {
                // One list holds all features.
                Some(place) if first.features.len() == 1 && width > 1 => {
                    vec![array_element(first.features[0].clone(), lit(place as i64 + 1))]
                }
                Some(place) if place < first.features.len() => vec![first.features[place].clone()],
                _ => {
                    return plan_err!(
                        "model '{name}': its traffic is split by '{by}', which is no feature of '{}'",
                        first.model.label()
                    );
                }
            }
        }
    };
    let traffic = TrafficFunction::new(name, shares.iter().map(|(_, share)| *share));
    let chosen = Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::new_from_impl(traffic)), keys));
    let mut calls: Vec<_> = shares.into_iter().map(|(call, _)| call.into_expr(function)).collect();
    let Some(last) = calls.pop() else {
        return plan_err!("model '{name}': its traffic is split between no versions");
    };
    let mut calls = calls.into_iter().enumerate().map(|(i, call)| (chosen.clone().eq(lit(i as i32)), call));
    let Some((condition, call)) = calls.next() else { return Ok(last) };
    let mut case = when(condition, call);
    for (condition, call) in calls {
        case = case.when(condition, call);
    }
    case.otherwise(last)
}

/// The model's features in the model's order.
fn features(
    model: &dyn ScoringModel,
    arguments: Vec<Expr>,
    input: Option<&LogicalPlan>,
    schema: &DFSchema,
) -> Result<Vec<Expr>> {
    if arguments.iter().any(is_wildcard) {
        return by_name(model, wildcard_columns(model.label(), &arguments, input, schema)?);
    }
    if let [Expr::ScalarFunction(call)] = arguments.as_slice()
        && call.func == named_struct()
    {
        let fields = call.args.chunks(2).map(|pair| match pair {
            [Expr::Literal(key, _), value] => match key.try_as_str() {
                Some(Some(key)) => Ok((key.to_owned(), value.clone())),
                _ => plan_err!("model '{}': a feature's name must be a string", model.label()),
            },
            _ => plan_err!("model '{}': a struct of features needs pairs of name and value", model.label()),
        });
        return by_name(model, fields.collect::<Result<Vec<_>>>()?);
    }
    if let [argument] = arguments.as_slice()
        && let DataType::Struct(fields) = argument.get_type(schema)?
    {
        let fields = fields.iter().map(|field| {
            let value = get_field().call(vec![argument.clone(), lit(field.name().as_str())]);
            (field.name().clone(), value)
        });
        return by_name(model, fields.collect());
    }
    Ok(arguments)
}

/// Whether `expr` is `*` or `t.*`.
#[expect(deprecated, reason = "a wildcard in a function's arguments is still this expression")]
pub fn is_wildcard(expr: &Expr) -> bool {
    matches!(expr, Expr::Wildcard { .. })
}

/// The columns that the wildcards `*` and `t.*` in `arguments` stand for, with their unqualified names; `model` is for
/// errors.
///
/// # Errors
/// An argument that is no wildcard, and a wildcard with more than EXCLUDE and EXCEPT.
#[expect(deprecated, reason = "a wildcard in a function's arguments is still this expression")]
pub fn wildcard_columns(
    model: &str,
    arguments: &[Expr],
    input: Option<&LogicalPlan>,
    schema: &DFSchema,
) -> Result<Vec<(String, Expr)>> {
    let mut columns = vec![];
    for argument in arguments {
        let Expr::Wildcard { qualifier, options } = argument else {
            return plan_err!(
                "model '{model}': next to a wildcard, `{argument}` has no place: name the features in a struct, {{age: …}}, or give all by position"
            );
        };
        let WildcardOptions { ilike: None, replace: None, rename: None, .. } = options.as_ref() else {
            return plan_err!("model '{model}': a wildcard of features takes EXCLUDE and EXCEPT only");
        };
        columns.extend(match (qualifier, input) {
            (Some(qualifier), _) => {
                let qualifier = full_qualifier(qualifier, schema).unwrap_or_else(|| qualifier.clone());
                expand_qualified_wildcard(&qualifier, schema, Some(options))?
            }
            (None, Some(input)) => expand_wildcard(schema, input, Some(options))?,
            (None, None) => schema.columns().into_iter().map(Expr::Column).collect(),
        });
    }
    Ok(columns.into_iter().map(|column| (column.qualified_name().1, column)).collect())
}

/// The one table of `schema` that `t` in `t.*` can mean: after FROM public.t, too.
fn full_qualifier(qualifier: &TableReference, schema: &DFSchema) -> Option<TableReference> {
    let means = |known: &TableReference| {
        known.table() == qualifier.table()
            && qualifier.schema().is_none_or(|name| known.schema() == Some(name))
            && qualifier.catalog().is_none_or(|name| known.catalog() == Some(name))
    };
    let mut found: Vec<_> = schema.iter().filter_map(|(known, _)| known).filter(|known| means(known)).collect();
    found.dedup();
    match found.as_slice() {
        [only] => Some((*only).clone()),
        several => several.iter().find(|known| *known == &qualifier).map(|known| (*known).clone()),
    }
}

/// Features that an error names, at most.
const MOST_NAMED: usize = 10;

/// `name` as converters write names that ONNX tools would not take: `Sepal Length (cm)` is `sepal_length__cm_`.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect()
}

/// The positions of the values that are called `name`: exactly, else without case, else in the spelling of converters.
fn positions(name: &str, names: &[String], values: &[(String, Expr)]) -> Vec<usize> {
    let of = |is: &dyn Fn(&str) -> bool| (0..values.len()).filter(|&i| is(&values[i].0)).collect::<Vec<_>>();
    // A column that is another feature's by name is not this one's by spelling.
    let is_others = |column: &str| names.iter().any(|other| other.to_lowercase() == column.to_lowercase());
    let ways: [&dyn Fn(&str) -> bool; 3] =
        [&|column| column == name, &|column| column.to_lowercase() == name.to_lowercase(), &|column| {
            plain(column) == plain(name) && !is_others(column)
        }];
    ways.into_iter().map(of).find(|found| !found.is_empty()).unwrap_or_default()
}

/// Picks each feature of the model by its name, or the one list column of all. Other values are ignored.
fn by_name(model: &dyn ScoringModel, values: Vec<(String, Expr)>) -> Result<Vec<Expr>> {
    let label = model.label();
    let Some(names) = model.feature_names() else {
        let input = model.input_name();
        if let Some([only]) = input.map(|input| positions(input, &[], &values)).as_deref() {
            return Ok(vec![values[*only].1.clone()]);
        }
        let list = input.map(|input| format!(", or give them as a list column '{input}'")).unwrap_or_default();
        return plan_err!(
            "model '{label}' has no feature names (its input is a matrix): name them in CREATE MODEL … FEATURES (…){list}, or give its features by position"
        );
    };
    let mut picked: Vec<usize> = Vec::with_capacity(names.len());
    for name in names {
        let found = positions(name, names, &values);
        match found.as_slice() {
            [one] => picked.push(*one),
            [] => {
                // What another feature takes is not meant.
                let taken = |column: &String| names.iter().any(|name| plain(name) == plain(column));
                let free = values.iter().map(|(column, _)| column).filter(|column| !taken(column));
                let near = nearest(name, free.map(String::as_str));
                let near = near.map(|near| format!("; there is '{near}'")).unwrap_or_default();
                let has = |name: &String| !positions(name, names, &values).is_empty();
                let missing: Vec<_> = names.iter().filter(|name| !has(name)).map(|name| format!("'{name}'")).collect();
                return match missing.as_slice() {
                    [_, _, ..] if missing.len() <= MOST_NAMED => {
                        plan_err!("model '{label}': features {} are missing{near}", missing.join(", "))
                    }
                    [_, _, ..] => plan_err!(
                        "model '{label}': feature '{name}' is missing, as are {} more of {}{near}",
                        missing.len() - 1,
                        names.len()
                    ),
                    _ => plan_err!("model '{label}': feature '{name}' is missing{near}"),
                };
            }
            several => {
                let all: Vec<_> = several.iter().map(|&i| format!("{}", values[i].1)).collect();
                return plan_err!("model '{label}': feature '{name}' is ambiguous: {}", all.join(", "));
            }
        }
    }
    Ok(picked.into_iter().map(|i| values[i].1.clone()).collect())
}
