//! `--log-format`: what the library logs, on standard error, as text or as one JSON object a line.

use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use clap::ValueEnum;
use datafusion::error::Result;
use log::{Level, LevelFilter, Log, Metadata, Record};
use serde_json::{Map, Value, json};

use crate::{credentials, message};

/// How lines of the log are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Warnings and errors, for people
    Text,
    /// One JSON object a line: time, level, target, message, process, job, run, query
    Json,
    /// The same with the names of the Elastic Common Schema
    Ecs,
}

struct Logger {
    format: LogFormat,
    /// The job that this process was started to run.
    job: Option<String>,
    /// Tells what this process logs from what others do.
    process: String,
    host: String,
}

/// The ids that each line carries: of the run and of the statement at work. A process works at one of each at a time.
static AT: Mutex<At> = Mutex::new(At { run: None, query: None });

#[derive(Debug, Clone)]
struct At {
    /// A job, and the number of its run, as in `predict.job_runs`.
    run: Option<(String, u64)>,
    /// A statement; an id of its own, so that its lines are told from those of others.
    query: Option<String>,
}

fn at<T>(look: impl FnOnce(&mut At) -> T) -> T {
    look(&mut AT.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The run that lines belong to from now on.
pub(crate) fn at_run(run: Option<(&str, u64)>) {
    at(|at| at.run = run.map(|(job, run)| (job.to_owned(), run)));
}

/// A statement at work: lines carry its id until this is dropped.
pub(crate) struct Statement {
    start: Instant,
}

impl Statement {
    /// Lines belong to a new statement from now on.
    pub(crate) fn begin() -> Self {
        at(|at| at.query = Some(uuid::Uuid::new_v4().to_string()));
        Self { start: Instant::now() }
    }

    /// Logs how it went. Its text may be a secret, and is not logged.
    pub(crate) fn end(self, ran: &Result<()>) {
        let seconds = self.start.elapsed().as_secs_f64();
        match ran {
            Ok(()) => log::info!("the statement has ended after {seconds:.3} s"),
            // In text, which begins at warnings, it stands on standard error already.
            Err(error) if log::log_enabled!(Level::Info) => {
                log::error!("the statement has failed after {seconds:.3} s: {}", message::of(error))
            }
            Err(_) => {}
        }
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        at(|at| at.query = None);
    }
}

/// Logs from now on.
pub(crate) fn start(format: LogFormat, job: Option<String>) {
    let host = whoami::hostname().unwrap_or_else(|_| "unknown".to_owned());
    let process = format!("{host}-{}", std::process::id());
    let level = if format == LogFormat::Text { LevelFilter::Warn } else { LevelFilter::Info };
    if log::set_boxed_logger(Box::new(Logger { format, job, process, host })).is_ok() {
        log::set_max_level(level);
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        // What libraries below say of themselves is for their debugging.
        metadata.target().starts_with("datafusion_predict") || metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            let line = self.line(record, SystemTime::now(), &at(|at| at.clone()));
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        }
    }

    fn flush(&self) {}
}

impl Logger {
    /// The job, its run and the statement, as far as there are any: as texts, which labels are in ECS.
    fn ids(&self, at: &At) -> Map<String, Value> {
        let job = at.run.as_ref().map(|(job, _)| job).or(self.job.as_ref()).cloned();
        let run = at.run.as_ref().map(|(_, run)| run.to_string());
        let ids = [("job", job), ("run", run), ("query", at.query.clone())];
        ids.into_iter().filter_map(|(name, id)| Some((name.to_owned(), id?.into()))).collect()
    }

    fn line(&self, record: &Record, time: SystemTime, at: &At) -> String {
        let message = record.args().to_string();
        let message =
            if credentials::may_be_in(&message) { "(a message that may hold credentials)".to_owned() } else { message };
        let level = record.level().as_str().to_lowercase();
        let time = humantime::format_rfc3339_millis(time).to_string();
        match self.format {
            LogFormat::Text => format!("{level}: {message}"),
            LogFormat::Json => {
                let mut line = json!({
                    "time": time, "level": level, "target": record.target(), "message": message, "process": self.process,
                });
                if let Value::Object(line) = &mut line {
                    line.extend(self.ids(at));
                }
                line.to_string()
            }
            LogFormat::Ecs => json!({
                "@timestamp": time,
                "log.level": level,
                "message": message,
                "ecs.version": "8.11.0",
                "service.name": "datafusion-predict",
                "service.version": env!("CARGO_PKG_VERSION"),
                "service.node.name": self.process,
                "host.hostname": self.host,
                "process.pid": std::process::id(),
                "log.logger": record.target(),
                "labels": self.ids(at),
            })
            .to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: LogFormat, message: &str) -> String {
        let (process, host) = ("h-1".to_owned(), "h".to_owned());
        let logger = Logger { format, job: Some("nightly".to_owned()), process, host };
        let mut record = Record::builder();
        record.level(Level::Warn).target("datafusion_predict::job");
        let at = At { run: Some(("nightly".to_owned(), 7)), query: Some("q".to_owned()) };
        logger.line(&record.args(format_args!("{message}")).build(), SystemTime::UNIX_EPOCH, &at)
    }

    #[test]
    fn lines_are_text_or_json_and_hold_no_secrets() {
        assert_eq!(line(LogFormat::Text, "a \"b\""), "warn: a \"b\"");
        let json: Value = serde_json::from_str(&line(LogFormat::Json, "a \"b\"\n")).expect("one line of JSON");
        assert_eq!((&json["message"], &json["job"]), (&"a \"b\"\n".into(), &"nightly".into()));
        let ecs: Value = serde_json::from_str(&line(LogFormat::Ecs, "x")).expect("one line of JSON");
        assert_eq!((&ecs["@timestamp"], &ecs["log.level"]), (&"1970-01-01T00:00:00.000Z".into(), &"warn".into()));
        assert!(ecs["process.pid"].is_u64());
        assert_eq!(ecs["labels"], serde_json::json!({ "job": "nightly", "run": "7", "query": "q" }));
        assert!(!line(LogFormat::Ecs, "OPTIONS ('aws.secret_access_key' 'xyz')").contains("xyz"));
    }
}
