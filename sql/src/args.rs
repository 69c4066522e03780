//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{ArgMatches, ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand};
use datafusion_cli::print_format::PrintFormat;
use datafusion_cli::print_options::MaxRows;
use datafusion_predict::{ByteSize, Device};

use crate::logging::LogFormat;

/// SQL with machine-learning models, on Apache DataFusion.
///
/// Without --command and --file: a shell in a terminal, else SQL from standard input.
#[derive(Debug, Parser)]
#[command(name = "datafusion-predict", version, args_conflicts_with_subcommands = false)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub action: Option<Action>,

    /// Run this SQL, then exit; may be given several times, and with --file
    #[arg(short, long, value_name = "SQL")]
    command: Vec<String>,

    /// Run the SQL in this file ('-' is standard input), then exit
    #[arg(short, long, value_name = "FILE")]
    file: Vec<PathBuf>,

    /// How results are written
    #[arg(long, default_value = "automatic", value_parser = format_parser())]
    pub format: PrintFormat,

    /// Print results alone: no banner, row counts, times or progress
    #[arg(short, long, global = true)]
    pub quiet: bool,

    /// Print each statement before its result
    #[arg(short, long)]
    pub echo: bool,

    /// How many rows of a query a table shows, or 'none' for all
    #[arg(long, default_value = "40", value_name = "N")]
    pub maxrows: MaxRows,

    /// Where models are kept: a folder, s3://…, gs://… or az://…; without it they last as long as the process
    #[arg(long, value_name = "URI", env = "DATAFUSION_PREDICT_CATALOG", global = true)]
    pub catalog: Option<String>,

    /// The library of ONNX Runtime
    #[arg(long, value_name = "PATH", global = true)]
    pub onnxruntime: Option<PathBuf>,

    /// A plug-in of ONNX Runtime that brings devices, such as that of onnxruntime-ep-openvino; may be given several times
    #[arg(long, value_name = "PATH", global = true)]
    pub provider_library: Vec<PathBuf>,

    /// An option of a kind of devices' provider, for all models, such as tensorrt.trt_engine_cache_enable=0; may be given several times
    #[arg(long, value_name = "DEVICE.NAME=VALUE", value_parser = parse_provider_option, global = true)]
    pub provider_option: Vec<(Device, String, String)>,

    /// How much memory queries may take, such as 512m or 4g
    #[arg(short, long, value_name = "SIZE", value_parser = parse_memory, global = true)]
    pub memory_limit: Option<usize>,

    /// How much memory loaded models may take before the least recently used are unloaded; 0 is no limit
    #[arg(long, value_name = "SIZE", default_value = "0", env = "DATAFUSION_PREDICT_MODEL_MEMORY", global = true)]
    pub model_memory: ByteSize,

    /// How much memory all runs of ONNX Runtime on the CPU may take; 0 is no limit [default: half of the machine's]
    #[arg(long, value_name = "SIZE", env = "DATAFUSION_PREDICT_ONNXRUNTIME_MEMORY", global = true)]
    pub onnxruntime_memory: Option<ByteSize>,

    /// How much of the disk models that were fetched from afar may take before some are removed
    #[arg(long, value_name = "SIZE", default_value = "10g", env = "DATAFUSION_PREDICT_CACHE_SIZE", global = true)]
    pub cache_size: ByteSize,

    /// The largest file of a model that is fetched from afar
    #[arg(long, value_name = "SIZE", default_value = "8g", env = "DATAFUSION_PREDICT_DOWNLOAD_LIMIT", global = true)]
    pub download_limit: ByteSize,

    /// Serve metrics for Prometheus at http://ADDRESS/metrics, such as 127.0.0.1:9464
    #[arg(long, value_name = "ADDRESS", env = "DATAFUSION_PREDICT_METRICS", global = true)]
    pub metrics: Option<SocketAddr>,

    /// How the log is written to standard error
    #[arg(long, value_name = "FORMAT", default_value = "text", env = "DATAFUSION_PREDICT_LOG_FORMAT", global = true)]
    pub log_format: LogFormat,

    /// Colors in the shell
    #[arg(long, default_value = "auto", value_name = "WHEN")]
    pub color: ColorChoice,
}

/// The subcommands: `run` a job, `watch` the catalog. Without one, the shell runs SQL.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub(crate) enum Action {
    /// Run a job to its end. Exit code: 0 all is scored, 3 some rows or files were set aside, 1 the run has failed
    Run {
        /// The job
        job: String,

        /// Score all again, not only what is new or has changed
        #[arg(long)]
        full: bool,

        /// Score again what was set aside
        #[arg(long, conflicts_with = "full")]
        retry_errors: bool,

        /// Print a summary of the run in JSON
        #[arg(long)]
        json: bool,
    },
    /// Serve metrics of this process and of the catalog's jobs (--metrics), until it is ended
    Watch,
}

/// Where SQL comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Command(String),
    File(PathBuf),
    Stdin,
}

impl Source {
    pub(crate) fn is_stdin(&self) -> bool {
        match self {
            Self::Command(_) => false,
            Self::File(path) => datafusion_cli::object_storage::is_stdin_location(&path.to_string_lossy()),
            Self::Stdin => true,
        }
    }
}

/// The arguments, and the sources of SQL among them in the order given. Exits where they are wrong.
pub(crate) fn parse() -> (Args, Vec<Source>) {
    let matches = Args::command().get_matches();
    let args = Args::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let sources = sources(&args, &matches);
    (args, sources)
}

fn sources(args: &Args, matches: &ArgMatches) -> Vec<Source> {
    let places = |name| matches.indices_of(name).into_iter().flatten();
    let commands = places("command").zip(args.command.iter().map(|sql| Source::Command(sql.clone())));
    let files = places("file").zip(
        args.file.iter().map(|path| if path.as_os_str() == "-" { Source::Stdin } else { Source::File(path.clone()) }),
    );
    let mut sources: Vec<_> = commands.chain(files).collect();
    sources.sort_by_key(|(place, _)| *place);
    sources.into_iter().map(|(_, source)| source).collect()
}

/// The names of the formats; `nd-json` is datafusion-cli's spelling.
pub(crate) const FORMATS: [(&str, PrintFormat); 6] = [
    ("table", PrintFormat::Table),
    ("csv", PrintFormat::Csv),
    ("tsv", PrintFormat::Tsv),
    ("json", PrintFormat::Json),
    ("ndjson", PrintFormat::NdJson),
    ("automatic", PrintFormat::Automatic),
];

/// The format of this name.
pub(crate) fn format_of(name: &str) -> Option<PrintFormat> {
    let name = if name == "nd-json" { "ndjson" } else { name };
    FORMATS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, format)| *format)
}

fn format_parser() -> impl TypedValueParser<Value = PrintFormat> {
    let names = FORMATS.map(|(name, _)| match name {
        "ndjson" => PossibleValue::new(name).alias("nd-json"),
        name => PossibleValue::new(name),
    });
    PossibleValuesParser::new(names).map(|name| format_of(&name).expect("the parser takes these names only"))
}

/// A number of bytes that this machine can address, and more than none.
fn parse_memory(text: &str) -> Result<usize, String> {
    let ByteSize(bytes) = text.parse()?;
    match usize::try_from(bytes) {
        Ok(bytes) if bytes > 0 => Ok(bytes),
        _ => Err("expected a size that this machine can address, from 1 on".to_owned()),
    }
}

/// `cuda.use_tf32=1`: the device, the option as its provider writes it, and its value.
fn parse_provider_option(text: &str) -> Result<(Device, String, String), String> {
    let parts = text.split_once('=').and_then(|(option, value)| Some((option.split_once('.')?, value)));
    let Some(((device, name), value)) = parts.filter(|((_, name), _)| !name.is_empty()) else {
        return Err("expected DEVICE.NAME=VALUE, such as cuda.use_tf32=1".to_owned());
    };
    match device.parse() {
        Ok(Device::Cpu | Device::Auto) => Err(format!("device '{device}' has no provider with options")),
        Ok(_) if device.contains(':') => Err("it is for all devices of a kind: expected no number".to_owned()),
        Ok(device) => Ok((device, name.to_owned(), value.to_owned())),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_keep_their_order() {
        let line = ["x", "-c", "a", "-f", "b.sql", "-c", "c", "-f", "-"];
        let matches = Args::command().get_matches_from(line);
        let args = Args::from_arg_matches(&matches).expect("valid");
        let command = |sql: &str| Source::Command(sql.to_owned());
        let expected = [command("a"), Source::File("b.sql".into()), command("c"), Source::Stdin];
        assert_eq!(sources(&args, &matches), expected);
    }

    #[test]
    fn memory_is_more_than_none() {
        assert_eq!(parse_memory("4GiB"), Ok(4 << 30));
        for wrong in ["", "0", "1x"] {
            assert!(parse_memory(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_option_of_a_provider_has_a_device_a_name_and_a_value() {
        let expected = (Device::TensorRt(0), "trt_engine_cache_path".to_owned(), "/a=b".to_owned());
        assert_eq!(parse_provider_option("tensorrt.trt_engine_cache_path=/a=b"), Ok(expected));
        for wrong in ["", "cuda", "cuda.x", "cuda.=1", "cpu.x=1", "gpu.x=1", "use_tf32=1", "cuda:1.x=1"] {
            assert!(parse_provider_option(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
        assert_eq!(Args::parse_from(["x", "--format", "nd-json"]).format, PrintFormat::NdJson);
        let args = Args::parse_from(["x", "run", "nightly", "--catalog", "models", "--json"]);
        assert_eq!(args.catalog.as_deref(), Some("models"));
        let run = Action::Run { job: "nightly".to_owned(), full: false, retry_errors: false, json: true };
        assert_eq!(args.action, Some(run));
    }
}
