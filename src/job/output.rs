//! The output of a job as a table: one published state, whatever is written or taken out meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::{self, Debug, Display, Formatter};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result as DFResult;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use sha2::{Digest, Sha256};
use url::Url;

use super::definition::{Column, JobDefinition, generation_name};
use super::log::JobLog;
use super::state::{JobState, OutputFile};
use super::target::Target;
use crate::storage::hex;

/// States that queries may still be listing.
const LISTINGS: usize = 16;

/// Some files of a generation, listed as one folder.
#[derive(Debug)]
pub(super) struct Listing {
    generation: u64,
    run: Option<u64>,
    files: BTreeMap<String, OutputFile>,
    modified: i64,
}

impl Listing {
    /// `files` of a generation, of which some may still be where `run` has written them.
    pub(super) fn new(generation: u64, run: Option<u64>, files: Vec<OutputFile>, modified: i64) -> Self {
        let files = files.into_iter().map(|file| (file.path.clone(), file)).collect();
        Self { generation, run, files, modified }
    }

    /// What readers of a job see.
    fn of(state: &JobState) -> Option<Self> {
        let generation = state.published?;
        let run = state.active.as_ref().map(|active| active.run);
        Some(Self::new(generation, run, state.output().cloned().collect(), state.at))
    }
}

/// A store that shows the files of [`Listing`]s, each as a folder, and finds a file wherever it is at that moment: in its
/// place, on its way there, or taken out.
pub(super) struct OutputStore {
    target: Target,
    listings: Mutex<VecDeque<(String, Arc<Listing>)>>,
}

impl OutputStore {
    pub(super) fn new(target: Target) -> Self {
        Self { target, listings: Mutex::default() }
    }

    /// Shows a listing as the folder `label`, and where that is.
    pub(super) fn show(&self, label: &str, listing: Listing) -> String {
        let folder = format!("{label}/{}/", generation_name(listing.generation));
        let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        listings.retain(|(known, _)| known != label);
        listings.push_back((label.to_owned(), Arc::new(listing)));
        if listings.len() > LISTINGS {
            listings.pop_front();
        }
        folder
    }

    fn listing(&self, label: &str) -> Option<Arc<Listing>> {
        let listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        listings.iter().find(|(known, _)| known == label).map(|(_, listing)| listing.clone())
    }

    /// Where a file may be, in the order in which it moves on while it is looked for.
    fn places(&self, location: &Path) -> Option<Vec<Path>> {
        let mut parts = location.parts();
        let label = parts.next()?.as_ref().to_owned();
        let generation: u64 = parts.next()?.as_ref().strip_prefix('g')?.parse().ok()?;
        let file: Vec<_> = parts.map(|part| part.as_ref().to_owned()).collect();
        let file = file.join("/");
        let place = self.target.place(generation, &file);
        let mut places = vec![place.clone()];
        if let Some(listing) = self.listing(&label)
            && let Some(run) = listing.run
            && let Some(known) = listing.files.get(&file).filter(|file| !file.staged.is_empty())
        {
            places.extend([self.target.staged(run, &known.staged), place]);
        }
        places.push(self.target.retired(generation, &file));
        Some(places)
    }
}

impl Debug for OutputStore {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutputStore").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Display for OutputStore {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("the output of a job")
    }
}

fn read_only<T>() -> Result<T> {
    Err(object_store::Error::NotSupported { source: "the output of a job is written by its runs alone".into() })
}

#[async_trait]
impl ObjectStore for OutputStore {
    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        read_only()
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        read_only()
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let places = self.places(location).unwrap_or_default();
        let mut missing =
            object_store::Error::NotFound { path: location.to_string(), source: "no file of the job's output".into() };
        for place in places {
            match self.target.store.get_opts(&place, options.clone()).await {
                Err(error @ object_store::Error::NotFound { .. }) => missing = error,
                Ok(mut got) => {
                    got.meta.location = location.clone();
                    return Ok(got);
                }
                error => return error,
            }
        }
        Err(missing)
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        stream::iter([read_only()]).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let label = prefix.and_then(|prefix| prefix.parts().next().map(|part| part.as_ref().to_owned()));
        let Some((label, listing)) = label.and_then(|label| Some((label.clone(), self.listing(&label)?))) else {
            return stream::empty().boxed();
        };
        let generation = Path::from_iter([label, generation_name(listing.generation)]);
        let below = prefix.cloned().unwrap_or_default();
        let files: Vec<_> = listing
            .files
            .values()
            .filter_map(|file| {
                let location = file.path.split('/').fold(generation.clone(), |path, part| path.join(part));
                let inside = location.prefix_matches(&below);
                let last_modified = timestamp(listing.modified)?;
                inside.then(|| Ok(ObjectMeta { location, last_modified, size: file.size, e_tag: None, version: None }))
            })
            .collect();
        stream::iter(files).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let files: Vec<_> = self.list(prefix).collect::<Vec<_>>().await.into_iter().collect::<Result<_>>()?;
        let below = prefix.cloned().unwrap_or_default();
        let mut common_prefixes = std::collections::BTreeSet::new();
        let mut objects = vec![];
        for file in files {
            let rest: Vec<_> =
                file.location.prefix_match(&below).into_iter().flatten().map(|part| part.as_ref().to_owned()).collect();
            match rest.as_slice() {
                [folder, _, ..] => _ = common_prefixes.insert(below.clone().join(folder.as_str())),
                _ => objects.push(file),
            }
        }
        Ok(ListResult { common_prefixes: common_prefixes.into_iter().collect(), objects })
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        read_only()
    }
}

/// A time of the journal as stores give times.
fn timestamp<Tz>(micros: i64) -> Option<Tz>
where
    std::time::SystemTime: Into<Tz>,
{
    let since = std::time::Duration::from_micros(u64::try_from(micros).ok()?);
    Some((std::time::UNIX_EPOCH + since).into())
}

/// The rows of some files of a job's output.
pub(super) async fn scan_files(
    session: &dyn Session,
    definition: &JobDefinition,
    store: &Arc<OutputStore>,
    url: &Url,
    folder: &str,
) -> DFResult<ListingTable> {
    let environment = session.runtime_env();
    environment.register_object_store(url, store.clone());
    let format = super::score::format_of(session, definition)?;
    let is_folder = |column: &Column| definition.partition_by.contains(&column.name);
    let fields = |folders: bool| {
        let columns = definition.columns.iter().filter(move |column| is_folder(column) == folders);
        columns.map(Column::field).collect::<crate::error::Result<Vec<_>>>()
    };
    let folders = fields(true)?.into_iter().map(|field| (field.name().clone(), field.data_type().clone())).collect();
    let options = ListingOptions::new(format).with_file_extension("").with_table_partition_cols(folders);
    let config =
        ListingTableConfig::new(ListingTableUrl::parse(format!("{}/{folder}", url.as_str().trim_end_matches('/')))?)
            .with_listing_options(options)
            .with_schema(Arc::new(Schema::new(fields(false)?)));
    ListingTable::try_new(config)
}

/// `job_output('nightly')`
pub(crate) struct JobOutput {
    log: JobLog,
    definition: Arc<JobDefinition>,
    schema: SchemaRef,
    store: Arc<OnceLock<Arc<OutputStore>>>,
    /// The state that the query sees, where that was decided before it is scanned.
    pinned: Option<Arc<JobState>>,
}

impl Debug for JobOutput {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobOutput").field("job", &self.log.name()).finish_non_exhaustive()
    }
}

impl JobOutput {
    pub(super) fn new(log: JobLog, definition: Arc<JobDefinition>) -> crate::error::Result<Self> {
        let fields = definition.columns.iter().map(Column::field).collect::<crate::error::Result<Vec<_>>>()?;
        let schema = Arc::new(Schema::new(fields));
        Ok(Self { log, definition, schema, store: Arc::default(), pinned: None })
    }

    /// The job whose output it is.
    pub(super) fn log(&self) -> &JobLog {
        &self.log
    }

    /// The output as it is in `state`, for all of a query.
    pub(super) fn pinned(&self, state: Arc<JobState>) -> Self {
        let store = self.store.clone();
        Self {
            log: self.log.clone(),
            definition: self.definition.clone(),
            schema: self.schema.clone(),
            store,
            pinned: Some(state),
        }
    }
}

#[async_trait]
impl TableProvider for JobOutput {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DFResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DFResult<Arc<dyn ExecutionPlan>> {
        let state = match &self.pinned {
            Some(state) => state.clone(),
            None => self.log.refresh().await?,
        };
        let Some(listing) = Listing::of(&state).filter(|listing| !listing.files.is_empty()) else {
            let schema = datafusion::physical_plan::project_schema(&self.schema, projection)?;
            return Ok(Arc::new(EmptyExec::new(schema)));
        };
        let definition = state.definition.clone().unwrap_or_else(|| self.definition.clone());
        let store = match self.store.get() {
            Some(store) => store.clone(),
            None => {
                let target = Target::open_in(session.runtime_env(), &definition)?;
                self.store.get_or_init(|| Arc::new(OutputStore::new(target))).clone()
            }
        };
        let folder = store.show(&format!("s{}", state.sequence), listing);
        let url = output_url(self.log.name(), &definition, &format!("{:p}", Arc::as_ptr(&store)))?;
        let table = scan_files(session, &self.definition, &store, &url, &folder).await?;
        table.scan(session, projection, filters, limit).await
    }
}

/// A URL for the output of a job in one store.
pub(super) fn output_url(job: &str, definition: &JobDefinition, store: &str) -> crate::error::Result<Url> {
    let hash = hex(Sha256::digest(format!("{job}\n{}\n{store}", definition.target)));
    let url = format!("predict-job://{}", &hash[..24]);
    Url::parse(&url).map_err(|cause| crate::error::error!(InvalidJob, "'{url}' is no URL").with_source(cause))
}
