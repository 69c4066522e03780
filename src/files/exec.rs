//! Reads the files of a table of files.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result as DFResult, internal_err};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet, RecordOutput};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, SendableRecordBatchStream,
};
use futures::{StreamExt, TryStreamExt, stream};
use url::Url;

use super::content::{self, BATCH, OpenFile};
use super::place::{self, Place};
use super::table::{CONTENT, FoundFile, known_column};
use crate::config::PredictConfig;

/// Files as rows: each partition has files that follow each other.
#[derive(Debug)]
pub(crate) struct FilesExec {
    /// The URL of the store that they are in.
    store: Url,
    partitions: Vec<Arc<[FoundFile]>>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl FilesExec {
    /// The files of `partitions`, all in one store, with the columns of `schema`; one empty partition if there is none.
    pub(crate) fn new(store: Url, mut partitions: Vec<Arc<[FoundFile]>>, schema: SchemaRef) -> Self {
        if partitions.is_empty() {
            partitions.push(Arc::from([]));
        }
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(partitions.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { store, partitions, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() }
    }

    /// The URL of the store.
    #[cfg(feature = "proto")]
    pub(crate) fn store(&self) -> &Url {
        &self.store
    }

    /// The files of each partition.
    #[cfg(feature = "proto")]
    pub(crate) fn partitions(&self) -> &[Arc<[FoundFile]>] {
        &self.partitions
    }

    fn reads(&self) -> bool {
        self.schema().field_with_name(CONTENT).is_ok()
    }
}

impl DisplayAs for FilesExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files: usize = self.partitions.iter().map(|files| files.len()).sum();
        let schema = self.schema();
        let columns: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, "FilesExec: files={files}, columns=[{}]", columns.join(", "))
    }
}

impl ExecutionPlan for FilesExec {
    fn name(&self) -> &'static str {
        "FilesExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DFResult<TreeNodeRecursion>,
    ) -> DFResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> DFResult<Arc<dyn ExecutionPlan>> {
        if children.is_empty() { Ok(self) } else { internal_err!("FilesExec has no input") }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DFResult<SendableRecordBatchStream> {
        let files = self.partitions[partition].clone();
        let (schema, reads) = (self.schema(), self.reads());
        let largest = PredictConfig::of(context.session_config().options()).largest_blob.0;
        let store = if reads { Some(place::store(&self.store, &context.runtime_env())?) } else { None };
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let most_rows = context.session_config().batch_size();
        // A file at a time would be a batch for each; batches are cut where they have bytes enough.
        let sizes = files.iter().map(|file| if reads { file.size as usize } else { 0 });
        let batches = cut(sizes, most_rows);
        let stream = stream::iter(batches).then(move |rows| {
            let (files, schema, metrics, store) = (files.clone(), schema.clone(), metrics.clone(), store.clone());
            async move {
                let files = &files[rows];
                let contents: Vec<Option<Bytes>> = match store {
                    Some(store) => {
                        let open = |file: &FoundFile| {
                            let place = Place { store: store.clone(), path: file.location.clone() };
                            let path = file.path.clone();
                            async move { OpenFile::open(path, &place, largest).await }
                        };
                        let opened = content::in_order(files, open);
                        opened.and_then(|file| async { file.content().await.map(Some) }).try_collect().await?
                    }
                    None => vec![],
                };
                let column = |name: &str| match name {
                    CONTENT => content::column(contents.clone()),
                    name => Ok(known_column(name, files)),
                };
                let columns = schema.fields().iter().map(|field| column(field.name()));
                let columns = columns.collect::<crate::error::Result<Vec<_>>>()?;
                let options = RecordBatchOptions::new().with_row_count(Some(files.len()));
                let batch = RecordBatch::try_new_with_options(schema.clone(), columns, &options)?;
                Ok(batch.record_output(&metrics))
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// Ranges of rows of these sizes, of which each has at most `rows` rows and [`BATCH`] bytes, or one row.
fn cut(sizes: impl Iterator<Item = usize>, rows: usize) -> Vec<std::ops::Range<usize>> {
    let mut ranges: Vec<std::ops::Range<usize>> = vec![];
    let mut bytes = 0usize;
    for (row, size) in sizes.enumerate() {
        bytes = bytes.saturating_add(size);
        match ranges.last_mut() {
            Some(range) if bytes <= BATCH && range.len() < rows => range.end = row + 1,
            _ => {
                ranges.push(row..row + 1);
                bytes = size;
            }
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_end_where_they_have_enough() {
        let cut = |sizes: &[usize], rows| cut(sizes.iter().copied(), rows);
        assert_eq!(cut(&[BATCH / 2, BATCH / 2, 1, 2 * BATCH, 1], 10), [0..2, 2..3, 3..4, 4..5]);
        assert_eq!(cut(&[0; 5], 2), [0..2, 2..4, 4..5]);
        assert!(cut(&[], 2).is_empty());
    }
}
