//! A function that calls one version of one model.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, UInt64Array, new_null_array};
use datafusion::arrow::compute::{can_cast_types, cast, filter, prep_null_mask_filter, take};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::model::{OUTCOME, OnFailure, ScoringModel};

/// A call that is bound to one version of a model, or a function made by `CREATE FUNCTION … LANGUAGE onnx`.
///
/// Two are equal when they call the same version in the same way, so equal calls of a query can be merged.
#[derive(Debug, Clone)]
pub struct ModelFunction {
    name: String,
    model: Arc<dyn ScoringModel>,
    on_failure: OnFailure,
    /// The positions of the model's features among the arguments; `None` for all behind the model's name, which is the
    /// first argument of `predict`.
    features: Option<Vec<usize>>,
    /// Whether the last argument is a guard: a boolean, without whose being true a row is not scored, and has NULL.
    guarded: bool,
    signature: Signature,
    return_type: DataType,
}

impl ModelFunction {
    /// A bound `predict('label', feature, …)`: the literal stays in place, so that plans show the version.
    pub fn bound(name: &str, model: Arc<dyn ScoringModel>, on_failure: OnFailure) -> Self {
        let return_type = match on_failure {
            OnFailure::Error | OnFailure::Null => model.return_type().clone(),
            OnFailure::Reason => {
                let [prediction, error] = OUTCOME;
                let prediction = Field::new(prediction, model.return_type().clone(), true);
                let error = Field::new(error, DataType::Utf8, true);
                DataType::Struct(vec![prediction.with_metadata(model.provenance()), error].into())
            }
        };
        let signature = Signature::variadic_any(Volatility::Stable);
        Self { name: name.to_owned(), model, on_failure, features: None, guarded: false, signature, return_type }
    }

    /// A function of its own, with the declared parameters (name and type) and the declared result, to which the
    /// model's output is cast.
    pub fn declared(
        name: &str,
        model: Arc<dyn ScoringModel>,
        parameters: Vec<(String, DataType)>,
        return_type: Option<DataType>,
    ) -> Result<Self> {
        let (names, types): (Vec<String>, Vec<DataType>) = parameters.into_iter().unzip();
        // Parameters that bear the features' names may stand in any order.
        let place = |feature: &String| names.iter().position(|name| name.eq_ignore_ascii_case(feature));
        let by_name = model.feature_names().filter(|features| features.len() == names.len());
        let by_name: Option<Vec<usize>> = by_name.and_then(|features| features.iter().map(place).collect());
        let features = by_name.unwrap_or_else(|| (0..names.len()).collect());
        let ordered: Vec<_> = features.iter().map(|&i| types[i].clone()).collect();
        model.check_arguments(&ordered)?;
        let return_type = return_type.unwrap_or_else(|| model.return_type().clone());
        if !can_cast_types(model.return_type(), &return_type) {
            return plan_err!(
                "function '{name}': RETURNS is {return_type}, but model '{}' gives {}",
                model.label(),
                model.return_type()
            );
        }
        let signature = Signature::exact(types, Volatility::Stable).with_parameter_names(names)?;
        let (name, features) = (name.to_owned(), Some(features));
        Ok(Self { name, model, on_failure: OnFailure::Error, features, guarded: false, signature, return_type })
    }

    /// A function as another process had it: its [name](ScalarUDFImpl::name), [`positions`](Self::positions),
    /// [`is_guarded`](Self::is_guarded) and [`result_type`](Self::result_type).
    pub fn from_parts(
        name: &str,
        model: Arc<dyn ScoringModel>,
        on_failure: OnFailure,
        positions: Option<Vec<usize>>,
        guarded: bool,
        return_type: DataType,
    ) -> Self {
        // Its arguments were checked and coerced where it was planned.
        let signature = Signature::variadic_any(Volatility::Stable);
        Self { name: name.to_owned(), model, on_failure, features: positions, guarded, signature, return_type }
    }

    /// The positions of the model's features among the arguments; `None` for all behind the first.
    pub fn positions(&self) -> Option<&[usize]> {
        self.features.as_deref()
    }

    /// Whether the last argument is a guard.
    pub fn is_guarded(&self) -> bool {
        self.guarded
    }

    /// The version that is called.
    pub fn model(&self) -> &Arc<dyn ScoringModel> {
        &self.model
    }

    /// What becomes of a row that can't be scored.
    pub fn on_failure(&self) -> OnFailure {
        self.on_failure
    }

    /// For a `try_predict`: the function that gives the reasons, too, of which the prediction is one part.
    pub fn with_reason(&self) -> Option<Self> {
        let bound = self.on_failure == OnFailure::Null && !self.guarded;
        bound.then(|| Self::bound(Self::OUTCOME, self.model.clone(), OnFailure::Reason))
    }

    /// For a `predict` that fails at a row that can't be scored: the function that does with such rows what `on_failure`
    /// says. `None` for a function with parameters of its own, and for one that tolerates them already.
    pub fn tolerant(&self, on_failure: OnFailure) -> Option<Self> {
        let bound = self.on_failure == OnFailure::Error && self.features.is_none() && !self.guarded;
        bound.then(|| Self::bound(&self.name, self.model.clone(), on_failure))
    }

    /// The name of a function that gives the reasons, too.
    pub(crate) const OUTCOME: &str = "predict_outcome";

    /// The same function with one more argument behind the others: a guard, which says for which rows the call is made.
    ///
    /// A row whose guard is false or NULL is not given to the model, and its prediction is NULL. That keeps calls lazy
    /// where DataFusion evaluates both sides of AND and OR, and the arguments of aggregates with FILTER for all rows.
    #[must_use]
    pub fn with_guard(&self) -> Self {
        let signature = Signature::variadic_any(Volatility::Stable);
        Self { guarded: true, signature, ..self.clone() }
    }

    /// The same function without a guard, and a call's `arguments` without it, which comes last; `None` if there is
    /// none.
    pub fn without_guard<T: Clone>(&self, arguments: &[T]) -> Option<(Self, Vec<T>, T)> {
        let (guard, others) = arguments.split_last().filter(|_| self.guarded)?;
        // A function with parameters of its own had its arguments coerced to them before it was guarded.
        Some((Self { guarded: false, ..self.clone() }, others.to_vec(), guard.clone()))
    }

    /// Of a call's `arguments`, the model's features in the model's order.
    pub fn features<T: Clone>(&self, arguments: &[T]) -> Vec<T> {
        match &self.features {
            Some(positions) => positions.iter().filter_map(|&i| arguments.get(i).cloned()).collect(),
            None => {
                let end = arguments.len().saturating_sub(usize::from(self.guarded));
                arguments.get(1..end).unwrap_or_default().to_vec()
            }
        }
    }

    /// The column of predictions that a plan calls `name`.
    pub fn output_field(&self, name: &str) -> FieldRef {
        let field = Field::new(name, self.return_type.clone(), true);
        Arc::new(field.with_metadata(self.model.provenance()))
    }

    /// The type of a prediction of this function.
    pub fn result_type(&self) -> &DataType {
        &self.return_type
    }

    /// Scores the features in `args`, with the result in the type that was planned.
    pub(crate) fn score(
        model: &dyn ScoringModel,
        args: &ScalarFunctionArgs,
        on_failure: OnFailure,
    ) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let features = args.args.iter().map(|arg| arg.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let scores = score_rows(model, &features, rows, args, on_failure)?;
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&scores, 0)?));
        }
        Ok(ColumnarValue::Array(scores))
    }

    /// As [`score`](Self::score), for the rows whose `guard` is true; the others have NULL.
    fn score_guarded(&self, args: &ScalarFunctionArgs, guard: &ColumnarValue) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        if let ColumnarValue::Scalar(guard) = guard {
            return match guard {
                ScalarValue::Boolean(Some(true)) => Self::score(self.model.as_ref(), args, self.on_failure),
                _ => Ok(ColumnarValue::Scalar(ScalarValue::try_new_null(args.return_field.data_type())?)),
            };
        }
        let chosen = chosen_rows(&guard.to_array(rows)?)?;
        let count = chosen.true_count();
        if count == rows {
            return Self::score(self.model.as_ref(), args, self.on_failure);
        }
        if count == 0 {
            return Ok(ColumnarValue::Array(new_null_array(args.return_field.data_type(), rows)));
        }
        let features = args.args.iter().map(|arg| Ok(filter(&arg.to_array(rows)?, &chosen)?));
        let features = features.collect::<Result<Vec<_>>>()?;
        let scores = score_rows(self.model.as_ref(), &features, count, args, self.on_failure)?;
        let mut next = 0..count as u64;
        let places: UInt64Array = chosen.values().iter().map(|chosen| chosen.then(|| next.next()).flatten()).collect();
        Ok(ColumnarValue::Array(take(&scores, &places, None)?))
    }
}

/// Whether all arguments are literals. The field of such a call says nothing of its model: it may be one of several rows of
/// VALUES, whose fields must say the same.
pub(crate) fn is_constant(args: &ReturnFieldArgs) -> bool {
    args.scalar_arguments.iter().all(Option::is_some)
}

/// The rows whose `guard`, a boolean or nothing but NULL, is true.
fn chosen_rows(guard: &ArrayRef) -> Result<BooleanArray> {
    let guard = cast(guard, &DataType::Boolean)?;
    let guard = guard.as_boolean();
    Ok(if guard.null_count() > 0 { prep_null_mask_filter(guard) } else { guard.clone() })
}

/// Predictions for `rows` rows of `features`, in the type that was planned.
fn score_rows(
    model: &dyn ScoringModel,
    features: &[ArrayRef],
    rows: usize,
    args: &ScalarFunctionArgs,
    on_failure: OnFailure,
) -> Result<ArrayRef> {
    let scores = model.score(features, rows, on_failure, &args.config_options)?;
    if scores.len() != rows {
        return exec_err!("model '{}' gave {} predictions for {rows} rows", model.label(), scores.len());
    }
    if scores.data_type() != args.return_field.data_type() {
        return Ok(cast(&scores, args.return_field.data_type())?);
    }
    Ok(scores)
}

impl PartialEq for ModelFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && *self.model == *other.model
            && self.on_failure == other.on_failure
            && self.features == other.features
            && self.guarded == other.guarded
            && self.return_type == other.return_type
    }
}

impl Eq for ModelFunction {}

impl Hash for ModelFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
        self.model.hash(state);
    }
}

impl ScalarUDFImpl for ModelFunction {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(self.return_type.clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        if is_constant(&args) {
            return Ok(Arc::new(Field::new(&self.name, self.return_type.clone(), true)));
        }
        Ok(self.output_field(&self.name))
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let guard = args.args.last().filter(|_| self.guarded).cloned();
        args.args = self.features(&args.args);
        match guard {
            Some(guard) => self.score_guarded(&args, &guard),
            None => Self::score(self.model.as_ref(), &args, self.on_failure),
        }
    }
}
