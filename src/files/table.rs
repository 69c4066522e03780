//! `SELECT * FROM files('photos/*.jpg')`: files as rows.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::{Session, TableFunctionImpl, TableProvider};
use datafusion::common::cast::as_boolean_array;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{DFSchema, Result as DFResult, ScalarValue, plan_err};
use datafusion::datasource::listing::ListingTableUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType, Volatility};
use datafusion::physical_plan::ExecutionPlan;
use futures::TryStreamExt;
use glob::{MatchOptions, Pattern};
use object_store::{ObjectStore, ObjectStoreExt};
use url::Url;

use super::exec::FilesExec;
use super::place;
use crate::error::error;
use crate::storage::{hint, patience, redacted};

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

/// The columns of a table of files.
#[cfg(feature = "proto")]
pub(crate) fn schema() -> &'static SchemaRef {
    &SCHEMA
}

/// One of the files.
#[derive(Debug, Clone)]
pub(crate) struct FoundFile {
    /// As the pattern would name it.
    pub path: String,
    /// Where it is in its store.
    pub location: object_store::path::Path,
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
                Ok(Arc::new(Files::new(pattern.clone())))
            }
            _ => plan_err!("files('photos/*.jpg') takes one text: a file, a folder with '/' behind it, or a pattern"),
        }
    }
}

/// The files that a pattern names when a query is planned.
#[derive(Debug)]
pub(crate) struct Files {
    pattern: String,
}

impl Files {
    pub(crate) fn new(pattern: String) -> Self {
        Self { pattern }
    }

    /// The pattern.
    #[cfg(feature = "proto")]
    pub(crate) fn pattern(&self) -> &str {
        &self.pattern
    }
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
            Ok(if reads || !is_computed_while_planning(filter)? {
                TableProviderFilterPushDown::Unsupported
            } else {
                TableProviderFilterPushDown::Exact
            })
        };
        filters.iter().map(known).collect()
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DFResult<Arc<dyn ExecutionPlan>> {
        let Found { store, mut files } = found(&self.pattern, session).await?;
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
        let each = files.len().div_ceil(session.config().target_partitions().max(1)).max(1);
        let partitions = files.chunks(each).map(Arc::from).collect();
        Ok(Arc::new(FilesExec::new(store, partitions, schema)))
    }
}

/// Whether a condition is made of operators and of functions that depend on their arguments alone, which models and files are none of.
fn is_computed_while_planning(condition: &Expr) -> DFResult<bool> {
    let waits = condition.exists(|expr| {
        Ok(match expr {
            Expr::ScalarFunction(call) => call.func.signature().volatility != Volatility::Immutable,
            Expr::Exists(_) | Expr::InSubquery(_) | Expr::ScalarSubquery(_) | Expr::OuterReferenceColumn(..) => true,
            _ => false,
        })
    })?;
    Ok(!waits)
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

/// Files of one store.
struct Found {
    store: Url,
    files: Vec<FoundFile>,
}

/// The files that `pattern` names, by their names: a file, those of a folder, or what a pattern matches, in which `*` stays within a
/// folder and `**` does not.
async fn found(pattern: &str, session: &dyn Session) -> DFResult<Found> {
    if pattern.is_empty() {
        return plan_err!(
            "files('') names no file: it takes a file, a folder or a pattern, as in files('photos/*.jpg')"
        );
    }
    let is_url = pattern.contains("://");
    let is_there = !is_url && Path::new(pattern).exists();
    // A name that is there is no pattern, whatever characters it has.
    let url = match std::path::absolute(pattern).ok().filter(|_| is_there) {
        Some(path) if path.is_dir() => Url::from_directory_path(path).ok(),
        Some(path) => Url::from_file_path(path).ok(),
        None => None,
    };
    let url = match url {
        Some(url) => ListingTableUrl::try_new(url, None)?,
        None if is_url => url_of(pattern)?,
        None => ListingTableUrl::parse(pattern)?,
    };
    let store_url = url.get_url().clone();
    let store = place::store(&store_url, session.runtime_env())?;
    let unreadable = |cause: object_store::Error| {
        let note = hint(&cause);
        error!(Unreadable, "'{}' can't be read", redacted(pattern)).with_source(cause).with_note(note)
    };
    let head = if url.is_collection() || url.get_glob().is_some() {
        None
    } else {
        match patience::answer(store.head(url.prefix())).await {
            Ok(meta) => Some(meta),
            Err(object_store::Error::NotFound { .. }) => None, // it may be a folder
            Err(cause) => return Err(unreadable(cause).into()),
        }
    };
    let mut listed = vec![];
    match head {
        Some(meta) => listed.push(meta),
        // What is in folders below is not looked at: a lake has many, and what can't be read there is of no matter here.
        None if is_of_one_folder(&url) => {
            let folder = patience::answer(store.list_with_delimiter(Some(url.prefix()))).await.map_err(unreadable)?;
            listed.extend(folder.objects.into_iter().filter(|meta| is_meant(&url, &meta.location)));
        }
        None => {
            let mut all = store.list(Some(url.prefix()));
            while let Some(meta) = patience::answer(all.try_next()).await.map_err(unreadable)? {
                if is_meant(&url, &meta.location) {
                    listed.push(meta);
                }
            }
        }
    }
    if listed.is_empty() && url.get_glob().is_none() && !is_there {
        return Err(error!(Unreadable, "'{}': there is no such file or folder", redacted(pattern)).into());
    }
    let here = std::env::current_dir().ok().filter(|_| !is_url && !Path::new(pattern).is_absolute());
    let name = |location: &object_store::path::Path| {
        if is_url {
            // What a URL gives a meaning to is written as it stands for itself.
            let mut named = store_url.clone();
            named.set_path(&format!("/{}", location.as_ref().replace('%', "%25")));
            named.set_query(None);
            named.set_fragment(None);
            return named.to_string();
        }
        let path = format!("/{location}");
        let inside = here.as_ref().and_then(|here| Path::new(&path).strip_prefix(here).ok());
        inside.and_then(|inside| inside.to_str()).map_or(path.clone(), str::to_owned)
    };
    let mut files: Vec<_> = listed
        .into_iter()
        .map(|meta| FoundFile {
            path: name(&meta.location),
            size: meta.size,
            modified: meta.last_modified.timestamp_millis(),
            location: meta.location,
        })
        .collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Found { store: store_url, files })
}

/// A URL that may end in a pattern: DataFusion knows patterns in paths alone.
fn url_of(text: &str) -> DFResult<ListingTableUrl> {
    let wrong = |cause: String| error!(Unreadable, "'{}' names no files: {cause}", redacted(text));
    let start = text.find(['*', '?', '[']).map(|place| text[..place].rfind('/').map_or(0, |slash| slash + 1));
    let (folder, pattern) = text.split_at(start.unwrap_or(text.len()));
    let url = Url::parse(folder).map_err(|cause| wrong(cause.to_string()))?;
    let pattern = match pattern {
        "" => None,
        pattern => Some(Pattern::new(pattern).map_err(|cause| wrong(cause.to_string()))?),
    };
    ListingTableUrl::try_new(url, pattern)
}

/// Whether all files that `url` can name are in one folder.
fn is_of_one_folder(url: &ListingTableUrl) -> bool {
    url.get_glob().as_ref().is_none_or(|glob| !glob.as_str().contains('/') && !glob.as_str().contains("**"))
}

/// Whether a file below what `url` lists is one that it names.
fn is_meant(url: &ListingTableUrl, location: &object_store::path::Path) -> bool {
    let Some(segments) = url.strip_prefix(location) else { return false };
    let within: Vec<&str> = segments.collect();
    match url.get_glob() {
        Some(glob) => {
            let options = MatchOptions { require_literal_separator: true, ..MatchOptions::default() };
            glob.matches_with(&within.join("/"), options)
        }
        None => within.len() <= 1, // those below are another folder's
    }
}
