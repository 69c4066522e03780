//! A function that calls one version of one model.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::compute::{can_cast_types, cast};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use crate::model::{OnFailure, ScoringModel};

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
    signature: Signature,
    return_type: DataType,
}

impl ModelFunction {
    /// A bound `predict('label', feature, …)`: the literal stays in place, so that plans show the version.
    pub fn bound(name: &str, model: Arc<dyn ScoringModel>, on_failure: OnFailure) -> Self {
        let return_type = model.return_type().clone();
        let signature = Signature::variadic_any(Volatility::Stable);
        Self { name: name.to_owned(), model, on_failure, features: None, signature, return_type }
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
        Ok(Self { name, model, on_failure: OnFailure::Error, features, signature, return_type })
    }

    /// The version that is called.
    pub fn model(&self) -> &Arc<dyn ScoringModel> {
        &self.model
    }

    /// What becomes of a row that can't be scored.
    pub fn on_failure(&self) -> OnFailure {
        self.on_failure
    }

    /// Of a call's `arguments`, the model's features in the model's order.
    pub fn features<T: Clone>(&self, arguments: &[T]) -> Vec<T> {
        match &self.features {
            Some(positions) => positions.iter().map(|&i| arguments[i].clone()).collect(),
            None => arguments[1..].to_vec(),
        }
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
        let mut scores = model.score(&features, rows, on_failure)?;
        if scores.len() != rows {
            return exec_err!("model '{}' gave {} predictions for {rows} rows", model.label(), scores.len());
        }
        if scores.data_type() != args.return_field.data_type() {
            scores = cast(&scores, args.return_field.data_type())?;
        }
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&scores, 0)?));
        }
        Ok(ColumnarValue::Array(scores))
    }
}

impl PartialEq for ModelFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && Arc::ptr_eq(&self.model, &other.model)
            && self.on_failure == other.on_failure
            && self.return_type == other.return_type
    }
}

impl Eq for ModelFunction {}

impl Hash for ModelFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
        Arc::as_ptr(&self.model).hash(state);
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

    fn return_field_from_args(&self, _args: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(&self.name, self.return_type.clone(), true)))
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        args.args = self.features(&args.args);
        Self::score(self.model.as_ref(), &args, self.on_failure)
    }
}
