//! The logical node.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use datafusion::common::{DFSchema, DFSchemaRef, Result, TableReference, exec_err, plan_err};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, ScalarUDF, UserDefinedLogicalNodeCore};
use datafusion_predict_udfs::ModelFunction;

/// Scores each row of its input once: the input's columns, and one more with the prediction.
///
/// With a `condition`, rows for which it is not true are not scored, and have NULL: so branches of CASE stay lazy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Predict {
    input: LogicalPlan,
    /// A [`ModelFunction`].
    function: Arc<ScalarUDF>,
    arguments: Vec<Expr>,
    condition: Option<Expr>,
    /// Name of the prediction's column, unqualified and unique in the plan.
    output: String,
    schema: DFSchemaRef,
}

impl Predict {
    /// A node over `input`.
    ///
    /// # Errors
    /// A function that is no [`ModelFunction`], an `output` that `input` has already.
    pub fn try_new(
        input: LogicalPlan,
        function: Arc<ScalarUDF>,
        arguments: Vec<Expr>,
        condition: Option<Expr>,
        output: String,
    ) -> Result<Self> {
        let Some(model) = function.inner().downcast_ref::<ModelFunction>() else {
            return plan_err!("{} is not a function of a model", function.name());
        };
        let field = model.output_field(&output);
        let mut fields: Vec<_> =
            input.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone())).collect();
        fields.push((None::<TableReference>, field));
        let schema = DFSchema::new_with_metadata(fields, input.schema().metadata().clone())?;
        let dependencies = input.schema().functional_dependencies().clone();
        let schema = Arc::new(schema.with_functional_dependencies(dependencies)?);
        Ok(Self { input, function, arguments, condition, output, schema })
    }

    /// The node as a plan.
    pub fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }

    /// The function that is called, a [`ModelFunction`].
    pub fn function(&self) -> &Arc<ScalarUDF> {
        &self.function
    }

    /// The arguments of the call, over the input's columns.
    pub fn arguments(&self) -> &[Expr] {
        &self.arguments
    }

    /// Which rows are scored.
    pub fn condition(&self) -> Option<&Expr> {
        self.condition.as_ref()
    }

    /// The name of the prediction's column.
    pub fn output(&self) -> &str {
        &self.output
    }
}

impl PartialOrd for Predict {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let key = |node: &Self| (node.output.clone(), node.arguments.clone(), node.condition.clone());
        key(self).partial_cmp(&key(other)).filter(|order| *order != Ordering::Equal || self == other)
    }
}

impl UserDefinedLogicalNodeCore for Predict {
    fn name(&self) -> &str {
        "Predict"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.arguments.iter().chain(&self.condition).cloned().collect()
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        HashSet::from([self.output.clone()])
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let arguments: Vec<_> = self.arguments.iter().map(Expr::to_string).collect();
        write!(f, "Predict: {}({}) AS {}", self.function.name(), arguments.join(", "), self.output)?;
        match &self.condition {
            Some(condition) => write!(f, ", if={condition}"),
            None => Ok(()),
        }
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let expected = self.arguments.len() + usize::from(self.condition.is_some());
        let (Some(input), true) = (inputs.pop(), exprs.len() == expected) else {
            return exec_err!("a Predict node has one input and {expected} expressions");
        };
        let condition = if self.condition.is_some() { exprs.pop() } else { None };
        Self::try_new(input, self.function.clone(), exprs, condition, self.output.clone())
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let input = self.input.schema();
        let mut needed: Vec<_> =
            output_columns.iter().copied().filter(|column| *column < input.fields().len()).collect();
        for expr in self.arguments.iter().chain(&self.condition) {
            for column in expr.column_refs() {
                needed.push(input.maybe_index_of_column(column)?);
            }
        }
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }

    fn supports_limit_pushdown(&self) -> bool {
        true // one row out for each row in
    }
}
