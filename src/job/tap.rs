//! Stands between a split's query and what writes its rows: counts them, and keeps the query's error apart from those of writing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::arrow::array::{Array, ArrowPrimitiveType, AsArray, PrimitiveArray, RecordBatch};
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

    /// Of each column of floats the sum of its numbers, and how many they are; of a tap [`with_sums`](TapExec::with_sums).
    pub(super) fn sums(&self) -> BTreeMap<String, (f64, u64)> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add_sums(&self, batch: &RecordBatch) {
        let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            let (sum, count) = match column.data_type() {
                DataType::Float32 => finite(column.as_primitive::<Float32Type>()),
                DataType::Float64 => finite(column.as_primitive::<Float64Type>()),
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
fn finite<T: ArrowPrimitiveType<Native: Into<f64>>>(column: &PrimitiveArray<T>) -> (f64, u64) {
    let add = |(sum, count): (f64, u64), value: T::Native| {
        let value: f64 = value.into();
        let counts = value.is_finite();
        (sum + if counts { value } else { 0.0 }, count + u64::from(counts))
    };
    if column.null_count() == 0 {
        return column.values().iter().copied().fold((0.0, 0), add); // without a look at each row's validity
    }
    column.iter().flatten().fold((0.0, 0), add)
}

/// Passes its input's rows through.
#[derive(Debug)]
pub(super) struct TapExec {
    input: Arc<dyn ExecutionPlan>,
    passed: Arc<Passed>,
    /// Columns in which NULL is an error.
    without_nulls: Vec<usize>,
    /// Whether the columns of floats are summed up.
    with_sums: bool,
}

impl TapExec {
    pub(super) fn new(input: Arc<dyn ExecutionPlan>) -> (Self, Arc<Passed>) {
        let passed = Arc::<Passed>::default();
        (Self { input, passed: passed.clone(), without_nulls: vec![], with_sums: false }, passed)
    }

    /// The same, which also sums up each column of floats.
    pub(super) fn with_sums(self) -> Self {
        Self { with_sums: true, ..self }
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
        let (passed, without_nulls) = (self.passed.clone(), self.without_nulls.clone());
        Ok(Arc::new(Self { input, passed, without_nulls, with_sums: self.with_sums }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (passed, without_nulls, with_sums) = (self.passed.clone(), self.without_nulls.clone(), self.with_sums);
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
                passed.rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
                if with_sums {
                    passed.add_sums(&batch);
                }
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

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{Float32Array, Float64Array};

    use super::*;

    #[test]
    fn sums_are_of_numbers_alone() {
        let floats = Float32Array::from(vec![1.5, f32::NAN, f32::INFINITY, 2.0]);
        assert_eq!(finite(&floats), (3.5, 2));
        let with_nulls = Float64Array::from(vec![Some(1.0), None, Some(-0.25), Some(f64::NEG_INFINITY)]);
        assert_eq!(finite(&with_nulls), (0.75, 2));
        assert_eq!(finite(&Float64Array::from(Vec::<f64>::new())), (0.0, 0));
    }
}
