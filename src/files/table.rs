//! `SELECT * FROM files('photos/*.jpg')`: files as rows.

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::{Session, TableFunctionImpl, TableProvider};
use datafusion::common::cast::as_boolean_array;
use datafusion::common::{DFSchema, Result as DFResult, ScalarValue, plan_err};
use datafusion::datasource::listing::ListingTableUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use futures::TryStreamExt;
use object_store::ObjectMeta;

use super::exec::FilesExec;
use super::place::Place;
use crate::config::PredictConfig;

/// The column with what is in a file; the others are known without reading it.
pub(super) const CONTENT: &str = "content";

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("path", DataType::Utf8, false),
        Field::new("size", DataType::Int64, false),
        Field::new("modified", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), false),
        Field::new(CONTENT, DataType::BinaryView, false),
    ]))
});

/// One of the files.
#[derive(Debug, Clone)]
pub(super) struct FoundFile {
    /// As the pattern would name it.
    pub path: String,
    pub place: Place,
    pub size: u64,
    pub modified: i64,
}

/// The function `files`.
#[derive(Debug)]
pub(crate) struct FilesFunction;

impl FilesFunction {
    pub(crate) const NAME: &'static str = "files";
}

impl TableFunctionImpl for FilesFunction {
    fn call(&self, args: &[Expr]) -> DFResult<Arc<dyn TableProvider>> {
        match args {
            [Expr::Literal(ScalarValue::Utf8(Some(pattern)) | ScalarValue::Utf8View(Some(pattern)), _)] => {
                Ok(Arc::new(Files { pattern: pattern.clone() }))
            }
            _ => plan_err!("files('photos/*.jpg') takes one text: a file, a folder with '/' behind it, or a pattern"),
        }
    }
}

/// The files that a pattern names when a query is planned.
#[derive(Debug)]
struct Files {
    pattern: String,
}

#[async_trait]
impl TableProvider for Files {
    fn schema(&self) -> SchemaRef {
        SCHEMA.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    /// Conditions on names, sizes and times leave files out before any is read.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DFResult<Vec<TableProviderFilterPushDown>> {
        let known = |filter: &&Expr| {
            let reads = filter.column_refs().iter().any(|column| column.name() == CONTENT);
            if reads || filter.is_volatile() {
                TableProviderFilterPushDown::Unsupported
            } else {
                TableProviderFilterPushDown::Exact
            }
        };
        Ok(filters.iter().map(known).collect())
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DFResult<Arc<dyn ExecutionPlan>> {
        let mut files = found(&self.pattern, session).await?;
        if let Some(condition) = conjunction(filters.to_vec()) {
            let schema = DFSchema::try_from(SCHEMA.as_ref().clone())?;
            let condition = session.create_physical_expr(condition, &schema)?;
            let batch = known_columns(&files)?;
            let kept = condition.evaluate(&batch)?.into_array(batch.num_rows())?;
            let kept = as_boolean_array(&kept)?;
            let mut kept = kept.iter().map(|kept| kept == Some(true));
            files.retain(|_| kept.next() == Some(true));
        }
        files.truncate(limit.unwrap_or(usize::MAX));
        let schema = match projection {
            Some(columns) => Arc::new(SCHEMA.project(columns)?),
            None => SCHEMA.clone(),
        };
        let most = PredictConfig::of(session.config_options()).largest_blob.0;
        Ok(Arc::new(FilesExec::new(files, schema, session.config().target_partitions(), most)))
    }
}

/// All columns of `files`; of the contents, which nothing reads here, no bytes.
fn known_columns(files: &[FoundFile]) -> DFResult<RecordBatch> {
    let mut columns: Vec<ArrayRef> = vec![];
    for field in SCHEMA.fields() {
        columns.push(match field.name().as_str() {
            CONTENT => super::content::column(files.iter().map(|_| Some(bytes::Bytes::new())).collect())?,
            name => known_column(name, files),
        });
    }
    Ok(RecordBatch::try_new(SCHEMA.clone(), columns)?)
}

/// The column `name` of `files`, one that needs nothing to be read.
pub(super) fn known_column(name: &str, files: &[FoundFile]) -> ArrayRef {
    match name {
        "path" => Arc::new(StringArray::from_iter_values(files.iter().map(|file| &file.path))),
        "size" => Arc::new(Int64Array::from_iter_values(files.iter().map(|file| file.size as i64))),
        _ => {
            let times = TimestampMillisecondArray::from_iter_values(files.iter().map(|file| file.modified));
            Arc::new(times.with_timezone("UTC"))
        }
    }
}

/// The files that `pattern` names, by their names.
async fn found(pattern: &str, session: &dyn Session) -> DFResult<Vec<FoundFile>> {
    let url = ListingTableUrl::parse(pattern)?;
    let store = super::place::place(url.object_store().as_str(), session.runtime_env())?.store;
    let listed: Vec<ObjectMeta> = url.list_all_files(session, store.as_ref(), "").await?.try_collect().await?;
    let is_url = pattern.contains("://");
    let here = std::env::current_dir().ok().filter(|_| !is_url && !std::path::Path::new(pattern).is_absolute());
    let name = |location: &object_store::path::Path| {
        if is_url {
            return format!("{}{location}", url.object_store().as_str());
        }
        let path = format!("/{location}");
        let inside = here.as_ref().and_then(|here| std::path::Path::new(&path).strip_prefix(here).ok());
        inside.and_then(|inside| inside.to_str()).map_or(path.clone(), str::to_owned)
    };
    let mut files: Vec<_> = listed
        .into_iter()
        .map(|meta| FoundFile {
            path: name(&meta.location),
            size: meta.size,
            modified: meta.last_modified.timestamp_millis(),
            place: Place { store: store.clone(), path: meta.location },
        })
        .collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}
