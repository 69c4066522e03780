//! Machine-learning inference inside SQL: ONNX models as functions of [Apache DataFusion](datafusion).
//!
//! ```text
//!  SQL text ─► statement ─► logical plan ───────────────► physical plan ─────────────────► record batches
//!               CREATE MODEL  predict('m', …)  ──extract──► Predict node ──► PredictExec
//!                  │            │ return type from                            coalesce to the model's batch
//!                  ▼            │ the model's signature                       encode   Arrow → tensors
//!               catalog ◄───────┘                                             run      engine (native, ONNX Runtime …)
//!               name → Model (bytes, sha256, signature)                       decode   tensors → Arrow, append columns
//! ```
//!
//! ```no_run
//! use std::sync::Arc;
//! use datafusion::prelude::{ParquetReadOptions, SessionContext};
//! use datafusion_predict::{PredictExt, PredictRuntime, PredictSql};
//!
//! # #[tokio::main] async fn main() -> datafusion::error::Result<()> {
//! let ctx = SessionContext::new().with_predict(Arc::new(PredictRuntime::default()));
//! ctx.register_parquet("customers", "customers.parquet", ParquetReadOptions::default()).await?;
//! ctx.predict_sql("CREATE MODEL churn FROM 'churn.onnx'").await?;
//! ctx.predict_sql("SELECT id, predict('churn', customers.*) FROM customers").await?.show().await?;
//! # Ok(()) }
//! ```

mod background;
mod catalog;
mod config;
mod engine;
mod error;
mod model;
mod optimizer;
mod plan;
mod predictor;
mod registry;
mod resolver;
mod runtime;
mod session;
mod source;
mod statement;
mod storage;
mod tensor;

pub use catalog::{
    CatalogSnapshot, Change, Committed, DEFAULT_ALIAS, Feature, HistoryEntry, Interface, ModelCatalog, ModelEntry,
    ModelFiles, ModelHandle, ModelReference, ModelVersion, ObjectStoreCatalog, Readiness, TensorNote, Traffic,
    VersionRecord, VersionReference,
};
pub use config::{ByteSize, PredictConfig};
pub use engine::ort::{OrtEngine, runtime_folder};
pub use engine::{
    CancelOnDrop, CancelToken, Columnar, CoreBudget, Cores, Device, Engine, Executable, LoadRequest, Loaded,
    NativeEngine, RunContext,
};
pub use error::{Error, ErrorKind, Result};
pub use model::{ClassLabels, Dimension, Labels, Metadata, Model, ModelOptions, NullPolicy, Signature, TensorSpec};
#[cfg(feature = "proto")]
pub use plan::PredictCodec;
pub use plan::{LoadModelsExec, Predict, PredictExec, PredictExtensionPlanner, PredictQueryPlanner};
pub use predictor::Predictor;
pub use registry::RegisteredModel;
pub use runtime::PredictRuntime;
pub use session::{PredictExt, PredictSql};
pub use statement::{CreateModel, CreateOptions, PredictStatement, parse_sql, run_statement};
pub use storage::{DiskCache, Download, StorageOptions};
pub use tensor::{ElementType, Tensor, TensorData};
