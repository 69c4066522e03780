//! `--log-format`: what the library logs, on standard error, as text or as one JSON object a line.

use std::io::Write;
use std::time::SystemTime;

use clap::ValueEnum;
use log::{Level, LevelFilter, Log, Metadata, Record};
use serde_json::{Map, Value, json};

use crate::credentials;

/// How lines of the log are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Warnings and errors, for people
    Text,
    /// One JSON object a line: time, level, target, message, job
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
            let line = self.line(record, SystemTime::now());
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        }
    }

    fn flush(&self) {}
}

impl Logger {
    fn line(&self, record: &Record, at: SystemTime) -> String {
        let message = record.args().to_string();
        let message =
            if credentials::may_be_in(&message) { "(a message that may hold credentials)".to_owned() } else { message };
        let level = record.level().as_str().to_lowercase();
        let time = humantime::format_rfc3339_millis(at).to_string();
        match self.format {
            LogFormat::Text => format!("{level}: {message}"),
            LogFormat::Json => {
                let mut line = json!({
                    "time": time, "level": level, "target": record.target(), "message": message, "process": self.process,
                });
                if let (Some(job), Value::Object(line)) = (&self.job, &mut line) {
                    line.insert("job".to_owned(), job.as_str().into());
                }
                line.to_string()
            }
            LogFormat::Ecs => {
                let mut labels = Map::new();
                if let Some(job) = &self.job {
                    labels.insert("job".to_owned(), job.as_str().into());
                }
                json!({
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
                    "labels": labels,
                })
                .to_string()
            }
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
        logger.line(&record.args(format_args!("{message}")).build(), SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn lines_are_text_or_json_and_hold_no_secrets() {
        assert_eq!(line(LogFormat::Text, "a \"b\""), "warn: a \"b\"");
        let json: Value = serde_json::from_str(&line(LogFormat::Json, "a \"b\"\n")).expect("one line of JSON");
        assert_eq!((&json["message"], &json["job"]), (&"a \"b\"\n".into(), &"nightly".into()));
        let ecs: Value = serde_json::from_str(&line(LogFormat::Ecs, "x")).expect("one line of JSON");
        assert_eq!((&ecs["@timestamp"], &ecs["log.level"]), (&"1970-01-01T00:00:00.000Z".into(), &"warn".into()));
        assert!(ecs["process.pid"].is_u64() && ecs["labels"].is_object());
        assert!(!line(LogFormat::Ecs, "OPTIONS ('aws.secret_access_key' 'xyz')").contains("xyz"));
    }
}
