//! Runs pieces of SQL in one session, and prints what they give.

use std::sync::Arc;
use std::time::Instant;

use datafusion::common::exec_datafusion_err;
use datafusion::common::runtime::SpawnedTask;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect, dialect_from_str};
use datafusion_cli::print_options::MaxRows;
use datafusion_predict::{
    CancelToken, PredictRuntime, PredictSql, PredictStatement, job_summary, parse_sql, run_statement,
};
use futures::StreamExt;
use tokio::runtime::Handle;

use crate::command::{self, Command};
use crate::credentials;
use crate::job;
use crate::logging;
use crate::message;
use crate::panics;
use crate::print::{Printer, Rows};
use crate::progress::Progress;
use crate::script::{PieceKind, Position, Script};
use crate::stores;

/// How deep files may include files.
const DEEPEST_INCLUDE: usize = 16;

/// Batches that wait while one is printed.
const BATCHES_AHEAD: usize = 2;

/// A session, and how its results are printed.
pub(crate) struct Shell {
    pub context: SessionContext,
    pub predict: Arc<PredictRuntime>,
    pub printer: Printer,
    /// The threads that plan and run. Queries may keep all of them busy for long, so printing, progress and Ctrl-C have
    /// a runtime of their own, which runs the futures of this type.
    workers: Handle,
    echo: bool,
    includes: usize,
}

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    Continue,
    Quit,
}

impl Shell {
    pub(crate) fn new(
        context: SessionContext,
        predict: Arc<PredictRuntime>,
        printer: Printer,
        workers: Handle,
        echo: bool,
    ) -> Self {
        Self { context, predict, printer, workers, echo, includes: 0 }
    }

    /// Runs the pieces of `text`, each before the next is parsed, up to the first error.
    ///
    /// Errors say where they are in the file `name`. Dropping the future cancels what runs and waits for nothing.
    pub(crate) async fn run_script(&mut self, text: &str, name: Option<&str>) -> Result<Flow> {
        let escapes = self.dialect().supports_string_literal_backslash_escape();
        for piece in Script::new(text, escapes) {
            let position = Position::of(text, piece.start);
            let ran = match piece.kind {
                PieceKind::Sql => {
                    if self.echo {
                        if credentials::may_be_in(piece.text) {
                            eprintln!("{}-- a statement that may hold credentials", piece.comments)
                        } else {
                            eprintln!("{}{};", piece.comments, piece.text)
                        }
                    }
                    self.run_sql_at(position, piece.text).await.map(|()| Flow::Continue)
                }
                PieceKind::Command => match piece.text.parse::<Command>() {
                    Ok(command) => command::run(self, command).await,
                    Err(error) => Err(error),
                },
            };
            match (ran, name) {
                (Ok(Flow::Continue), _) => {}
                (Ok(Flow::Quit), _) => return Ok(Flow::Quit),
                (Err(error), Some(name)) => return Err(message::at(format!("{name}, line {}", position.line), error)),
                (Err(error), None) => return Err(error),
            }
        }
        Ok(Flow::Continue)
    }

    /// Runs the SQL of a file within that of another.
    pub(crate) async fn include(&mut self, path: &str) -> Result<Flow> {
        if self.includes == DEEPEST_INCLUDE {
            return Err(exec_datafusion_err!("can't read {path}: files include files {DEEPEST_INCLUDE} deep already"));
        }
        let text = std::fs::read_to_string(path).map_err(|error| exec_datafusion_err!("can't read {path}: {error}"))?;
        self.includes += 1;
        let ran = Box::pin(self.run_script(&text, Some(path))).await;
        self.includes -= 1;
        ran
    }

    /// What a cancelled script has left behind is forgotten.
    pub(crate) fn recover(&mut self) {
        self.includes = 0;
        self.context.cancel_calls_with(CancelToken::default());
    }

    /// Runs a statement.
    pub(crate) async fn run_sql(&self, sql: &str) -> Result<()> {
        self.run_sql_at(Position { line: 1, indent: 0 }, sql).await
    }

    async fn run_sql_at(&self, position: Position, sql: &str) -> Result<()> {
        // The parser counts lines and columns from the start of what it gets.
        let padded = format!("{}{}{sql}", "\n".repeat(position.line - 1), " ".repeat(position.indent));
        for statement in parse_sql(&padded, self.dialect().as_ref())? {
            self.run_statement(statement, sql).await?;
        }
        Ok(())
    }

    /// The dialect that the session's options name at this moment.
    pub(crate) fn dialect(&self) -> Box<dyn Dialect> {
        let dialect = self.context.state_ref().read().config_options().sql_parser.dialect;
        dialect_from_str(dialect).unwrap_or_else(|| Box::new(GenericDialect {}))
    }

    async fn run_statement(&self, statement: PredictStatement, sql: &str) -> Result<()> {
        // Calls that are made as functions block the task that would be dropped.
        let cancel = CancelToken::default();
        let _cancel = cancel.cancel_on_drop();
        self.context.cancel_calls_with(cancel);
        let logged = logging::Statement::begin();
        let ran = self.run_cancellable(statement, sql).await;
        logged.end(&ran);
        self.context.cancel_calls_with(CancelToken::default());
        ran
    }

    async fn run_cancellable(&self, statement: PredictStatement, sql: &str) -> Result<()> {
        let start = Instant::now();
        if stores::is_external_table(&statement) {
            stores::create_external_table(&self.context, sql, &self.workers).await?;
            self.printer.status(None, start);
            return Ok(());
        }
        if let PredictStatement::RunJob { name, reason } = statement {
            let (context, quiet) = (self.context.clone(), self.printer.quiet);
            let running = async move {
                let summary = job::run(&context, &name, reason, quiet).await?;
                let frame = context.read_batch(job_summary(&name, &summary)?)?;
                let task = Arc::new(frame.task_ctx());
                Ok((frame.create_physical_plan().await?, task))
            };
            let (plan, task) = on(&self.workers, running).await?;
            return self.print(plan, task, MaxRows::Unlimited, start).await;
        }
        stores::register_target(&self.context, &statement, &self.workers).await?;
        let creates = matches!(statement, PredictStatement::CreateModel(_));
        let maxrows = if is_query(&statement) { self.printer.maxrows } else { MaxRows::Unlimited };

        let changed = changed_model(&statement);
        let context = self.context.clone();
        let planning = async move {
            let frame = run_statement(&context, statement).await?;
            let task = Arc::new(frame.task_ctx());
            Ok((frame.create_physical_plan().await?, task))
        };
        let mut planned = std::pin::pin!(on(&self.workers, planning));
        let mut progress = Progress::new(None, self.predict.clone(), start, !self.printer.quiet);
        let (plan, task) = loop {
            tokio::select! {
                biased;
                planned = &mut planned => break planned?,
                () = progress.due() => progress.show(),
            }
        };
        drop(progress);
        if let Some(note) = changed.and_then(|name| self.stands_for(&name)) {
            self.printer.note(&note);
        }
        if creates && self.printer.quiet {
            return Ok(()); // standard output holds the results of queries alone
        }
        self.print(plan, task, maxrows, start).await
    }

    async fn print(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        task: Arc<TaskContext>,
        maxrows: MaxRows,
        start: Instant,
    ) -> Result<()> {
        let stream = self.execute(plan.clone(), task.clone());
        let rows = Rows { stream, plan, task, predict: self.predict.clone(), maxrows };
        self.printer.print(rows, start).await
    }

    /// What the model's name stands for now.
    fn stands_for(&self, name: &str) -> Option<String> {
        let snapshot = self.predict.catalog().snapshot();
        let model = snapshot.get(name)?;
        let version = model.default_version()?.version;
        let newest = if model.last_version == version {
            String::new()
        } else {
            format!(", the newest is {}", model.last_version)
        };
        let split =
            model.traffic.as_ref().map(|traffic| format!(", its calls are split: {traffic}")).unwrap_or_default();
        Some(format!("model {name} is version {version}{newest}{split}"))
    }

    /// The rows of `plan`; dropping them ends the work.
    fn execute(&self, plan: Arc<dyn ExecutionPlan>, task: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut batches = RecordBatchReceiverStream::builder(plan.schema(), BATCHES_AHEAD);
        let sender = batches.tx();
        let work = panics::caught(async move {
            let mut stream = execute_stream(plan, task)?;
            while let Some(batch) = stream.next().await {
                // Nobody listens to what is left of a cancelled query.
                if sender.send(batch).await.is_err() {
                    break;
                }
            }
            Ok(())
        });
        batches.spawn_on(work, &self.workers);
        batches.build()
    }
}

/// Runs `work` on `workers`; dropping the future ends it.
async fn on<T: Send + 'static>(workers: &Handle, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let task = {
        let _entered = workers.enter();
        SpawnedTask::spawn(work)
    };
    task.join().await.map_err(|error| match error.try_into_panic() {
        Ok(panic) => panics::error(panic.as_ref()),
        Err(error) => exec_datafusion_err!("{error}"),
    })?
}

/// The model that `statement` changes.
fn changed_model(statement: &PredictStatement) -> Option<String> {
    match statement {
        PredictStatement::CreateModel(create) => Some(create.name.clone()),
        PredictStatement::AlterModel(change) => Some(change.model().to_owned()),
        _ => None,
    }
}

/// Whether `--maxrows` is for it: all else, such as EXPLAIN or SHOW, is shown whole.
fn is_query(statement: &PredictStatement) -> bool {
    let PredictStatement::DataFusion(statement) = statement else {
        return false;
    };
    let Statement::Statement(statement) = statement.as_ref() else {
        return false;
    };
    matches!(statement.as_ref(), SqlStatement::Query(_) | SqlStatement::Execute { .. })
}
