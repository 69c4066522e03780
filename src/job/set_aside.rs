//! Takes rows that a model refuses out of a query's way, into a file of their own.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::arrow::array::{Array, AsArray, BooleanArray, RecordBatch, StringArray, UInt64Array};
use datafusion::arrow::compute::{filter_record_batch, is_null, not};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, exec_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties};
use datafusion_predict_udfs::OnFailure;
use futures::StreamExt;

use crate::plan::PredictExec;

/// Rows that were set aside, as a Parquet file that is written as they come: the row's columns, `model`, `version` and
/// `error`.
#[derive(Default)]
pub(super) struct SetAsideRows {
    writer: Mutex<Option<ArrowWriter<Vec<u8>>>>,
    rows: std::sync::atomic::AtomicU64,
}

impl fmt::Debug for SetAsideRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetAsideRows").field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl SetAsideRows {
    fn push(&self, batch: &RecordBatch) -> Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if writer.is_none() {
            *writer = Some(ArrowWriter::try_new(vec![], batch.schema(), None)?);
        }
        if let Some(writer) = writer.as_mut() {
            writer.write(batch)?;
            if writer.in_progress_size() > 16 << 20 {
                writer.flush()?;
            }
        }
        self.rows.fetch_add(batch.num_rows() as u64, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }

    /// How many rows, and the file; `None` if there are none.
    pub(super) fn take(&self) -> Result<Option<(u64, Vec<u8>)>> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(writer) = writer else { return Ok(None) };
        let rows = self.rows.swap(0, std::sync::atomic::Ordering::Relaxed);
        Ok(Some((rows, writer.into_inner()?)))
    }
}

/// Passes the rows on that a [`PredictExec`] below could score, with the prediction alone; the others are set aside.
#[derive(Debug)]
pub(super) struct SetAsideExec {
    input: Arc<dyn ExecutionPlan>,
    model: String,
    version: Option<u64>,
    output: Arc<Field>,
    rows: Arc<SetAsideRows>,
    properties: Arc<PlanProperties>,
}

impl SetAsideExec {
    /// In the place of `predict`; `None` if rows can't make that fail.
    ///
    /// # Errors
    /// A function of a kind that gives no reasons.
    pub(super) fn around(predict: &PredictExec) -> Result<Option<Self>> {
        if !predict.fails_at_rows() {
            return Ok(None);
        }
        let handle = predict.model().handle();
        let Some(tolerant) = predict.tolerant(OnFailure::Reason)? else {
            return exec_err!("rows that model '{}' refuses can't be set aside: call it by predict()", handle.label());
        };
        let schema = predict.schema();
        let output = schema.field(schema.fields().len() - 1).clone();
        let (model, version) = (handle.name().to_owned(), handle.version());
        Ok(Some(Self::new(Arc::new(tolerant), model, version, Arc::new(output), schema, Arc::default())))
    }

    fn new(
        input: Arc<dyn ExecutionPlan>,
        model: String,
        version: Option<u64>,
        output: Arc<Field>,
        schema: SchemaRef,
        rows: Arc<SetAsideRows>,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            input.output_partitioning().clone(),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Self { input, model, version, output, rows, properties: Arc::new(properties) }
    }

    /// The same, which sets rows aside at a place of its own, and that place.
    pub(super) fn fresh(&self) -> (Self, Arc<SetAsideRows>) {
        let rows = Arc::<SetAsideRows>::default();
        let (input, model, output) = (self.input.clone(), self.model.clone(), self.output.clone());
        (Self::new(input, model, self.version, output, self.schema(), rows.clone()), rows)
    }
}

impl DisplayAs for SetAsideExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "SetAsideExec: model={}", self.model)
    }
}

impl ExecutionPlan for SetAsideExec {
    fn name(&self) -> &str {
        "SetAsideExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
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
            return exec_err!("SetAsideExec has one child");
        };
        let (model, output, rows) = (self.model.clone(), self.output.clone(), self.rows.clone());
        Ok(Arc::new(Self::new(input, model, self.version, output, self.schema(), rows)))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let (schema, rows, model, version) = (self.schema(), self.rows.clone(), self.model.clone(), self.version);
        let kept = input.map({
            let schema = schema.clone();
            move |batch| divide(&batch?, &schema, &rows, &model, version)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, kept)))
    }
}

/// The rows of `batch` that were scored; the others go to `aside`.
fn divide(
    batch: &RecordBatch,
    schema: &SchemaRef,
    aside: &SetAsideRows,
    model: &str,
    version: Option<u64>,
) -> Result<RecordBatch> {
    let last = batch.num_columns() - 1;
    let outcomes = batch.column(last).as_struct();
    let errors = outcomes.column(1);
    let scored = is_null(errors)?;
    let mut columns = batch.columns()[..last].to_vec();
    columns.push(outcomes.column(0).clone());
    let all = RecordBatch::try_new(schema.clone(), columns)?;
    if scored.true_count() == scored.len() {
        return Ok(all);
    }
    let refused: BooleanArray = not(&scored)?;
    let places: Vec<usize> = (0..last).collect();
    let rows = filter_record_batch(&batch.project(&places)?, &refused)?;
    let errors = datafusion::arrow::compute::filter(errors, &refused)?;
    let count = rows.num_rows();
    let mut fields: Vec<_> = rows.schema().fields().iter().cloned().collect();
    let mut columns = rows.columns().to_vec();
    let more: [(&str, Arc<dyn Array>); 3] = [
        ("model", Arc::new(StringArray::from(vec![model; count]))),
        ("version", Arc::new(UInt64Array::from(vec![version; count]))),
        ("error", errors),
    ];
    for (name, column) in more {
        // A column of the row's may have the name.
        let taken = fields.iter().any(|field: &Arc<Field>| field.name() == name);
        let name = if taken { format!("predict_{name}") } else { name.to_owned() };
        fields.push(Arc::new(Field::new(name, column.data_type().clone(), true)));
        columns.push(column);
    }
    // Parquet has no type for nothing but NULLs.
    for (field, column) in fields.iter_mut().zip(&mut columns) {
        if column.data_type() == &DataType::Null {
            *column = datafusion::arrow::array::new_null_array(&DataType::Boolean, count);
            *field = Arc::new(Field::new(field.name(), DataType::Boolean, true));
        }
    }
    aside.push(&RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)?;
    Ok(filter_record_batch(&all, &scored)?)
}
