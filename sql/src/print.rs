//! Prints results on standard output, and all else on standard error.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Instant;

use datafusion::arrow::array::RecordBatch;
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::spill::get_record_batch_memory_size;
use datafusion_cli::print_format::PrintFormat;
use datafusion_cli::print_options::MaxRows;
use datafusion_predict::PredictRuntime;
use futures::StreamExt;

use crate::progress::Progress;
use crate::write::RowWriter;

/// How results are printed.
#[derive(Debug, Clone)]
pub(crate) struct Printer {
    pub format: PrintFormat,
    pub maxrows: MaxRows,
    pub quiet: bool,
    pub timing: bool,
}

/// Rows on their way.
pub(crate) struct Rows {
    pub stream: SendableRecordBatchStream,
    /// What makes them; asked how far it is.
    pub plan: Arc<dyn ExecutionPlan>,
    pub task: Arc<TaskContext>,
    /// Asked which models are on their way.
    pub predict: Arc<PredictRuntime>,
    /// How many a table shows.
    pub maxrows: MaxRows,
}

impl Printer {
    /// Prints `rows` as they come, a table when all are there.
    pub(crate) async fn print(&self, rows: Rows, start: Instant) -> Result<()> {
        let progress = Progress::new(Some(rows.plan.clone()), rows.predict.clone(), start, !self.quiet);
        let fields = !rows.stream.schema().fields().is_empty();
        let count = match self.format {
            PrintFormat::Table | PrintFormat::Automatic => self.print_table(rows, progress).await?,
            format => self.print_stream(rows, progress, format).await?,
        };
        self.status(fields.then_some(count), start);
        Ok(())
    }

    /// Says what a statement did.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            let _ = writeln!(io::stderr(), "{text}"); // as for the status
        }
    }

    /// Says how many rows there were, if it had any to give, and how long it took.
    pub(crate) fn status(&self, rows: Option<usize>, start: Instant) {
        if self.quiet {
            return;
        }
        let rows = match rows {
            None => "done".to_owned(),
            Some(1) => "1 row".to_owned(),
            Some(rows) => format!("{rows} rows"),
        };
        // A reader of standard error that went away is no reason to stop.
        let _ = if self.timing {
            writeln!(io::stderr(), "{rows} in {:.3} s\n", start.elapsed().as_secs_f64())
        } else {
            writeln!(io::stderr(), "{rows}\n")
        };
    }

    async fn print_stream(&self, mut rows: Rows, mut progress: Progress, format: PrintFormat) -> Result<usize> {
        let mut writer = RowWriter::new(format, rows.stream.schema());
        let mut count = 0;
        while let Some(batch) = next(&mut rows.stream, &mut progress).await? {
            count += batch.num_rows();
            progress.hidden_during(|| writer.write(&batch))?;
        }
        drop(progress);
        writer.finish()?;
        Ok(count)
    }

    /// A table's widths depend on all its rows, so those that it shows are collected.
    async fn print_table(&self, mut rows: Rows, mut progress: Progress) -> Result<usize> {
        let shown = match rows.maxrows {
            MaxRows::Limited(rows) => rows,
            MaxRows::Unlimited => usize::MAX,
        };
        let reservation = MemoryConsumer::new("the shell's table").register(rows.task.memory_pool());
        let schema = rows.stream.schema();
        let mut kept: Vec<RecordBatch> = vec![];
        let mut count = 0;
        while let Some(batch) = next(&mut rows.stream, &mut progress).await? {
            // With one row more than is shown, the table says that there are more.
            if count <= shown && batch.num_rows() > 0 {
                reservation.try_grow(get_record_batch_memory_size(&batch))?;
                kept.push(batch.clone());
            }
            count += batch.num_rows();
        }
        drop(progress);
        if schema.fields().is_empty() {
            return Ok(count); // a statement that gives no rows
        }
        let options = rows.task.session_config().options();
        let mut out = io::stdout().lock();
        PrintFormat::Table.print_batches(&mut out, schema, &kept, rows.maxrows, true, &options.format)?;
        out.flush()?;
        if !self.quiet && count > shown {
            writeln!(io::stderr(), "the first {shown} of {count} rows; --maxrows shows more")?;
        }
        Ok(count)
    }
}

/// The next batch, while the progress is kept up to date.
async fn next(stream: &mut SendableRecordBatchStream, progress: &mut Progress) -> Result<Option<RecordBatch>> {
    loop {
        tokio::select! {
            biased;
            batch = stream.next() => return batch.transpose(),
            () = progress.due() => progress.show(),
        }
    }
}
