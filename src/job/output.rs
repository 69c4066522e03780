//! The output of a job as a table: one published state, whatever is written or taken out meanwhile.

use std::fmt::{self, Debug, Formatter};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Result as DFResult, plan_err};
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use url::Url;

use super::definition::{Column, JobDefinition};
use super::job_log::JobLog;
use super::output_store::{Listing, OutputStore, OutputStores};
use super::state::JobState;
use super::target::Target;

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
    /// How the output was written that readers see.
    definition: Arc<JobDefinition>,
    schema: SchemaRef,
    stores: Arc<OutputStores>,
    /// The state that the query sees, where that was decided before it is scanned.
    pinned: Option<Arc<JobState>>,
}

impl Debug for JobOutput {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobOutput").field("job", &self.log.name()).finish_non_exhaustive()
    }
}

impl JobOutput {
    pub(super) fn new(
        log: JobLog,
        definition: Arc<JobDefinition>,
        stores: Arc<OutputStores>,
    ) -> crate::error::Result<Self> {
        let fields = definition.columns.iter().map(Column::field).collect::<crate::error::Result<Vec<_>>>()?;
        let schema = Arc::new(Schema::new(fields));
        Ok(Self { log, definition, schema, stores, pinned: None })
    }

    /// The job whose output it is.
    pub(super) fn log(&self) -> &JobLog {
        &self.log
    }

    /// The output as it is in `state`, for all of a query.
    pub(super) fn pinned(&self, state: Arc<JobState>) -> Self {
        Self {
            log: self.log.clone(),
            definition: self.definition.clone(),
            schema: self.schema.clone(),
            stores: self.stores.clone(),
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
        let Some(listing) = Listing::of(&state).filter(|listing| !listing.is_empty()) else {
            let schema = datafusion::physical_plan::project_schema(&self.schema, projection)?;
            return Ok(Arc::new(EmptyExec::new(schema)));
        };
        let definition = state.written_as().unwrap_or_else(|| self.definition.clone());
        if definition.columns != self.definition.columns {
            return plan_err!(
                "the output of job '{}' has other columns now: plan the statement again",
                self.log.name()
            );
        }
        let open = || Target::open_in(session.runtime_env(), &definition);
        let (store, url) = self.stores.of(&definition.target, open)?;
        // DataFusion remembers lists of files by their path alone.
        let label = format!("{}-{}", url.host_str().unwrap_or_default(), state.sequence);
        let folder = store.show(&label, listing);
        let table = scan_files(session, &definition, &store, &url, &folder).await?;
        table.scan(session, projection, filters, limit).await
    }
}
