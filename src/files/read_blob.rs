//! `read_blob(uri)`: what is in a file, as a value.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use datafusion::arrow::compute::{cast, nullif};
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::cast::as_boolean_array;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result as DFResult, exec_err, internal_err};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use datafusion::physical_expr::async_scalar_function::AsyncFuncExpr;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::async_func::AsyncFuncExec;
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, SendableRecordBatchStream,
};
use futures::{StreamExt, stream};

use super::content::{self, BATCH, OpenFile};
use super::place::place;
use crate::config::PredictConfig;
use crate::error::{Error, error};

/// The functions: `read_blob`, and `try_read_blob`, which gives NULL for what can't be read.
pub(crate) fn read_blob_functions() -> [Arc<ScalarUDF>; 2] {
    [false, true].map(|tries| Arc::new(AsyncScalarUDF::new(Arc::new(ReadBlob::new(tries))).into_scalar_udf()))
}

/// A function that needs a file to be read, so that a node of the plan computes it while rows stream.
#[derive(Debug)]
struct ReadBlob {
    signature: Signature,
    /// Whether a file that can't be read is NULL.
    tries: bool,
}

impl ReadBlob {
    fn new(tries: bool) -> Self {
        let texts = TypeSignature::Uniform(1, vec![DataType::Utf8View, DataType::Utf8, DataType::LargeUtf8]);
        // Files may change between queries, and are taken not to within one.
        Self { signature: Signature::new(texts, Volatility::Stable), tries }
    }
}

impl PartialEq for ReadBlob {
    fn eq(&self, other: &Self) -> bool {
        self.tries == other.tries
    }
}

impl Eq for ReadBlob {}

impl Hash for ReadBlob {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.tries.hash(state);
    }
}

impl ScalarUDFImpl for ReadBlob {
    fn name(&self) -> &str {
        if self.tries { "try_read_blob" } else { "read_blob" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DFResult<DataType> {
        Ok(DataType::BinaryView)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> DFResult<ColumnarValue> {
        exec_err!("{} reads files, which only a node of the plan can do", self.name())
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for ReadBlob {
    async fn invoke_async_with_args(&self, _: ScalarFunctionArgs) -> DFResult<ColumnarValue> {
        exec_err!("{} was planned without the rules of datafusion-predict", self.name())
    }
}

/// Puts our node in place of DataFusion's for functions that wait: it has a session's stores, and cuts batches by their bytes.
#[derive(Debug)]
pub(crate) struct PlanReadBlob;

impl PlanReadBlob {
    pub(crate) const NAME: &'static str = "plan_read_blob";
}

impl PhysicalOptimizerRule for PlanReadBlob {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> DFResult<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            let Some(node) = plan.downcast_ref::<AsyncFuncExec>() else { return Ok(Transformed::no(plan)) };
            #[expect(deprecated, reason = "there is no other way to see what the node computes")]
            let calls = node.async_exprs();
            if !calls.iter().any(|call| tries(&call.func).is_some()) {
                return Ok(Transformed::no(plan));
            }
            Ok(Transformed::yes(waiting_for(calls, node.input().clone(), None)?))
        })
        .and_then(|transformed| {
            transformed.data.apply(refuse_others)?;
            Ok(transformed.data)
        })
    }
}

/// `input` with a column for each of `calls`, which wait for something: a node of ours for those that read a file, for the rows alone for
/// which `condition` is true; DataFusion's for the others.
pub(crate) fn waiting_for(
    calls: &[Arc<AsyncFuncExpr>],
    mut input: Arc<dyn ExecutionPlan>,
    condition: Option<&Arc<dyn PhysicalExpr>>,
) -> DFResult<Arc<dyn ExecutionPlan>> {
    for call in calls {
        input = match tries(&call.func) {
            Some(_) => Arc::new(ReadBlobExec::new(input, call.clone())?.with_condition(condition.cloned())),
            None => Arc::new(AsyncFuncExec::try_new(vec![call.clone()], input)?),
        };
    }
    Ok(input)
}

/// Refuses a call in a node that can't wait for a file, which DataFusion says only when the query runs, and as a fault of its own.
fn refuse_others(plan: &Arc<dyn ExecutionPlan>) -> DFResult<TreeNodeRecursion> {
    if plan.is::<ReadBlobExec>() {
        return Ok(TreeNodeRecursion::Continue);
    }
    plan.apply_expressions(&mut |expr| {
        expr.apply(|expr| match tries(expr) {
            None => Ok(TreeNodeRecursion::Continue),
            Some(_) => Err(error!(
                InvalidStatement,
                "{expr} is called where no file can be read: call it in the SELECT list of a subquery, and name its column here"
            )
            .into()),
        })
    })?;
    Ok(TreeNodeRecursion::Continue)
}

/// Whether the expression is a call of `try_read_blob`; `None` if it is of neither function.
fn tries(expr: &Arc<dyn PhysicalExpr>) -> Option<bool> {
    let function = expr.downcast_ref::<ScalarFunctionExpr>()?;
    function.fun().inner().downcast_ref::<AsyncScalarUDF>()?;
    match function.fun().name() {
        "read_blob" => Some(false),
        "try_read_blob" => Some(true),
        _ => None,
    }
}

/// The input's columns, and one more with what is in the files that an expression names.
#[derive(Debug)]
pub(crate) struct ReadBlobExec {
    input: Arc<dyn ExecutionPlan>,
    call: Arc<AsyncFuncExpr>,
    /// Whether a file that can't be read is NULL.
    tries: bool,
    /// For which rows a file is read; it is NULL for the others.
    condition: Option<Arc<dyn PhysicalExpr>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl ReadBlobExec {
    /// # Errors
    /// A call of another function.
    pub(crate) fn new(input: Arc<dyn ExecutionPlan>, call: Arc<AsyncFuncExpr>) -> DFResult<Self> {
        let Some(tries) = tries(&call.func) else { return internal_err!("{} reads no file", call.func) };
        let content = call.return_field(&input.schema())?;
        let fields: Vec<_> = input.schema().fields().iter().cloned().chain([content]).collect();
        let schema = Arc::new(Schema::new_with_metadata(fields, input.schema().metadata().clone()));
        let mut equivalences = EquivalenceProperties::new(schema);
        for ordering in input.equivalence_properties().oeq_class().iter() {
            equivalences.add_ordering(ordering.clone());
        }
        let properties = PlanProperties::new(
            equivalences,
            input.output_partitioning().clone(),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        let metrics = ExecutionPlanMetricsSet::new();
        Ok(Self { input, call, tries, condition: None, properties: Arc::new(properties), metrics })
    }

    /// The same, which reads files for the rows alone for which `condition` is true.
    pub(crate) fn with_condition(self, condition: Option<Arc<dyn PhysicalExpr>>) -> Self {
        Self { condition, ..self }
    }

    /// For which rows a file is read.
    #[cfg(feature = "proto")]
    pub(crate) fn condition(&self) -> Option<&Arc<dyn PhysicalExpr>> {
        self.condition.as_ref()
    }

    /// The call, with the name of the column that it becomes.
    #[cfg(feature = "proto")]
    pub(crate) fn call(&self) -> &AsyncFuncExpr {
        &self.call
    }

    /// The texts that name the files of a batch; NULL where no file is to be read.
    fn uris(
        call: &AsyncFuncExpr,
        condition: Option<&Arc<dyn PhysicalExpr>>,
        batch: &RecordBatch,
    ) -> DFResult<ArrayRef> {
        let argument = call.func.downcast_ref::<ScalarFunctionExpr>().and_then(|function| function.args().first());
        let Some(argument) = argument else { return internal_err!("read_blob has one argument") };
        let Some(condition) = condition else {
            let uris = argument.evaluate(batch)?.into_array(batch.num_rows())?;
            return Ok(cast(&uris, &DataType::Utf8View)?);
        };
        let wanted = condition.evaluate(batch)?.into_array(batch.num_rows())?;
        // The argument of a row that is not wanted may be one that can't be computed.
        let uris = argument.evaluate_selection(batch, as_boolean_array(&wanted)?)?.into_array(batch.num_rows())?;
        Ok(nullif(&cast(&uris, &DataType::Utf8View)?, &is_not_true(as_boolean_array(&wanted)?)?)?)
    }
}

/// Whether each of `values` is false or NULL.
fn is_not_true(values: &BooleanArray) -> DFResult<BooleanArray> {
    Ok(values.iter().map(|value| Some(value != Some(true))).collect())
}

impl DisplayAs for ReadBlobExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadBlobExec: {}", self.call.func)?;
        self.condition.iter().try_for_each(|condition| write!(f, ", where={condition}"))
    }
}

impl ExecutionPlan for ReadBlobExec {
    fn name(&self) -> &'static str {
        "ReadBlobExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DFResult<TreeNodeRecursion>,
    ) -> DFResult<TreeNodeRecursion> {
        match f(&self.call.func)? {
            TreeNodeRecursion::Continue => self.condition.iter().try_fold(TreeNodeRecursion::Continue, |_, it| f(it)),
            other => Ok(other),
        }
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DFResult<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.pop()) {
            (Some(input), None) => {
                Ok(Arc::new(Self::new(input, self.call.clone())?.with_condition(self.condition.clone())))
            }
            _ => internal_err!("ReadBlobExec has one input"),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DFResult<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context.clone())?;
        let (schema, call, tries) = (self.schema(), self.call.clone(), self.tries);
        let condition = self.condition.clone();
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let largest = PredictConfig::of(context.session_config().options()).largest_blob.0;
        let environment = context.runtime_env();
        let batches = input.map(move |batch| {
            let (schema, environment, metrics) = (schema.clone(), environment.clone(), metrics.clone());
            let batch = batch.and_then(|batch| Ok((Self::uris(&call, condition.as_ref(), &batch)?, batch)));
            match batch {
                Err(error) => stream::iter([Err(error)]).left_stream(),
                Ok((uris, batch)) => {
                    let uris = uris.as_string_view();
                    let uris: Vec<_> =
                        (0..uris.len()).map(|row| (!uris.is_null(row)).then(|| uris.value(row).to_owned())).collect();
                    let open = move |uri: Option<String>| {
                        let environment = environment.clone();
                        async move {
                            let Some(uri) = uri else { return Ok(None) };
                            let place = place(&uri, &environment)?;
                            OpenFile::open(uri, &place, largest).await.map(Some)
                        }
                    };
                    let files = content::in_order(uris, open).boxed();
                    in_batches(batch, files, schema, tries, metrics).right_stream()
                }
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches.flatten())))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// The rows of `batch` with their contents, as batches that have bytes enough.
fn in_batches(
    batch: RecordBatch,
    files: stream::BoxStream<'static, Result<Option<OpenFile>, Error>>,
    schema: SchemaRef,
    tries: bool,
    metrics: BaselineMetrics,
) -> impl futures::Stream<Item = DFResult<RecordBatch>> {
    stream::try_unfold((files, 0), move |(mut files, first)| {
        let (batch, schema, metrics) = (batch.clone(), schema.clone(), metrics.clone());
        async move {
            let (mut these, mut bytes) = (vec![], 0);
            while bytes < BATCH {
                let Some(file) = files.next().await else { break };
                let content = match file {
                    Ok(Some(file)) => file.content().await.map(Some),
                    Ok(None) => Ok(None),
                    Err(error) => Err(error),
                };
                match content {
                    Ok(content) => {
                        bytes += content.as_ref().map_or(0, Bytes::len);
                        these.push(content);
                    }
                    Err(_) if tries => these.push(None),
                    Err(error) => return Err(error.into()),
                }
            }
            if these.is_empty() {
                return Ok(None);
            }
            let rows = these.len();
            let mut columns = batch.slice(first, rows).columns().to_vec();
            columns.push(content::column(these)?);
            let batch = RecordBatch::try_new(schema, columns)?.record_output(&metrics);
            Ok(Some((batch, (files, first + rows))))
        }
    })
}
