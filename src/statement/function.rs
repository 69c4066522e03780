//! `CREATE FUNCTION … LANGUAGE onnx AS 'uri?output=…&class=…'`

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::execution::context::{FunctionFactory, RegisterFunction, SessionState};
use datafusion::logical_expr::{CreateFunction, Expr, ScalarUDF};
use datafusion_predict_udfs::ModelFunction;

use crate::call::ModelOptions;
use crate::config::PredictConfig;
use crate::runtime::PredictRuntime;

/// Makes functions of models; other languages go to the factory that was there before.
#[derive(Debug)]
pub(crate) struct OnnxFunctionFactory {
    other: Option<Arc<dyn FunctionFactory>>,
}

impl OnnxFunctionFactory {
    pub(crate) fn new(other: Option<Arc<dyn FunctionFactory>>) -> Self {
        Self { other }
    }
}

#[async_trait]
impl FunctionFactory for OnnxFunctionFactory {
    async fn create(&self, state: &SessionState, statement: CreateFunction) -> Result<RegisterFunction> {
        let language = statement.params.language.as_ref().map(|language| language.value.to_lowercase());
        if language.as_deref() != Some("onnx") {
            return match (&self.other, language) {
                (Some(other), _) => other.create(state, statement).await,
                (None, Some(language)) => {
                    plan_err!("functions in the language '{language}' are not known here: there is 'onnx'")
                }
                (None, None) => plan_err!("expected LANGUAGE onnx AS 'uri' in CREATE FUNCTION"),
            };
        }
        let name = statement.name.clone();
        let Some(Expr::Literal(ScalarValue::Utf8(Some(body)), _)) = &statement.params.function_body else {
            return plan_err!("function '{name}': expected AS 'uri', the place of an ONNX model");
        };
        if state.scalar_functions().contains_key(&name) && !statement.or_replace {
            return plan_err!("function '{name}' exists already: use CREATE OR REPLACE FUNCTION");
        }
        let (uri, query) = body.split_once('?').unwrap_or((body, ""));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let options = ModelOptions::from_pairs(pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))))?;
        let mut parameters = vec![];
        for (i, argument) in statement.args.iter().flatten().enumerate() {
            let Some(parameter) = &argument.name else {
                return plan_err!("function '{name}': parameter {} has no name", i + 1);
            };
            if argument.default_expr.is_some() {
                return plan_err!(
                    "function '{name}': parameter '{}' has a default, which is not supported",
                    parameter.value
                );
            }
            parameters.push((parameter.value.to_lowercase(), argument.data_type.clone()));
        }
        let engine = PredictConfig::of(state.config_options()).engine;
        let Some(runtime) = state.config().get_extension::<PredictRuntime>() else {
            return plan_err!("function '{name}': this session knows no models: call with_predict first");
        };
        let predictor = runtime.load(&name, uri, vec![], options, &engine).await?;
        let model = runtime.function_model(&name, predictor)?;
        let function = ModelFunction::declared(&name, model, parameters, statement.return_type)?;
        Ok(RegisterFunction::Scalar(Arc::new(ScalarUDF::new_from_impl(function))))
    }
}
