//! `predict`, `try_predict` and `predict_error`: the functions under which a model is called by its name.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::scalar_doc_sections::DOC_SECTION_OTHER;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, DocumentationBuilder, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};

use crate::model::{ModelResolver, OnFailure, Resolved};
use crate::model_function::{ModelFunction, is_constant};
use crate::purpose::Purpose;

/// `predict('name', …)` or `try_predict('name', …)`, not yet bound to a version of the model.
///
/// The planner learns the result's type from the name, which must therefore be a literal. [`bind_call`] replaces the
/// call by a [`ModelFunction`]; where nothing does, the function resolves the name again for each batch and takes
/// its arguments by position.
///
/// [`bind_call`]: crate::bind_call
#[derive(Debug)]
pub struct PredictFunction {
    resolver: Arc<dyn ModelResolver>,
    on_failure: OnFailure,
    purpose: Purpose,
    signature: Signature,
}

impl PredictFunction {
    /// `predict` for [`OnFailure::Error`], `try_predict` for [`OnFailure::Null`], `predict_error` for [`OnFailure::Reason`].
    pub fn new(resolver: Arc<dyn ModelResolver>, on_failure: OnFailure) -> Self {
        // Volatile, so that PREPARE, which optimizes before it binds, leaves the call where it is.
        let signature = Signature::user_defined(Volatility::Volatile);
        Self { resolver, on_failure, purpose: Purpose::Predict, signature }
    }

    /// The function of a purpose: `embed`, `classify` or `rerank`.
    pub fn for_purpose(resolver: Arc<dyn ModelResolver>, purpose: Purpose) -> Self {
        Self { purpose, ..Self::new(resolver, OnFailure::Error) }
    }

    /// The function as DataFusion registers it.
    pub fn udf(resolver: Arc<dyn ModelResolver>, on_failure: OnFailure) -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::new_from_impl(Self::new(resolver, on_failure)))
    }

    /// What becomes of a row that can't be scored.
    pub fn on_failure(&self) -> OnFailure {
        self.on_failure
    }

    /// What it is called for.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    pub(crate) fn too_few_arguments<T>(&self) -> Result<T> {
        match self.purpose {
            Purpose::Predict => {
                plan_err!("{0}: expected a model's name and its features, as in {0}('churn', age, plan)", self.name())
            }
            Purpose::Embed => plan_err!("embed: expected a model's name and a text, as in embed('minilm', body)"),
            Purpose::Classify => {
                plan_err!("classify: expected a model's name and what it takes, as in classify('topics', body)")
            }
            Purpose::Rerank => {
                plan_err!("rerank: expected a model's name and two texts, as in rerank('cross', query, body)")
            }
        }
    }

    /// What the literal `name` stands for now.
    pub fn resolve(&self, name: Option<&ScalarValue>) -> Result<Resolved> {
        self.resolve_by(self.resolver.as_ref(), name)
    }

    /// Where names are looked up.
    pub fn resolver(&self) -> &Arc<dyn ModelResolver> {
        &self.resolver
    }

    /// What the literal `name` stands for, as `resolver` knows it.
    pub(crate) fn resolve_by(&self, resolver: &dyn ModelResolver, name: Option<&ScalarValue>) -> Result<Resolved> {
        match name.and_then(|value| value.try_as_str()) {
            Some(Some(name)) => resolver.resolve(name),
            Some(None) => plan_err!("{}: the model's name is NULL", self.name()),
            None => plan_err!(
                "{}: the model's name must be a string literal, as in {0}('churn', …): the type of the result depends on it",
                self.name()
            ),
        }
    }
}

fn documentation(description: &str, name: &str) -> DocumentationBuilder {
    Documentation::builder(DOC_SECTION_OTHER, description, format!("{name}(model, feature[, …])"))
        .with_argument("model", "The model's name as a string literal, such as 'churn', 'churn/3' or 'churn@champion'.")
        .with_argument(
            "feature",
            "The features by position; or by name, as t.*, * or {age: x}; or one list column that holds them all.",
        )
}

impl PartialEq for PredictFunction {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.resolver, &other.resolver)
            && (self.on_failure, self.purpose) == (other.on_failure, other.purpose)
    }
}

impl Eq for PredictFunction {}

impl Hash for PredictFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.resolver).hash(state);
        (self.on_failure, self.purpose).hash(state);
    }
}

impl ScalarUDFImpl for PredictFunction {
    fn name(&self) -> &str {
        match self.on_failure {
            OnFailure::Error => self.purpose.name(),
            OnFailure::Null => "try_predict",
            OnFailure::Reason => "predict_error",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn documentation(&self) -> Option<&Documentation> {
        static PREDICT: LazyLock<Documentation> = LazyLock::new(|| {
            documentation("Scores a row with a model. A row that can't be scored fails the query.", "predict")
                .with_sql_example(
                    "```sql\nSELECT id, predict('churn', age, plan) FROM customers;\n\
                     SELECT id, predict('churn', customers.*) FROM customers;\n\
                     SELECT id, predict('churn', {age: years, plan: tariff}) FROM customers;\n```",
                )
                .with_related_udf("try_predict")
                .build()
        });
        static TRY_PREDICT: LazyLock<Documentation> = LazyLock::new(|| {
            documentation("Scores a row with a model. A row that can't be scored has NULL.", "try_predict")
                .with_related_udf("predict")
                .with_related_udf("predict_error")
                .build()
        });
        static PREDICT_ERROR: LazyLock<Documentation> = LazyLock::new(|| {
            documentation("Tells why a model can't score a row; NULL for a row that it can.", "predict_error")
                .with_related_udf("try_predict")
                .build()
        });
        static EMBED: LazyLock<Documentation> = LazyLock::new(|| {
            documentation("Makes a text a vector with a model of texts.", "embed")
                .with_sql_example("```sql\nSELECT id, embed('minilm', body) FROM docs;\n```")
                .with_related_udf("predict")
                .build()
        });
        static CLASSIFY: LazyLock<Documentation> = LazyLock::new(|| {
            documentation("Gives a text, or what else a model takes, its label.", "classify")
                .with_sql_example("```sql\nSELECT id, classify('sentiment', body) FROM docs;\n```")
                .with_related_udf("predict")
                .build()
        });
        static RERANK: LazyLock<Documentation> = LazyLock::new(|| {
            documentation("Tells with a model of pairs of texts how well a text answers a query.", "rerank")
                .with_sql_example("```sql\nSELECT id, rerank('cross', 'how to rest', body) FROM docs;\n```")
                .with_related_udf("predict")
                .build()
        });
        Some(match self.on_failure {
            OnFailure::Error if self.purpose == Purpose::Embed => &EMBED,
            OnFailure::Error if self.purpose == Purpose::Classify => &CLASSIFY,
            OnFailure::Error if self.purpose == Purpose::Rerank => &RERANK,
            OnFailure::Error => &PREDICT,
            OnFailure::Null => &TRY_PREDICT,
            OnFailure::Reason => &PREDICT_ERROR,
        })
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(types.to_vec()) // the features' types are checked when the call is bound
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        plan_err!("{}: the type of the result depends on the model's name", self.name())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        if args.arg_fields.len() < 2 {
            return self.too_few_arguments();
        }
        let resolved = self.resolve(args.scalar_arguments.first().copied().flatten())?;
        if self.on_failure == OnFailure::Reason {
            return Ok(Arc::new(Field::new(self.name(), DataType::Utf8, true)));
        }
        self.purpose.check(resolved.first()?.as_ref())?;
        let field = Field::new(self.name(), resolved.first()?.return_type().clone(), true);
        Ok(Arc::new(match resolved {
            Resolved::Model(model) if !is_constant(&args) => field.with_metadata(model.provenance()),
            Resolved::Model(_) | Resolved::Split { .. } => field, // a constant, or of several versions
        }))
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(ColumnarValue::Scalar(name)) = args.args.first() else {
            return exec_err!("{}: the model's name must be a string literal", self.name());
        };
        let Resolved::Model(model) = self.resolve(Some(name))? else {
            return exec_err!(
                "{}: a model whose traffic is split needs the analyzer rule that with_predict adds",
                self.name()
            );
        };
        if self.on_failure == OnFailure::Reason {
            return exec_err!("{}: needs the analyzer rule that with_predict adds", self.name());
        }
        let types: Vec<_> = args.arg_fields[1..].iter().map(|field| field.data_type().clone()).collect();
        model.check_arguments(&types)?;
        if model.return_type() != args.return_field.data_type() {
            return exec_err!("model '{}' was replaced by one with another output while the query ran", model.label());
        }
        args.args.remove(0);
        ModelFunction::score(model.as_ref(), &args, self.on_failure)
    }
}
