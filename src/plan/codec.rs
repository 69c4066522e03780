//! Plans with predictions as bytes.

use std::any::Any;
use std::sync::Arc;

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::{DataFusionError, Result, TableReference, exec_err, not_impl_err, plan_err};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Extension, LogicalPlan, ScalarUDF, ScalarUDFImpl};
use datafusion::physical_expr::async_scalar_function::AsyncFuncExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_predict_udfs::{CompareFunction, ModelFunction, OnFailure, PlainFunction, TrafficFunction};
use datafusion_proto::logical_plan::LogicalExtensionCodec;
use datafusion_proto::logical_plan::from_proto::parse_exprs;
use datafusion_proto::logical_plan::to_proto::serialize_exprs;
use datafusion_proto::physical_plan::from_proto::parse_physical_expr_with_converter;
use datafusion_proto::physical_plan::to_proto::serialize_physical_expr_with_converter;
use datafusion_proto::physical_plan::{
    PhysicalExtensionCodec, PhysicalPlanDecodeContext, PhysicalProtoConverterExtension,
};
use datafusion_proto::protobuf::{ArrowType, LogicalExprNode, PhysicalExprNode};
use prost::Message;

use super::exec::Placement;
use super::{LoadModelsExec, Predict, PredictExec};
use crate::catalog::ModelHandle;
use crate::files::{Files, FilesExec, FoundFile, ReadBlobExec, schema};
use crate::registry::RegisteredModel;
use crate::runtime::PredictRuntime;

/// What the bytes of a node or a function of ours begin with, so that no other codec takes them for its own; the last byte
/// is the number of the format.
const MAGIC: &[u8] = b"datafusion-predict\x01";

/// Writes plans with predictions as bytes, and reads them in another process.
///
/// A model is written as its handle: where its file is and how it is called, no file and no credentials. Reading loads
/// nothing. The process that reads needs the catalog's store, or the files where the plan's process had them.
///
/// ```
/// # use std::sync::Arc;
/// # use datafusion::prelude::SessionContext;
/// # use datafusion_predict::{PredictCodec, PredictExt, PredictRuntime, PredictSql};
/// # use datafusion_proto::bytes::{
/// #     physical_plan_from_bytes_with_extension_codec, physical_plan_to_bytes_with_extension_codec,
/// # };
/// # #[tokio::main] async fn main() -> datafusion::error::Result<()> {
/// let runtime = Arc::new(PredictRuntime::default());
/// let codec = PredictCodec::new(runtime.clone());
/// let context = SessionContext::new().with_predict(runtime);
/// context.predict_sql("CREATE MODEL m FROM 'tests/models/types/scalar_double.onnx'").await?;
/// let query = context.predict_sql("SELECT predict('m', column1) FROM (VALUES (1.0), (2.0))").await?;
/// let bytes = physical_plan_to_bytes_with_extension_codec(query.create_physical_plan().await?, &codec)?;
/// // … elsewhere, with a codec and a session of that process:
/// let plan = physical_plan_from_bytes_with_extension_codec(&bytes, &context.task_ctx(), &codec)?;
/// assert_eq!(datafusion::physical_plan::collect(plan, context.task_ctx()).await?[0].num_rows(), 2);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct PredictCodec {
    runtime: Arc<PredictRuntime>,
}

impl PredictCodec {
    /// A codec whose plans run with the models of `runtime`: that of the session in which they run.
    pub fn new(runtime: Arc<PredictRuntime>) -> Self {
        Self { runtime }
    }

    fn model(&self, json: &str) -> Result<RegisteredModel> {
        let handle = Arc::new(ModelHandle::from_json(json)?);
        Ok(RegisteredModel::new(handle, self.runtime.registry().clone()))
    }

    fn function_message(&self, function: &ModelFunction) -> Result<FunctionMessage> {
        let Some(model) = RegisteredModel::of(function.model()) else {
            return plan_err!("model '{}' is not one that can be sent", function.model().label());
        };
        let positions = function.positions();
        Ok(FunctionMessage {
            name: function.name().to_owned(),
            model: model.handle().to_json()?,
            on_failure: match function.on_failure() {
                OnFailure::Error => 0,
                OnFailure::Null => 1,
                OnFailure::Reason => 2,
            },
            has_positions: positions.is_some(),
            positions: positions.unwrap_or_default().iter().map(|position| *position as u64).collect(),
            guarded: function.is_guarded(),
            result: Some(ArrowType::try_from(function.result_type())?),
        })
    }

    fn function(&self, message: Option<FunctionMessage>) -> Result<ModelFunction> {
        let message = message.ok_or_else(incomplete)?;
        let model = Arc::new(self.model(&message.model)?);
        let on_failure = match message.on_failure {
            0 => OnFailure::Error,
            1 => OnFailure::Null,
            2 => OnFailure::Reason,
            _ => return Err(incomplete()),
        };
        let positions = message.has_positions.then(|| message.positions.iter().map(|it| *it as usize).collect());
        let result = message.result.as_ref().ok_or_else(incomplete)?.try_into()?;
        Ok(ModelFunction::from_parts(&message.name, model, on_failure, positions, message.guarded, result))
    }

    fn encode_udf(&self, function: &ScalarUDF, buf: &mut Vec<u8>) -> Result<()> {
        let inner = function.inner();
        let kind = if let Some(function) = inner.downcast_ref::<ModelFunction>() {
            udf_message::Kind::Model(self.function_message(function)?)
        } else if let Some(traffic) = inner.downcast_ref::<TrafficFunction>() {
            let shares = traffic.shares().to_vec();
            udf_message::Kind::Traffic(TrafficMessage { model: traffic.model().to_owned(), shares })
        } else if inner.is::<PlainFunction>() {
            udf_message::Kind::Plain(true)
        } else if inner.is::<CompareFunction>() {
            udf_message::Kind::Compare(true)
        } else {
            return Ok(()); // known by its name
        };
        write(&UdfMessage { kind: Some(kind) }, buf);
        Ok(())
    }

    fn decode_udf(&self, name: &str, buf: &[u8]) -> Result<Arc<ScalarUDF>> {
        let Some(message) = read::<UdfMessage>(buf)? else {
            return not_impl_err!("function '{name}' is none of a model");
        };
        let function = match message.kind.ok_or_else(incomplete)? {
            udf_message::Kind::Model(message) => ScalarUDF::new_from_impl(self.function(Some(message))?),
            udf_message::Kind::Traffic(TrafficMessage { model, shares }) => {
                ScalarUDF::new_from_impl(TrafficFunction::new(&model, shares))
            }
            udf_message::Kind::Plain(_) => ScalarUDF::new_from_impl(PlainFunction::default()),
            udf_message::Kind::Compare(_) => ScalarUDF::new_from_impl(CompareFunction::default()),
        };
        Ok(Arc::new(function))
    }
}

impl PhysicalExtensionCodec for PredictCodec {
    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        buf: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let node = node.as_ref() as &dyn Any;
        let kind = if let Some(predict) = node.downcast_ref::<PredictExec>() {
            let expr = |expr| serialize_physical_expr_with_converter(expr, self, converter);
            node_message::Kind::Predict(PredictMessage {
                function: Some(self.function_message(predict.function())?),
                features: predict.features().iter().map(expr).collect::<Result<_>>()?,
                condition: predict.condition().map(expr).transpose()?,
                output: predict.output_name().to_owned(),
                batch_size: predict.batch_size().map(|rows| rows as u64),
                placement: predict.placement().map(|placement| {
                    let (below, rows, instead_of) = match placement {
                        Placement::BelowJoin { rows, instead_of } => (true, rows, instead_of),
                        Placement::AboveJoin { rows, instead_of } => (false, rows, instead_of),
                    };
                    PlacementMessage { below, rows, instead_of }
                }),
            })
        } else if let Some(files) = node.downcast_ref::<FilesExec>() {
            node_message::Kind::Files(files_message(files))
        } else if let Some(read) = node.downcast_ref::<ReadBlobExec>() {
            let call = serialize_physical_expr_with_converter(&read.call().func, self, converter)?;
            let expr = |expr| serialize_physical_expr_with_converter(expr, self, converter);
            let condition = read.condition().map(expr).transpose()?;
            let name = read.call().name().to_owned();
            node_message::Kind::ReadBlob(ReadBlobMessage { name, call: Some(call), condition })
        } else if let Some(load) = node.downcast_ref::<LoadModelsExec>() {
            let models = load.models().iter().map(|model| model.handle().to_json());
            let models = models.collect::<crate::error::Result<_>>()?;
            node_message::Kind::LoadModels(LoadModelsMessage { models })
        } else {
            return not_impl_err!("a node that is none of datafusion-predict");
        };
        write(&NodeMessage { kind: Some(kind) }, buf);
        Ok(())
    }

    fn try_decode(
        &self,
        buf: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(message) = read::<NodeMessage>(buf)? else {
            return not_impl_err!("a node that is none of datafusion-predict");
        };
        match (message.kind.ok_or_else(incomplete)?, inputs) {
            (node_message::Kind::Files(message), []) => files_exec(message),
            (node_message::Kind::ReadBlob(message), [input]) => {
                let decoding = PhysicalPlanDecodeContext::new(context, self);
                let call = message.call.as_ref().ok_or_else(incomplete)?;
                let call = parse_physical_expr_with_converter(call, &input.schema(), &decoding, converter)?;
                let call = AsyncFuncExpr::try_new(message.name, call, &input.schema())?;
                let condition = message.condition.as_ref();
                let condition = condition
                    .map(|expr| parse_physical_expr_with_converter(expr, &input.schema(), &decoding, converter))
                    .transpose()?;
                Ok(Arc::new(ReadBlobExec::new(input.clone(), Arc::new(call))?.with_condition(condition)))
            }
            (node_message::Kind::Predict(message), [input]) => {
                let schema: SchemaRef = input.schema();
                let decoding = PhysicalPlanDecodeContext::new(context, self);
                let expr =
                    |expr: &PhysicalExprNode| parse_physical_expr_with_converter(expr, &schema, &decoding, converter);
                let function = self.function(message.function)?;
                let features: Vec<_> = message.features.iter().map(expr).collect::<Result<_>>()?;
                let types = features.iter().map(|feature| feature.data_type(&schema)).collect::<Result<Vec<_>>>()?;
                function.model().check_arguments(&types)?;
                let condition = message.condition.as_ref().map(expr).transpose()?;
                let mut exec = PredictExec::try_new(input.clone(), function, features, condition, &message.output)?;
                if let Some(rows) = message.batch_size {
                    exec = exec.with_batch_size(rows as usize);
                }
                if let Some(PlacementMessage { below, rows, instead_of }) = message.placement {
                    exec = exec.with_placement(if below {
                        Placement::BelowJoin { rows, instead_of }
                    } else {
                        Placement::AboveJoin { rows, instead_of }
                    });
                }
                Ok(Arc::new(exec))
            }
            (node_message::Kind::LoadModels(message), [input]) => {
                let models = message.models.iter().map(|json| self.model(json)).collect::<Result<_>>()?;
                Ok(Arc::new(LoadModelsExec::new(input.clone(), models)))
            }
            (_, inputs) => exec_err!("a node of datafusion-predict was sent with {} inputs", inputs.len()),
        }
    }

    fn try_encode_udf(&self, function: &ScalarUDF, buf: &mut Vec<u8>) -> Result<()> {
        self.encode_udf(function, buf)
    }

    fn try_decode_udf(&self, name: &str, buf: &[u8]) -> Result<Arc<ScalarUDF>> {
        self.decode_udf(name, buf)
    }
}

impl LogicalExtensionCodec for PredictCodec {
    fn try_encode(&self, node: &Extension, buf: &mut Vec<u8>) -> Result<()> {
        let Some(predict) = node.node.as_any().downcast_ref::<Predict>() else {
            return not_impl_err!("a node that is none of datafusion-predict");
        };
        let function = predict.function().inner().downcast_ref::<ModelFunction>().ok_or_else(incomplete)?;
        let message = LogicalMessage {
            function: Some(self.function_message(function)?),
            arguments: serialize_exprs(predict.arguments(), self)?,
            condition: serialize_exprs(predict.condition(), self)?,
            output: predict.output().to_owned(),
        };
        write(&message, buf);
        Ok(())
    }

    fn try_decode(&self, buf: &[u8], inputs: &[LogicalPlan], context: &TaskContext) -> Result<Extension> {
        let Some(message) = read::<LogicalMessage>(buf)? else {
            return not_impl_err!("a node that is none of datafusion-predict");
        };
        let [input] = inputs else { return exec_err!("a node of datafusion-predict has one input") };
        let function = Arc::new(ScalarUDF::new_from_impl(self.function(message.function)?));
        let arguments = parse_exprs(&message.arguments, context, self)?;
        let condition = parse_exprs(&message.condition, context, self)?.pop();
        let node = Predict::try_new(input.clone(), function, arguments, condition, message.output)?;
        Ok(Extension { node: Arc::new(node) })
    }

    fn try_encode_table_provider(
        &self,
        table: &TableReference,
        provider: Arc<dyn TableProvider>,
        buf: &mut Vec<u8>,
    ) -> Result<()> {
        if let Some(files) = (provider.as_ref() as &dyn Any).downcast_ref::<Files>() {
            write(&TableMessage { pattern: files.pattern().to_owned() }, buf);
            return Ok(());
        }
        not_impl_err!("table '{table}' can't be sent: DataFusion's codec knows tables of files only")
    }

    fn try_decode_table_provider(
        &self,
        buf: &[u8],
        table: &TableReference,
        _schema: Arc<Schema>,
        _context: &TaskContext,
    ) -> Result<Arc<dyn TableProvider>> {
        match read::<TableMessage>(buf)? {
            Some(message) => Ok(Arc::new(Files::new(message.pattern))),
            None => not_impl_err!("table '{table}' was not sent by datafusion-predict"),
        }
    }

    fn try_encode_udf(&self, function: &ScalarUDF, buf: &mut Vec<u8>) -> Result<()> {
        self.encode_udf(function, buf)
    }

    fn try_decode_udf(&self, name: &str, buf: &[u8]) -> Result<Arc<ScalarUDF>> {
        self.decode_udf(name, buf)
    }
}

fn write(message: &impl Message, buf: &mut Vec<u8>) {
    buf.extend_from_slice(MAGIC);
    buf.extend_from_slice(&message.encode_to_vec());
}

/// The message in `buf`; `None` if it is none of ours.
fn read<M: Message + Default>(buf: &[u8]) -> Result<Option<M>> {
    let Some(bytes) = buf.strip_prefix(MAGIC) else { return Ok(None) };
    match M::decode(bytes) {
        Ok(message) => Ok(Some(message)),
        Err(cause) => Err(DataFusionError::External(Box::new(cause))),
    }
}

fn incomplete() -> DataFusionError {
    DataFusionError::Plan("a plan with predictions that was sent here is incomplete".to_owned())
}

/// A call of a model.
#[derive(Clone, PartialEq, Message)]
struct FunctionMessage {
    #[prost(string, tag = "1")]
    name: String,
    /// The handle.
    #[prost(string, tag = "2")]
    model: String,
    /// What becomes of a row that can't be scored: the query fails, NULL, NULL with a reason.
    #[prost(uint32, tag = "3")]
    on_failure: u32,
    #[prost(bool, tag = "4")]
    has_positions: bool,
    #[prost(uint64, repeated, tag = "5")]
    positions: Vec<u64>,
    #[prost(bool, tag = "6")]
    guarded: bool,
    #[prost(message, optional, tag = "7")]
    result: Option<ArrowType>,
}

#[derive(Clone, PartialEq, Message)]
struct TrafficMessage {
    #[prost(string, tag = "1")]
    model: String,
    #[prost(uint32, repeated, tag = "2")]
    shares: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct UdfMessage {
    #[prost(oneof = "udf_message::Kind", tags = "1, 2, 3, 4")]
    kind: Option<udf_message::Kind>,
}

mod udf_message {
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Kind {
        #[prost(message, tag = "1")]
        Model(super::FunctionMessage),
        #[prost(message, tag = "2")]
        Traffic(super::TrafficMessage),
        #[prost(bool, tag = "3")]
        Plain(bool),
        #[prost(bool, tag = "4")]
        Compare(bool),
    }
}

#[derive(Clone, PartialEq, Message)]
struct NodeMessage {
    #[prost(oneof = "node_message::Kind", tags = "1, 2, 3, 4")]
    kind: Option<node_message::Kind>,
}

mod node_message {
    #[expect(clippy::large_enum_variant, reason = "there is one for a moment")]
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Kind {
        #[prost(message, tag = "1")]
        Predict(super::PredictMessage),
        #[prost(message, tag = "2")]
        LoadModels(super::LoadModelsMessage),
        #[prost(message, tag = "3")]
        Files(super::FilesMessage),
        #[prost(message, tag = "4")]
        ReadBlob(super::ReadBlobMessage),
    }
}

/// A [`PredictExec`], without its input.
#[derive(Clone, PartialEq, Message)]
struct PredictMessage {
    #[prost(message, optional, tag = "1")]
    function: Option<FunctionMessage>,
    #[prost(message, repeated, tag = "2")]
    features: Vec<PhysicalExprNode>,
    #[prost(message, optional, tag = "3")]
    condition: Option<PhysicalExprNode>,
    #[prost(string, tag = "4")]
    output: String,
    #[prost(uint64, optional, tag = "5")]
    batch_size: Option<u64>,
    #[prost(message, optional, tag = "6")]
    placement: Option<PlacementMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct PlacementMessage {
    #[prost(bool, tag = "1")]
    below: bool,
    #[prost(double, tag = "2")]
    rows: f64,
    #[prost(double, tag = "3")]
    instead_of: f64,
}

#[derive(Clone, PartialEq, Message)]
struct LoadModelsMessage {
    /// The handles.
    #[prost(string, repeated, tag = "1")]
    models: Vec<String>,
}

/// A [`FilesExec`].
#[derive(Clone, PartialEq, Message)]
struct FilesMessage {
    /// The URL of the store.
    #[prost(string, tag = "1")]
    store: String,
    #[prost(string, repeated, tag = "2")]
    columns: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    partitions: Vec<PartitionMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct PartitionMessage {
    #[prost(message, repeated, tag = "1")]
    files: Vec<FileMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct FileMessage {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(string, tag = "2")]
    location: String,
    #[prost(uint64, tag = "3")]
    size: u64,
    /// Milliseconds since 1970.
    #[prost(int64, tag = "4")]
    modified: i64,
}

fn files_message(files: &FilesExec) -> FilesMessage {
    let file = |file: &FoundFile| FileMessage {
        path: file.path.clone(),
        location: file.location.to_string(),
        size: file.size,
        modified: file.modified,
    };
    let partitions = files.partitions().iter();
    FilesMessage {
        store: files.store().to_string(),
        columns: files.schema().fields().iter().map(|field| field.name().clone()).collect(),
        partitions: partitions.map(|files| PartitionMessage { files: files.iter().map(file).collect() }).collect(),
    }
}

fn files_exec(message: FilesMessage) -> Result<Arc<dyn ExecutionPlan>> {
    let file = |file: FileMessage| {
        let location = object_store::path::Path::parse(&file.location).map_err(|_| incomplete())?;
        Ok(FoundFile { path: file.path, location, size: file.size, modified: file.modified })
    };
    let files = |partition: PartitionMessage| partition.files.into_iter().map(file).collect::<Result<_>>();
    let partitions = message.partitions.into_iter().map(files).collect::<Result<_>>()?;
    let columns = message.columns.iter().map(|column| Ok(schema().index_of(column)?)).collect::<Result<Vec<_>>>()?;
    let store = message.store.parse().map_err(|_| incomplete())?;
    Ok(Arc::new(FilesExec::new(store, partitions, Arc::new(schema().project(&columns)?))))
}

/// A [`ReadBlobExec`], without its input.
#[derive(Clone, PartialEq, Message)]
struct ReadBlobMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    call: Option<PhysicalExprNode>,
    /// For which rows a file is read.
    #[prost(message, optional, tag = "3")]
    condition: Option<PhysicalExprNode>,
}

/// A table of files.
#[derive(Clone, PartialEq, Message)]
struct TableMessage {
    #[prost(string, tag = "1")]
    pattern: String,
}

/// A [`Predict`] node, without its input.
#[derive(Clone, PartialEq, Message)]
struct LogicalMessage {
    #[prost(message, optional, tag = "1")]
    function: Option<FunctionMessage>,
    #[prost(message, repeated, tag = "2")]
    arguments: Vec<LogicalExprNode>,
    /// One, or none.
    #[prost(message, repeated, tag = "3")]
    condition: Vec<LogicalExprNode>,
    #[prost(string, tag = "4")]
    output: String,
}
