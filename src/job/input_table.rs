//! A table of files whose scan can be told from others in a physical plan, and be restricted to some of the files.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{ScanArgs, ScanResult, Session, TableProvider};
use datafusion::common::stats::Statistics;
use datafusion::common::{Constraints, Result as DFResult, TableReference};
use datafusion::datasource::listing::{FileRange, ListingTable, PartitionedFile};
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig, FileScanConfigBuilder};
use datafusion::datasource::source::DataSourceExec;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;

use super::records::InputFile;
use crate::error::{Result, error};

/// What a scan of a job's query is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ScanRole {
    /// Each split reads a part of its files. Such scans are numbered from 0.
    Split(usize),
    /// Each split reads all of its files. Such scans are numbered from 0, too.
    Whole(usize),
}

/// A table of files, as a job reads it.
#[derive(Debug)]
pub(super) struct InputTable {
    table: Arc<dyn TableProvider>,
    role: ScanRole,
}

impl InputTable {
    /// # Errors
    /// A table that is not one of files.
    pub(super) fn try_new(name: &TableReference, table: Arc<dyn TableProvider>, role: ScanRole) -> Result<Self> {
        if !(table.as_ref() as &dyn std::any::Any).is::<ListingTable>() {
            return Err(error!(
                InvalidJob,
                "table '{name}' can't be read by a job: it is not one of files (CREATE EXTERNAL TABLE, or a path or URL in quotes)"
            ));
        }
        Ok(Self { table, role })
    }
}

#[async_trait]
impl TableProvider for InputTable {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn constraints(&self) -> Option<&Constraints> {
        self.table.constraints()
    }

    fn table_type(&self) -> TableType {
        self.table.table_type()
    }

    fn get_column_default(&self, column: &str) -> Option<&Expr> {
        self.table.get_column_default(column)
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DFResult<Arc<dyn ExecutionPlan>> {
        let scan = self.table.scan(session, projection, filters, limit).await?;
        Ok(self.marked(&scan).unwrap_or(scan))
    }

    async fn scan_with_args<'a>(&self, session: &dyn Session, args: ScanArgs<'a>) -> DFResult<ScanResult> {
        let scan = self.table.scan_with_args(session, args).await?.into_inner();
        Ok(ScanResult::new(self.marked(&scan).unwrap_or(scan)))
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DFResult<Vec<TableProviderFilterPushDown>> {
        self.table.supports_filters_pushdown(filters)
    }

    fn statistics(&self) -> Option<Statistics> {
        self.table.statistics()
    }
}

impl InputTable {
    /// The scan with the role at each of its files.
    fn marked(&self, scan: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
        let config = scan_config(scan)?;
        let mark = |file: &PartitionedFile| {
            let mut file = file.clone();
            file.extensions.insert(self.role);
            file
        };
        let groups = config.file_groups.iter().map(|group| FileGroup::new(group.iter().map(mark).collect()));
        Some(with_groups(config, groups.collect()))
    }
}

/// A scan of files.
fn scan_config(plan: &Arc<dyn ExecutionPlan>) -> Option<&FileScanConfig> {
    plan.downcast_ref::<DataSourceExec>()?.data_source().downcast_ref::<FileScanConfig>()
}

fn with_groups(config: &FileScanConfig, groups: Vec<FileGroup>) -> Arc<dyn ExecutionPlan> {
    let config = FileScanConfigBuilder::from(config.clone()).with_file_groups(groups).build();
    DataSourceExec::from_data_source(config)
}

/// A scan of a job's physical plan.
pub(super) struct InputScan<'a> {
    config: &'a FileScanConfig,
    pub role: ScanRole,
}

impl<'a> InputScan<'a> {
    /// The scan of an input at this node, if it is one. One without files is no scan any more.
    pub(super) fn of(plan: &'a Arc<dyn ExecutionPlan>) -> Option<Self> {
        let config = scan_config(plan)?;
        let first = config.file_groups.iter().flat_map(FileGroup::iter).next()?;
        let role = first.extensions.get::<ScanRole>()?;
        Some(Self { config, role: *role })
    }

    /// The store that the files are in.
    pub(super) fn store(&self) -> &datafusion::execution::object_store::ObjectStoreUrl {
        &self.config.object_store_url
    }

    /// Its files.
    pub(super) fn files(&self) -> impl Iterator<Item = &'a PartitionedFile> {
        self.config.file_groups.iter().flat_map(FileGroup::iter)
    }

    /// The same scan of `files` alone, in one partition.
    pub(super) fn restricted(&self, files: Vec<PartitionedFile>) -> Arc<dyn ExecutionPlan> {
        with_groups(self.config, vec![FileGroup::new(files)])
    }

    /// Whether parts of its files can be read on their own.
    pub(super) fn reads_ranges(&self) -> bool {
        self.config.file_source.supports_repartitioning() && !self.config.file_compression_type.is_compressed()
    }
}

/// What a run remembers of a file of the scan with this number.
pub(super) fn input_file(scan: usize, file: &PartitionedFile) -> InputFile {
    let meta = &file.object_meta;
    InputFile {
        scan,
        path: meta.location.to_string(),
        size: meta.size,
        etag: meta.e_tag.clone(),
        modified: meta.last_modified.timestamp_micros(),
        range: None,
    }
}

/// The bytes of a file that are meant.
pub(super) fn file_range(range: (u64, u64)) -> FileRange {
    let signed = |at: u64| i64::try_from(at).unwrap_or(i64::MAX);
    FileRange { start: signed(range.0), end: signed(range.1) }
}
