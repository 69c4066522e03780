//! The SQL shell of datafusion-predict: models are called in SQL like functions.
//!
//! ```text
//!  -c, -f, standard input ─┐                                   ┌─► stores (CREATE EXTERNAL TABLE, COPY)
//!                          ├─► script ─► pieces ─► shell ─► run ┤
//!  terminal ─► repl ───────┘              │                     └─► library ─► plan ─► rows ─► print ─► stdout
//!               └ completion              └─► command (\d …)                     └─► progress ─► stderr
//! ```

mod args;
mod command;
mod completion;
mod context;
mod credentials;
mod help;
mod input;
mod job;
mod logging;
mod message;
mod metrics;
mod panics;
mod print;
mod progress;
mod repl;
mod script;
mod shell;
mod stores;
mod write;

use std::fs;
use std::io::{IsTerminal, Read};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use datafusion::common::{exec_datafusion_err, exec_err};
use datafusion::error::Result;
use datafusion_predict::{ByteSize, ObjectStoreCatalog, PredictRuntime, RunReason};
use tokio::runtime::{Builder, Handle, Runtime};

use args::{Action, Args, Source};
use print::Printer;
use shell::{Flow, Shell};

/// How long the end waits for running inferences to notice that they are cancelled.
const GRACE: Duration = Duration::from_millis(100);

/// Bytes of a worker's stack, of which only what is used takes memory: DataFusion goes down expressions and plans by
/// recursion, and a statement may have hundreds of branches.
const STACK: usize = 64 << 20;

fn main() -> ExitCode {
    let (args, sources) = args::parse();
    panics::keep_quiet();
    let job = match &args.action {
        Some(Action::Run { job, .. }) => Some(job.clone()),
        _ => None,
    };
    logging::start(args.log_format, job);
    let workers = Builder::new_multi_thread().enable_all().thread_stack_size(STACK).build();
    let runtimes = workers.and_then(|workers| Ok((workers, Builder::new_current_thread().enable_all().build()?)));
    let (workers, front) = match runtimes {
        Ok(runtimes) => runtimes,
        Err(error) => {
            eprintln!("error: no threads to work with: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = run(&front, workers.handle(), &args, &sources);
    // Work that can't be stopped at once must not hold up the end.
    workers.shutdown_timeout(GRACE);
    match ended {
        Ok(code) => code,
        // Who reads our output has seen enough, as in `… | head`.
        Err(error) if message::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", message::of(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(front: &Runtime, workers: &Handle, args: &Args, sources: &[Source]) -> Result<ExitCode> {
    let interactive = args.action.is_none() && sources.is_empty() && std::io::stdin().is_terminal();
    let sql_on_stdin = sources.is_empty() || sources.iter().any(Source::is_stdin);
    let mut predict = PredictRuntime::builder()
        .with_file_functions()
        .with_model_memory(args.model_memory.0)
        .with_cache_size(args.cache_size.0)
        .with_download_limit(args.download_limit.0);
    if let Some(uri) = &args.catalog {
        predict = predict.with_catalog(Arc::new(workers.block_on(ObjectStoreCatalog::open(uri))?));
    }
    if let Some(library) = &args.onnxruntime {
        predict = predict.with_onnxruntime(library.clone());
    }
    for library in &args.provider_library {
        predict = predict.with_provider_library(library.clone());
    }
    for (device, name, value) in &args.provider_option {
        predict = predict.with_provider_option(*device, name, value);
    }
    if let Some(ByteSize(bytes)) = args.onnxruntime_memory {
        predict = predict.with_onnxruntime_memory(bytes);
    }
    let predict = Arc::new(predict.build());
    let context = workers.block_on(context::build(args, predict.clone(), sql_on_stdin))?;
    let served = match args.metrics {
        Some(address) => match metrics::serve(address, context.clone(), predict.clone(), workers) {
            Ok(address) => Some(address),
            // Another process may serve there: no reason not to run a job.
            Err(error) if matches!(args.action, Some(Action::Run { .. })) => {
                eprintln!("warning: {}", message::of(&error));
                None
            }
            Err(error) => return Err(error),
        },
        None => None,
    };
    if let Some(Action::Watch) = &args.action {
        let Some(address) = served else {
            return exec_err!("expected the address where metrics are served: --metrics 127.0.0.1:9464");
        };
        eprintln!("metrics are served at http://{address}/metrics");
        workers.block_on(tokio::signal::ctrl_c())?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(Action::Run { job, full, retry_errors, json }) = &args.action {
        let reason = match (full, retry_errors) {
            (true, _) => RunReason::Full,
            (_, true) => RunReason::Retry,
            _ => RunReason::New,
        };
        return Ok(workers.block_on(job::run_to_exit(&context, job, reason, args.quiet, *json)));
    }
    let printer = Printer { format: args.format, maxrows: args.maxrows, quiet: args.quiet, timing: true };
    let mut shell = Shell::new(context, predict, printer, workers.clone(), args.echo);
    if interactive {
        repl::run(front, &mut shell, args.color)?;
        return Ok(ExitCode::SUCCESS);
    }
    let stdin = [Source::Stdin];
    for source in if sources.is_empty() { &stdin } else { sources } {
        let (name, text) = read(source)?;
        if front.block_on(panics::caught(shell.run_script(&text, name.as_deref())))? == Flow::Quit {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The name of a source, if it has one, and its text.
fn read(source: &Source) -> Result<(Option<String>, String)> {
    let (name, read) = match source {
        Source::Command(sql) => return Ok((None, sql.clone())),
        Source::File(path) => (path.display().to_string(), fs::read_to_string(path)),
        Source::Stdin => {
            let mut text = String::new();
            ("standard input".to_owned(), std::io::stdin().read_to_string(&mut text).map(|_| text))
        }
    };
    let text = read.map_err(|error| exec_datafusion_err!("can't read {name}: {error}"))?;
    Ok((Some(name), text))
}
