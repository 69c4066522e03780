//! Stands between a split's query and what writes its rows: counts them, and keeps the query's error apart from those of writing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, exec_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::StreamExt;

use crate::error::error;

/// What has passed.
#[derive(Debug, Default)]
pub(super) struct Passed {
    rows: AtomicU64,
    /// Of each column of floats: its name, the sum of its numbers, and how many they are.
    sums: Mutex<BTreeMap<String, (f64, u64)>>,
    error: Mutex<Option<Arc<DataFusionError>>>,
}

impl Passed {
    pub(super) fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Of each column of floats the sum of its numbers, and how many they are.
    pub(super) fn sums(&self) -> BTreeMap<String, (f64, u64)> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self, batch: &RecordBatch) {
        self.rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
        let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            let (sum, count) = match column.data_type() {
                DataType::Float32 => finite(column.as_primitive::<Float32Type>().iter().map(|it| it.map(f64::from))),
                DataType::Float64 => finite(column.as_primitive::<Float64Type>().iter()),
                _ => continue,
            };
            let entry = sums.entry(field.name().clone()).or_default();
            *entry = (entry.0 + sum, entry.1 + count);
        }
    }

    /// The error of the query, if it ended with one.
    pub(super) fn error(&self) -> Option<Arc<DataFusionError>> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The sum of the finite numbers, and how many they are.
fn finite(values: impl Iterator<Item = Option<f64>>) -> (f64, u64) {
    let finite = values.flatten().filter(|value| value.is_finite());
    finite.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1))
}

/// Passes its input's rows through.
#[derive(Debug)]
pub(super) struct TapExec {
    input: Arc<dyn ExecutionPlan>,
    passed: Arc<Passed>,
    /// Columns in which NULL is an error.
    without_nulls: Vec<usize>,
}

impl TapExec {
    pub(super) fn new(input: Arc<dyn ExecutionPlan>) -> (Self, Arc<Passed>) {
        let passed = Arc::<Passed>::default();
        (Self { input, passed: passed.clone(), without_nulls: vec![] }, passed)
    }

    /// The same, for which NULL in one of `columns` is an error: DataFusion writes such a row into the folder of another
    /// value.
    pub(super) fn without_nulls(self, columns: &[String]) -> Self {
        let schema = self.schema();
        Self { without_nulls: columns.iter().filter_map(|name| schema.index_of(name).ok()).collect(), ..self }
    }
}

impl DisplayAs for TapExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("TapExec")
    }
}

impl ExecutionPlan for TapExec {
    fn name(&self) -> &str {
        "TapExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let (Some(input), true) = (children.pop(), children.is_empty()) else {
            return exec_err!("TapExec has one child");
        };
        Ok(Arc::new(Self { input, passed: self.passed.clone(), without_nulls: self.without_nulls.clone() }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (passed, without_nulls) = (self.passed.clone(), self.without_nulls.clone());
        let checked = move |batch: RecordBatch| -> Result<RecordBatch> {
            match without_nulls.iter().find(|column| batch.column(**column).logical_null_count() > 0) {
                Some(column) => Err(error!(
                    RunFailed,
                    "PARTITIONED BY: column '{}' is NULL in a row, for which there is no folder: use coalesce()",
                    batch.schema_ref().field(*column).name()
                )
                .into()),
                None => Ok(batch),
            }
        };
        let rows = self.input.execute(partition, context)?.map(move |batch| match batch.and_then(&checked) {
            Ok(batch) => {
                passed.count(&batch);
                Ok(batch)
            }
            Err(error) => {
                let error = Arc::new(error);
                *passed.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
                Err(DataFusionError::Shared(error))
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}
