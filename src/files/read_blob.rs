//! `read_blob(uri)`: what is in a file, as a value.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result as DFResult, exec_err, internal_err, plan_err};
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

use super::content::{self, BATCH};
use super::place::place;
use crate::config::PredictConfig;
use crate::error::Error;

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
            if !calls.iter().all(|call| tries(&call.func).is_some()) {
                return Ok(Transformed::no(plan));
            }
            let mut input = node.input().clone();
            for call in calls {
                input = Arc::new(ReadBlobExec::new(input, call.clone())?);
            }
            Ok(Transformed::yes(input))
        })
        .and_then(|transformed| {
            transformed.data.apply(refuse_others)?;
            Ok(transformed.data)
        })
    }
}

/// Refuses a call in a node that can't wait for a file, which DataFusion says only when the query runs, and as a fault of its own.
fn refuse_others(plan: &Arc<dyn ExecutionPlan>) -> DFResult<TreeNodeRecursion> {
    if plan.is::<ReadBlobExec>() {
        return Ok(TreeNodeRecursion::Continue);
    }
    plan.apply_expressions(&mut |expr| {
        expr.apply(|expr| match tries(expr) {
            None => Ok(TreeNodeRecursion::Continue),
            Some(_) => plan_err!(
                "{expr} is called where no file can be read: call it in the SELECT list of a subquery, and name its column here"
            ),
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
        Ok(Self { input, call, tries, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() })
    }

    /// The call, with the name of the column that it becomes.
    #[cfg(feature = "proto")]
    pub(crate) fn call(&self) -> &AsyncFuncExpr {
        &self.call
    }

    /// The texts that name the files of a batch.
    fn uris(call: &AsyncFuncExpr, batch: &RecordBatch) -> DFResult<ArrayRef> {
        let argument = call.func.downcast_ref::<ScalarFunctionExpr>().and_then(|function| function.args().first());
        let Some(argument) = argument else { return internal_err!("read_blob has one argument") };
        Ok(cast(&argument.evaluate(batch)?.into_array(batch.num_rows())?, &DataType::Utf8View)?)
    }
}

impl DisplayAs for ReadBlobExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadBlobExec: {}", self.call.func)
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
        f(&self.call.func)
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
            (Some(input), None) => Ok(Arc::new(Self::new(input, self.call.clone())?)),
            _ => internal_err!("ReadBlobExec has one input"),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DFResult<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context.clone())?;
        let (schema, call, tries) = (self.schema(), self.call.clone(), self.tries);
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let largest = PredictConfig::of(context.session_config().options()).largest_blob.0;
        let environment = context.runtime_env();
        let batches = input.map(move |batch| {
            let (schema, environment, metrics) = (schema.clone(), environment.clone(), metrics.clone());
            let batch = batch.and_then(|batch| Ok((Self::uris(&call, &batch)?, batch)));
            match batch {
                Err(error) => stream::iter([Err(error)]).left_stream(),
                Ok((uris, batch)) => {
                    let uris = uris.as_string_view();
                    let uris: Vec<_> =
                        (0..uris.len()).map(|row| (!uris.is_null(row)).then(|| uris.value(row).to_owned())).collect();
                    let read = move |uri: Option<String>| {
                        let environment = environment.clone();
                        async move {
                            let Some(uri) = uri else { return Ok(None) };
                            let place = place(&uri, &environment)?;
                            content::content(&uri, &place, largest).await.map(Some)
                        }
                    };
                    let contents = content::in_order(uris, read).boxed();
                    in_batches(batch, contents, schema, tries, metrics).right_stream()
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
    contents: stream::BoxStream<'static, Result<Option<Bytes>, Error>>,
    schema: SchemaRef,
    tries: bool,
    metrics: BaselineMetrics,
) -> impl futures::Stream<Item = DFResult<RecordBatch>> {
    stream::try_unfold((contents, 0), move |(mut contents, first)| {
        let (batch, schema, metrics) = (batch.clone(), schema.clone(), metrics.clone());
        async move {
            let (mut these, mut bytes) = (vec![], 0);
            while bytes < BATCH {
                match contents.next().await {
                    None => break,
                    Some(Ok(content)) => {
                        bytes += content.as_ref().map_or(0, Bytes::len);
                        these.push(content);
                    }
                    Some(Err(_)) if tries => these.push(None),
                    Some(Err(error)) => return Err(error.into()),
                }
            }
            if these.is_empty() {
                return Ok(None);
            }
            let rows = these.len();
            let mut columns = batch.slice(first, rows).columns().to_vec();
            columns.push(content::column(these)?);
            let batch = RecordBatch::try_new(schema, columns)?.record_output(&metrics);
            Ok(Some((batch, (contents, first + rows))))
        }
    })
}
