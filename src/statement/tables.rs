//! The catalog as tables, `predict.models`, `predict.versions`, `predict.features` and `predict.history`; what this process has
//! loaded of it, `predict.loaded`; and its jobs, `predict.jobs`, `predict.job_runs`, `predict.job_splits` and
//! `predict.job_errors`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Int64Array, ListBuilder, MapBuilder, MapFieldNames, RecordBatch, StringArray,
    StringBuilder, TimestampMicrosecondArray, UInt64Array,
};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::catalog::{SchemaProvider, Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, exec_err};
use datafusion::datasource::source_as_provider;
use datafusion::logical_expr::{Expr, LogicalPlan, Statement, TableType};
use datafusion::physical_plan::ExecutionPlan;

use super::job_rows::{self, JobView};
use crate::catalog::{CatalogSnapshot, HistoryEntry, ModelEntry, ModelVersion};
use crate::registry::LoadedModel;
use crate::runtime::PredictRuntime;

/// The schema that holds the tables.
#[derive(Debug)]
pub(crate) struct CatalogSchema {
    runtime: Arc<PredictRuntime>,
}

impl CatalogSchema {
    /// Its name in a session's default catalog.
    pub(crate) const NAME: &str = "predict";

    pub(crate) fn new(runtime: Arc<PredictRuntime>) -> Self {
        Self { runtime }
    }
}

#[async_trait]
impl SchemaProvider for CatalogSchema {
    fn table_names(&self) -> Vec<String> {
        Kind::ALL.iter().map(|kind| kind.name().to_owned()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.name() == name) else { return Ok(None) };
        let schema = kind.batch(&Contents::default(), &self.runtime)?.schema();
        Ok(Some(Arc::new(CatalogTable { kind, schema, runtime: self.runtime.clone() })))
    }

    fn table_exist(&self, name: &str) -> bool {
        Kind::ALL.iter().any(|kind| kind.name() == name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Models,
    Versions,
    Features,
    History,
    Loaded,
    Jobs,
    JobRuns,
    JobSplits,
    JobErrors,
}

/// What the tables are made of.
#[derive(Default)]
struct Contents {
    snapshot: Arc<CatalogSnapshot>,
    history: Vec<HistoryEntry>,
    jobs: Vec<JobView>,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Models,
        Self::Versions,
        Self::Features,
        Self::History,
        Self::Loaded,
        Self::Jobs,
        Self::JobRuns,
        Self::JobSplits,
        Self::JobErrors,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Models => "models",
            Self::Versions => "versions",
            Self::Features => "features",
            Self::History => "history",
            Self::Loaded => "loaded",
            Self::Jobs => "jobs",
            Self::JobRuns => "job_runs",
            Self::JobSplits => "job_splits",
            Self::JobErrors => "job_errors",
        }
    }

    /// What the table needs, as it is now.
    async fn contents(self, runtime: &PredictRuntime) -> Result<Contents> {
        let catalog = runtime.catalog();
        let with_splits = matches!(self, Self::JobSplits | Self::JobErrors);
        Ok(Contents {
            snapshot: catalog.snapshot(),
            history: if self == Self::History { catalog.history().await? } else { vec![] },
            jobs: match self {
                Self::Jobs | Self::JobRuns | Self::JobSplits | Self::JobErrors => {
                    JobView::all(runtime, with_splits).await?
                }
                _ => vec![],
            },
        })
    }

    fn batch(self, Contents { snapshot, history, jobs }: &Contents, runtime: &PredictRuntime) -> Result<RecordBatch> {
        match self {
            Self::Models => models(snapshot),
            Self::Versions => versions(snapshot.models().flat_map(of_model), runtime),
            Self::Features => features(snapshot),
            Self::History => history_rows(history),
            Self::Loaded => loaded(&runtime.registry().loaded()),
            Self::Jobs => job_rows::jobs(jobs),
            Self::JobRuns => job_rows::runs(jobs),
            Self::JobSplits => job_rows::splits(jobs),
            Self::JobErrors => job_rows::errors(jobs),
        }
    }
}

/// One of the tables, as the catalog is when it is scanned.
#[derive(Debug)]
struct CatalogTable {
    kind: Kind,
    schema: SchemaRef,
    runtime: Arc<PredictRuntime>,
}

#[async_trait]
impl TableProvider for CatalogTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        _session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let contents = self.kind.contents(&self.runtime).await?;
        let batch = self.kind.batch(&contents, &self.runtime)?;
        let plan = MemorySourceConfig::try_new_exec(&[vec![batch]], self.schema.clone(), projection.cloned())?;
        Ok(plan)
    }
}

/// Whether running `plan` looks at the catalog: it reads one of the tables, or executes a prepared statement.
pub(super) fn are_read(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|plan| {
        found = match plan {
            LogicalPlan::Statement(Statement::Execute(_)) => true,
            LogicalPlan::TableScan(scan) => source_as_provider(&scan.source)
                .is_ok_and(|provider| (provider.as_ref() as &dyn std::any::Any).is::<CatalogTable>()),
            _ => false,
        };
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// A model's versions, each with the model.
pub(super) fn of_model(model: &Arc<ModelEntry>) -> impl Iterator<Item = (&ModelEntry, &ModelVersion)> {
    model.versions.values().map(|version| (model.as_ref(), version.as_ref()))
}

fn models(snapshot: &CatalogSnapshot) -> Result<RecordBatch> {
    let models: Vec<_> = snapshot.models().map(Arc::as_ref).collect();
    let aliases = models.iter().map(|model| model.aliases.iter().map(|(alias, to)| (alias.clone(), to.to_string())));
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("name", texts(models.iter().map(|model| model.name.as_str())), false),
        ("version", numbers(models.iter().map(|model| model.default_version().map(|it| it.version))), true),
        ("versions", numbers(models.iter().map(|model| Some(model.versions.len() as u64))), false),
        ("aliases", map(aliases)?, false),
        ("traffic", optional_texts(models.iter().map(|model| model.traffic.as_ref().map(ToString::to_string))), true),
        ("comment", optional_texts(models.iter().map(|model| model.comment.clone())), true),
        ("tags", map(models.iter().map(|model| model.tags.clone().into_iter()))?, false),
    ])?)
}

/// A row for each version.
pub(super) fn versions<'a>(
    versions: impl Iterator<Item = (&'a ModelEntry, &'a ModelVersion)>,
    runtime: &PredictRuntime,
) -> Result<RecordBatch> {
    let (models, versions): (Vec<_>, Vec<_>) = versions.unzip();
    let loaded: Vec<_> = versions.iter().map(|version| runtime.registry().peek(version)).collect();
    let mut aliases = ListBuilder::new(StringBuilder::new());
    for (model, version) in models.iter().zip(&versions) {
        for alias in model.aliases_of(version.version) {
            aliases.values().append_value(alias);
        }
        aliases.append(true);
    }
    let text = |value: fn(&'a ModelVersion) -> &'a str| texts(versions.iter().map(move |version| value(version)));
    let options = versions.iter().map(|version| BTreeMap::from(version.record.options.clone()).into_iter());
    let engines = loaded.iter().map(|it| it.as_ref().map(|predictor| predictor.engine().to_owned()));
    let devices = loaded.iter().map(|it| it.as_ref().map(|predictor| predictor.device()));
    let memory = loaded.iter().map(|it| it.as_ref().map(|predictor| predictor.memory()));
    let is_default = |(model, version): (&&ModelEntry, &&ModelVersion)| {
        model.default_version().is_some_and(|default| default.version == version.version)
    };
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("model", text(|version| &version.model), false),
        ("version", numbers(versions.iter().map(|version| Some(version.version))), false),
        ("is_default", flags(models.iter().zip(&versions).map(is_default)), false),
        ("aliases", Arc::new(aliases.finish()), false),
        ("created_at", times(versions.iter().map(|version| version.created_at)), false),
        ("created_by", text(|version| &version.created_by), false),
        ("uri", text(|version| &version.record.uri), false),
        ("sha256", text(|version| &version.record.sha256), false),
        ("size", numbers(versions.iter().map(|version| Some(version.record.size))), false),
        ("copied", flags(versions.iter().map(|version| version.record.copied)), false),
        ("producer", text(|version| &version.record.producer), false),
        ("opset", text(|version| &version.record.opset), false),
        ("options", map(options)?, false),
        ("returns", optional_texts(versions.iter().map(|version| version.interface.returns.clone())), true),
        ("comment", optional_texts(versions.iter().map(|version| version.comment.clone())), true),
        ("tags", map(versions.iter().map(|version| version.tags.clone().into_iter()))?, false),
        ("engine", optional_texts(engines), true),
        ("device", optional_texts(devices), true),
        ("bytes_in_memory", numbers(memory), true),
    ])?)
}

fn features(snapshot: &CatalogSnapshot) -> Result<RecordBatch> {
    let versions = snapshot.models().flat_map(|model| model.versions.values());
    let features: Vec<_> = versions
        .flat_map(|version| version.interface.features.iter().enumerate().map(move |feature| (version, feature)))
        .collect();
    let positions = features.iter().map(|(_, (i, _))| Some(*i as u64 + 1));
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("model", texts(features.iter().map(|(version, _)| version.model.as_str())), false),
        ("version", numbers(features.iter().map(|(version, _)| Some(version.version))), false),
        ("position", numbers(positions), false),
        ("name", optional_texts(features.iter().map(|(_, (_, feature))| feature.name.clone())), true),
        ("type", texts(features.iter().map(|(_, (_, feature))| feature.value_type.as_str())), false),
    ])?)
}

/// What this process has in memory, a row for each version and engine.
fn loaded(models: &[LoadedModel]) -> Result<RecordBatch> {
    let text = |value: fn(&LoadedModel) -> &str| texts(models.iter().map(value));
    let devices = models.iter().map(|model| Some(model.predictor.device()));
    let micros = |model: &LoadedModel| {
        let since = model.last_use.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    };
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("model", text(|model| model.handle.name()), false),
        ("version", numbers(models.iter().map(|model| model.handle.version())), true),
        ("engine", text(|model| model.predictor.engine()), false),
        ("device", optional_texts(devices), false),
        ("sessions", numbers(models.iter().map(|model| Some(model.predictor.sessions() as u64))), false),
        ("bytes", numbers(models.iter().map(|model| Some(model.predictor.memory()))), false),
        ("last_use", times(models.iter().map(micros)), false),
    ])?)
}

fn history_rows(history: &[HistoryEntry]) -> Result<RecordBatch> {
    let text = |value: fn(&HistoryEntry) -> Option<String>| optional_texts(history.iter().map(value));
    let Ok(sequences) =
        history.iter().map(|entry| i64::try_from(entry.sequence)).collect::<std::result::Result<Vec<_>, _>>()
    else {
        return exec_err!("the history has commits beyond what a table can number");
    };
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("sequence", Arc::new(Int64Array::from(sequences)) as ArrayRef, false),
        ("at", times(history.iter().map(|entry| entry.at)), false),
        ("who", texts(history.iter().map(|entry| entry.by.as_str())), false),
        ("action", texts(history.iter().map(|entry| entry.action.as_str())), false),
        ("model", texts(history.iter().map(|entry| entry.model.as_str())), false),
        ("version", numbers(history.iter().map(|entry| entry.version)), true),
        ("name", text(|entry| entry.name.clone()), true),
        ("from_value", text(|entry| entry.from.clone()), true),
        ("to_value", text(|entry| entry.to.clone()), true),
    ])?)
}

pub(super) fn texts<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(values.map(Some).collect::<StringArray>())
}

pub(super) fn optional_texts(values: impl Iterator<Item = Option<String>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

pub(super) fn numbers(values: impl Iterator<Item = Option<u64>>) -> ArrayRef {
    Arc::new(values.collect::<UInt64Array>())
}

fn flags(values: impl Iterator<Item = bool>) -> ArrayRef {
    Arc::new(values.map(Some).collect::<BooleanArray>())
}

pub(super) fn times(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(values.map(Some).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

pub(super) fn map(rows: impl Iterator<Item = impl Iterator<Item = (String, String)>>) -> Result<ArrayRef> {
    let names = MapFieldNames { entry: "entries".into(), key: "key".into(), value: "value".into() };
    let mut builder = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
    for row in rows {
        for (key, value) in row {
            builder.keys().append_value(key);
            builder.values().append_value(value);
        }
        builder.append(true)?;
    }
    Ok(Arc::new(builder.finish()))
}
