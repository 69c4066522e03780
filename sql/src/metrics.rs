//! `--metrics`: what this process does, and how the catalog's jobs are, for Prometheus and its kin (OpenMetrics over HTTP).

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use datafusion::common::exec_datafusion_err;
use datafusion::error::Result;
use datafusion::prelude::SessionContext;
use datafusion_predict::{Job, ModelTotals, PredictRuntime, RunStatus, RunSummary};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use tokio::net::TcpListener;
use tokio::runtime::Handle;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The content type of Prometheus' older text format, for scrapers that do not ask for OpenMetrics.
const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

type Labels = Vec<(&'static str, String)>;
type Counts = Family<Labels, Counter<f64, AtomicU64>>;
type Levels = Family<Labels, Gauge<f64, AtomicU64>>;

/// What metrics are made of.
#[derive(Clone)]
struct Watched {
    context: SessionContext,
    predict: Arc<PredictRuntime>,
}

/// Serves metrics at `address` as long as the process lives, on `workers`; gives the address in full.
///
/// # Errors
/// An address that can't be listened at.
pub(crate) fn serve(
    address: SocketAddr,
    context: SessionContext,
    predict: Arc<PredictRuntime>,
    workers: &Handle,
) -> Result<SocketAddr> {
    let listener = workers.block_on(TcpListener::bind(address));
    let listener = listener.map_err(|cause| exec_datafusion_err!("metrics can't be served at {address}: {cause}"))?;
    let address = listener.local_addr()?; // with the port, if any would do
    log::info!("metrics are served at http://{address}/metrics");
    let router = Router::new().route("/metrics", get(metrics)).with_state(Watched { context, predict });
    workers.spawn(async move {
        if let Err(cause) = axum::serve(listener, router).await {
            log::error!("metrics are not served any more: {cause}");
        }
    });
    Ok(address)
}

async fn metrics(State(watched): State<Watched>, headers: HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT).and_then(|accepted| accepted.to_str().ok());
    let wants_openmetrics = accepted.is_some_and(|accepted| accepted.contains("application/openmetrics-text"));
    match gather(&watched).await {
        Ok(text) if wants_openmetrics => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Ok(text) => ([(header::CONTENT_TYPE, PLAIN)], plain(&text)).into_response(),
        Err(cause) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{cause}\n")).into_response(),
    }
}

/// The older format, in which a counter has one name: OpenMetrics describes `x`, whose sample is `x_total`.
fn plain(openmetrics: &str) -> String {
    let counters: HashSet<&str> =
        openmetrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut text = String::new();
    for line in openmetrics.lines().filter(|line| !line.starts_with("# UNIT ") && *line != "# EOF") {
        let described = ["# HELP ", "# TYPE "].iter().find_map(|kind| Some((kind, line.strip_prefix(kind)?)));
        match described.and_then(|(kind, rest)| Some((kind, rest.split_once(' ')?))) {
            Some((kind, (name, rest))) if counters.contains(name) => {
                text.push_str(&format!("{kind}{name}_total {rest}"))
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

async fn gather(watched: &Watched) -> Result<String> {
    let mut registry = Registry::with_prefix("predict");
    models(&mut registry, &watched.predict.model_totals());
    process(&mut registry, watched);
    // A catalog that does not answer must not hide what this process does.
    match jobs_of(watched).await {
        Ok(jobs) => jobs_metrics(&mut registry, &jobs),
        Err(cause) => log::warn!("there are no metrics of jobs: {cause}"),
    }
    let mut text = String::new();
    encode(&mut text, &registry).map_err(|cause| exec_datafusion_err!("metrics can't be written: {cause}"))?;
    Ok(text)
}

fn models(registry: &mut Registry, models: &[ModelTotals]) {
    let labels = |model: &ModelTotals| -> Labels {
        let version = model.version.map(|version| version.to_string()).unwrap_or_default();
        vec![("model", model.model.clone()), ("version", version)]
    };
    let mut count = |name: &str, help: &str, value: fn(&ModelTotals) -> f64| {
        let family = Counts::default();
        for model in models {
            family.get_or_create(&labels(model)).inc_by(value(model));
        }
        registry.register(name, help, family);
    };
    count("rows_scored", "Rows that were given to the model", |model| model.rows as f64);
    count("batches", "Runs of the model", |model| model.batches as f64);
    count("rows_failed", "Rows that the model could not score", |model| model.rows_failed as f64);
    count("tokens", "Tokens that were given to a model of texts", |model| model.tokens as f64);
    count(
        "texts_truncated",
        "Texts of which a part was left out, since they had more tokens than the model takes",
        |model| model.texts_truncated as f64,
    );
    count("model_loads", "How often the model was loaded", |model| model.loads as f64);
    let phases = Counts::default();
    for model in models {
        let times = [("wait", model.wait), ("encode", model.encode), ("run", model.run), ("decode", model.decode)];
        for (phase, time) in times {
            let labels = labels(model).into_iter().chain([("phase", phase.to_owned())]).collect();
            phases.get_or_create(&labels).inc_by(time.as_secs_f64());
        }
    }
    registry.register_with_unit("phase", "Time of scoring by phase, over all cores", Unit::Seconds, phases);
}

fn process(registry: &mut Registry, watched: &Watched) {
    let mut level = |name: &str, help: &str, values: Vec<(Labels, f64)>| {
        let family = Levels::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(value);
        }
        registry.register(name, help, family);
    };
    let cores = watched.predict.cores();
    level("cores", "Cores that runs of models share", vec![(vec![], cores.total() as f64)]);
    level("cores_free", "Cores that no run uses now", vec![(vec![], cores.free() as f64)]);
    level("runs_waiting", "Runs of models that wait for cores", vec![(vec![], cores.waiting() as f64)]);
    let loaded = watched.predict.model_memory().into_iter().map(|(label, engine, bytes)| {
        let (model, version) = label.rsplit_once('/').unwrap_or((&label, ""));
        let labels: [(&'static str, &str); 3] = [("model", model), ("version", version), ("engine", &engine)];
        (labels.map(|(name, value)| (name, value.to_owned())).to_vec(), bytes as f64)
    });
    level("model_memory_bytes", "Memory that a loaded model takes", loaded.collect());
    let reserved = watched.context.runtime_env().memory_pool.reserved();
    level("query_memory_bytes", "Memory that queries have reserved", vec![(vec![], reserved as f64)]);
    let downloads = watched.predict.downloads().len();
    level("downloads", "Files of models that are being fetched", vec![(vec![], downloads as f64)]);
}

/// A job, its run that is under way, and those that have ended.
struct JobStatus {
    name: String,
    running: Option<RunSummary>,
    runs: Vec<Arc<RunSummary>>,
}

async fn jobs_of(watched: &Watched) -> Result<Vec<JobStatus>> {
    if watched.predict.catalog().jobs().is_none() {
        return Ok(vec![]);
    }
    let mut jobs = vec![];
    for job in Job::all(&watched.context).await? {
        let (running, runs) = (job.running().await?, job.runs().await?);
        jobs.push(JobStatus { name: job.name().to_owned(), running, runs });
    }
    Ok(jobs)
}

fn jobs_metrics(registry: &mut Registry, jobs: &[JobStatus]) {
    let of = |job: &JobStatus| -> Labels { vec![("job", job.name.clone())] };
    let with = |job: &JobStatus, name: &'static str, value: &str| -> Labels {
        vec![("job", job.name.clone()), (name, value.to_owned())]
    };
    let mut level = |name: &str, help: &str, values: Vec<(Labels, f64)>| {
        let family = Levels::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(value);
        }
        registry.register(name, help, family);
    };
    let good = |run: &&Arc<RunSummary>| matches!(run.status, RunStatus::Done | RunStatus::DoneWithErrors);
    let succeeded = |job: &JobStatus| job.runs.iter().rev().find(good).cloned();
    // A run that had nothing to score says nothing of scores and rates.
    let scored = |job: &JobStatus| job.runs.iter().rev().filter(good).find(|run| run.rows_out > 0).cloned();
    let each = |value: &dyn Fn(&JobStatus) -> Option<f64>| -> Vec<(Labels, f64)> {
        jobs.iter().filter_map(|job| Some((of(job), value(job)?))).collect()
    };

    level(
        "job_running",
        "Whether a run of the job is under way",
        each(&|job| Some(f64::from(u8::from(job.running.is_some())))),
    );
    let splits = jobs.iter().flat_map(|job| {
        let (done, all) = job.running.as_ref().map_or((0, 0), |run| (run.splits_done, run.splits));
        let states = [("done", done), ("waiting", all - done.min(all))];
        states.map(|(state, count)| (with(job, "state", state), f64::from(count)))
    });
    level("job_splits", "Splits of the run that is under way, by state", splits.collect());
    level(
        "job_last_success_timestamp_seconds",
        "When the last run ended that scored what there was",
        each(&|job| succeeded(job).map(|run| run.ended_at as f64 / 1e6)),
    );
    let last = |job: &JobStatus| job.runs.last().cloned();
    level(
        "job_last_run_timestamp_seconds",
        "When the last run ended",
        each(&|job| last(job).map(|run| run.ended_at as f64 / 1e6)),
    );
    level(
        "job_last_run_failed",
        "Whether the last run has failed or was cancelled",
        each(&|job| last(job).map(|run| f64::from(u8::from(!good(&&run))))),
    );
    let rows = jobs.iter().filter_map(|job| Some((job, scored(job)?))).flat_map(|(job, run)| {
        let kinds = [("in", run.rows_in), ("out", run.rows_out), ("set_aside", run.rows_set_aside)];
        kinds.map(|(kind, rows)| (with(job, "kind", kind), rows as f64))
    });
    level("job_last_run_rows", "Rows of the last run that scored any", rows.collect());
    level(
        "job_last_run_files_failed",
        "Files that the last run could not score",
        each(&|job| last(job).map(|run| run.files_failed as f64)),
    );
    level(
        "job_last_run_seconds",
        "How long the last run took that scored any rows",
        each(&|job| scored(job).map(|run| seconds(&run))),
    );
    level(
        "job_last_run_rows_per_second",
        "Rows that the last run scored a second",
        each(&|job| scored(job).map(|run| run.rows_out as f64 / seconds(&run).max(1e-3))),
    );
    let means = jobs.iter().filter_map(|job| Some((job, scored(job)?))).flat_map(|(job, run)| {
        let means: Vec<_> = run.means.iter().map(|(column, mean)| (with(job, "column", column), *mean)).collect();
        means
    });
    level("job_last_run_mean", "The mean of a column that the last run wrote", means.collect());
}

fn seconds(run: &RunSummary) -> f64 {
    (run.ended_at - run.started_at) as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn the_older_format_describes_counters_by_the_names_of_their_samples() {
        let openmetrics = "# HELP a Rows.\n# TYPE a counter\na_total{m=\"x\"} 1.0\n# HELP b B.\n# TYPE b gauge\n# UNIT b seconds\nb 2.0\n# EOF\n";
        let expected =
            "# HELP a_total Rows.\n# TYPE a_total counter\na_total{m=\"x\"} 1.0\n# HELP b B.\n# TYPE b gauge\nb 2.0\n";
        assert_eq!(plain(openmetrics), expected);
    }
}
