//! Stands between a split's query and what writes its rows: counts them, and keeps the query's error apart from those of writing.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, exec_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::StreamExt;

/// What has passed.
#[derive(Debug, Default)]
pub(super) struct Passed {
    rows: AtomicU64,
    error: Mutex<Option<Arc<DataFusionError>>>,
}

impl Passed {
    pub(super) fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// The error of the query, if it ended with one.
    pub(super) fn error(&self) -> Option<Arc<DataFusionError>> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Passes its input's rows through.
#[derive(Debug)]
pub(super) struct TapExec {
    input: Arc<dyn ExecutionPlan>,
    passed: Arc<Passed>,
}

impl TapExec {
    pub(super) fn new(input: Arc<dyn ExecutionPlan>) -> (Self, Arc<Passed>) {
        let passed = Arc::<Passed>::default();
        (Self { input, passed: passed.clone() }, passed)
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
        Ok(Arc::new(Self { input, passed: self.passed.clone() }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let passed = self.passed.clone();
        let rows = self.input.execute(partition, context)?.map(move |batch| match batch {
            Ok(batch) => {
                passed.rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
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
