//! Machine-learning inference inside SQL: ONNX models as functions of [Apache DataFusion](datafusion).
//!
//! ```text
//!  SQL text ─► statement ─► logical plan ───────────────► physical plan ─────────────────► record batches
//!               CREATE MODEL  predict('m', …)  ──extract──► Predict node ──► PredictExec
//!                  │            │ type from the                               load    handle → model, once a process
//!                  ▼            │ handle's signature                          batch   by rows and bytes
//!               catalog ◄───────┘                                             encode  Arrow → tensors
//!               name@version → ModelHandle (a value:                          run     engine (native, ONNX Runtime …)
//!               uri, sha256, typed signature, options)                        decode  tensors → Arrow, append columns
//! ```
//!
//! ```
//! use std::sync::Arc;
//! use datafusion::prelude::{ParquetReadOptions, SessionContext};
//! use datafusion_predict::{PredictExt, PredictRuntime, PredictSql};
//!
//! # #[tokio::main] async fn main() -> datafusion::error::Result<()> {
//! let ctx = SessionContext::new().with_predict(Arc::new(PredictRuntime::default()));
//! ctx.register_parquet("patients", "tests/models/sklearn/diabetes_forest.parquet", ParquetReadOptions::default()).await?;
//! ctx.predict_sql("CREATE MODEL progression FEATURES (age, sex, bmi, bp, s1, s2, s3, s4, s5, s6)
//!     FROM 'tests/models/sklearn/diabetes_forest.onnx'").await?;
//! let scored = ctx.predict_sql("SELECT predict('progression', patients.*) FROM patients").await?;
//! assert_eq!(scored.count().await?, 442);
//! # Ok(()) }
//! ```
//!
//! [`PredictExt`] and [`PredictSql`] wire models into a session; [`PredictRuntime`] is what sessions share; [`Engine`] is what
//! runs a model, and [`ModelCatalog`] where models are kept, both open for implementations of your own.

mod background;
mod byte_size;
mod call;
mod cancel;
mod catalog;
mod config;
mod encode;
mod engine;
mod error;
mod fetch;
mod files;
#[cfg(feature = "images")]
mod functions;
mod job;
mod optimizer;
mod plan;
mod registry;
mod remembered;
mod resolver;
mod runtime;
mod scoring;
mod session;
mod statement;
mod storage;

// Sessions and their SQL.
pub use byte_size::ByteSize;
pub use config::PredictConfig;
pub use error::{Error, ErrorKind, Result};
pub use runtime::{CreateModel, CreateOptions, PredictRuntime, PredictRuntimeBuilder};
pub use session::{PredictExt, PredictSql};
pub use statement::{PredictStatement, job_summary, parse_sql, run_statement};

// Models as data, and how they are called.
pub use call::{
    DependentRows, FeatureName, GivenLabels, ImageOptions, ModelOptions, NullPolicy, OnLongText, Pooling, TextOptions,
};
/// Models as data, and the engine that needs no library, for who uses them alone.
pub use datafusion_predict_native as native;
pub use datafusion_predict_native::{
    ClassLabels, Dimension, ElementType, Labels, Metadata, Model, ModelFiles, Precision, Signature, Tensor, TensorData,
    TensorSpec,
};
pub use encode::BytesTaken;
pub use registry::{ModelTotals, RegisteredModel};
pub use scoring::Predictor;

// Where models are kept.
pub use catalog::{
    CatalogSnapshot, Change, Committed, DEFAULT_ALIAS, Feature, HistoryEntry, Interface, ModelCatalog, ModelEntry,
    ModelHandle, ModelReference, ModelVersion, ObjectStoreCatalog, Readiness, TensorNote, Traffic, VersionRecord,
    VersionReference,
};
pub use storage::{DiskCache, Download, StorageOptions, StoreFolder};

// Queries that are run again and again.
pub use job::{
    Column, CreateJob, FileError, FilesDefinition, InputFile, Job, JobDefinition, JobEvent, JobOptions, JobRun,
    OnFileError, OnLookupChange, OnRowError, OutputFile, RunModel, RunReason, RunStatus, RunSummary, SplitRecord,
    TableDefinition, TableKind,
};

// What runs them.
pub use cancel::{CancelOnDrop, CancelToken};
#[cfg(feature = "onnxruntime")]
pub use engine::ort::{OrtEngine, onnxruntime_folder};
pub use engine::{
    Columnar, CoreBudget, CoreLease, Cores, Device, DeviceQueue, Devices, Engine, Executable, NativeEngine, Placement,
    PluginDevice, PrepareRequest, Prepared, RunContext, RunCounts,
};

// Plans.
#[cfg(feature = "proto")]
pub use plan::PredictCodec;
pub use plan::{LoadModelsExec, Predict, PredictExec, PredictExtensionPlanner, PredictQueryPlanner};
