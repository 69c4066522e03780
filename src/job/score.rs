//! Scores one split: runs its plan, writes its rows, and says what went wrong.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::datatypes::DataType;
use datafusion::catalog::Session;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{DataFusionError, Result as DFResult};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::listing::ListingTableUrl;
use datafusion::datasource::physical_plan::{FileGroup, FileOutputMode, FileSinkConfig};
use datafusion::execution::SessionState;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, collect};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use sha2::{Digest, Sha256};

use super::failure::{Failure, error_of, may_pass, of_query, of_writing};
use super::query::JobQuery;
use super::records::{FileError, InputFile, OutputFile, SplitRecord};
use super::tap::TapExec;
use super::target::Target;
use super::{JobDefinition, OnFileError};
use crate::error::{Error, Result, error};
use crate::storage::hex;
use crate::storage::journal::now;

/// What scores the splits of a run in this process.
pub(super) struct SplitScorer {
    pub job: String,
    pub run: u64,
    /// What makes the names of this run's files unlike those of others.
    pub salt: String,
    pub definition: Arc<JobDefinition>,
    pub query: JobQuery,
    pub target: Target,
    pub format: Arc<dyn FileFormat>,
    /// Who scores: the process and its host.
    pub worker: String,
}

/// The format of a job's output.
pub(super) fn format_of(session: &dyn Session, definition: &JobDefinition) -> DFResult<Arc<dyn FileFormat>> {
    let state = session.as_any().downcast_ref::<SessionState>();
    let factory = state.and_then(|state| state.get_file_format_factory(&definition.format));
    let Some(factory) = factory else {
        return Err(error!(InvalidJob, "the format '{}' is not known", definition.format).into());
    };
    let options: HashMap<_, _> = definition.format_options.clone().into_iter().collect();
    factory.create(session, &options)
}

impl SplitScorer {
    /// Scores the split with this number. Its files are written, and not yet where readers look.
    ///
    /// # Errors
    /// What ends the run. Input that can't be read does not, if the job says so.
    pub(super) async fn score(&self, split: u32, inputs: &[InputFile]) -> Result<SplitRecord> {
        let mut record = SplitRecord {
            split,
            inputs: inputs.to_vec(),
            files: vec![],
            rows_in: 0,
            rows_out: 0,
            rows_set_aside: 0,
            set_aside: vec![],
            failed: vec![],
            worker: self.worker.clone(),
            started_at: now(),
            seconds: 0.0,
            model_seconds: 0.0,
            engines: Default::default(),
            bytes_read: 0,
            bytes_written: 0,
            attempts: 0,
            sums: Default::default(),
        };
        let clock = Instant::now();
        let sets_aside = self.definition.options.on_file_error == OnFileError::SetAside;
        match self.with_retries(inputs, &mut record).await {
            Ok(()) => {}
            // Which of them? Only the rows of whole files are written, so each is tried alone.
            Err(Failure::Input(_)) if inputs.len() > 1 => {
                for (part, input) in inputs.iter().enumerate() {
                    let alone = self.with_retries_as(part + 1, std::slice::from_ref(input), &mut record);
                    match alone.await {
                        Ok(()) => {}
                        Err(Failure::Input(error)) if sets_aside => record.failed.push(failed(input, &error)),
                        Err(Failure::Input(error)) => return Err(of_file(input, error)),
                        Err(failure) => return Err(failure.into_error()),
                    }
                }
            }
            Err(Failure::Input(error)) if sets_aside && !inputs.is_empty() => {
                record.failed.extend(inputs.iter().map(|input| failed(input, &error)));
            }
            Err(Failure::Input(error)) => {
                return Err(match inputs {
                    [input] => of_file(input, error),
                    _ => error,
                });
            }
            Err(failure) => return Err(failure.into_error()),
        }
        record.seconds = clock.elapsed().as_secs_f64();
        Ok(record)
    }

    async fn with_retries(&self, inputs: &[InputFile], record: &mut SplitRecord) -> Result<(), Failure> {
        self.with_retries_as(0, inputs, record).await
    }

    /// As often as the job says, after a while that doubles, where the failure may pass.
    async fn with_retries_as(
        &self,
        part: usize,
        inputs: &[InputFile],
        record: &mut SplitRecord,
    ) -> Result<(), Failure> {
        let mut attempt = 0;
        loop {
            record.attempts += 1;
            let mut trial = record.clone(); // what a failed attempt has counted does not count
            let failure = match self.attempt(part, inputs, &mut trial).await {
                Ok(()) => {
                    *record = trial;
                    return Ok(());
                }
                Err(failure) => failure,
            };
            let Failure::Transient(error) = failure else { return Err(failure) };
            if attempt >= self.definition.options.retries {
                return Err(Failure::Final(error));
            }
            log::warn!("job '{}': split {} is tried again: {error}", self.job, record.split);
            tokio::time::sleep(Duration::from_millis(200 << attempt.min(7))).await;
            attempt += 1;
        }
    }

    async fn attempt(&self, part: usize, inputs: &[InputFile], record: &mut SplitRecord) -> Result<(), Failure> {
        let template = self.query.template().await;
        let template = template.map_err(|cause| match Error::find(&cause) {
            Some(ours) => Failure::Final(ours.clone()),
            None => Failure::Transient(error_of(&cause)), // tables are listed for it
        })?;
        let restricted = self.query.restricted(template, inputs)?;
        let attempt = uuid::Uuid::new_v4().simple().to_string();
        let staged = format!("{}-{}", record.split, &attempt[..12]);
        let partitioned = !self.definition.partition_by.is_empty();
        let extension = self.extension();
        let staged = if partitioned { staged } else { format!("{staged}.{extension}") };
        let path = self.target.staged(self.run, &staged);
        let plan = restricted.plan.clone();
        let plan = if plan.output_partitioning().partition_count() > 1 {
            Arc::new(CoalescePartitionsExec::new(plan))
        } else {
            plan
        };
        let (tap, passed) = TapExec::new(plan);
        let tap = tap.with_sums().without_nulls(&self.definition.partition_by);
        let written = async {
            let sink = self.sink(Arc::new(tap), &path, partitioned, &extension).await?;
            let task = self.query.task.clone();
            // A panic of a model or of a reader ends the split, not the process.
            let run = SpawnedTask::spawn(async move { collect(sink, task).await });
            run.join().await.map_err(|cause| DataFusionError::External(Box::new(cause)))??;
            Ok::<_, DataFusionError>(())
        };
        let outcome = match self.definition.options.timeout {
            Some(limit) => match tokio::time::timeout(limit, written).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    let limit = humantime::format_duration(limit);
                    return Err(Failure::Transient(error!(
                        RunFailed,
                        "split {} took longer than {limit} (option 'timeout')", record.split
                    )));
                }
            },
            None => written.await,
        };
        if let Err(error) = outcome {
            self.target.forget(&path).await;
            // What each split reads whole is no fault of the split's files.
            if let Some(cause) = restricted.lookup_error() {
                let error = error!(RunFailed, "a table that is read whole can't be read").with_source(error_of(&cause));
                return Err(if may_pass(cause.as_ref()) { Failure::Transient(error) } else { Failure::Final(error) });
            }
            return Err(match passed.error() {
                Some(source) => of_query(source.as_ref()),
                None => of_writing(&error, &self.target.url_of(&path)),
            });
        }
        let mut files = vec![];
        if passed.rows() == 0 {
            self.target.forget(&path).await;
        } else {
            let fatal = Failure::Final;
            let there = if partitioned {
                self.target.list(&path).await.map_err(fatal)?
            } else {
                let head = crate::storage::patience::answer(self.target.store.head(&path)).await;
                vec![head.map_err(|cause| Failure::Transient(self.target.failed("read", &path, cause)))?]
            };
            let name = self.file_name(record.split, part, inputs);
            for (i, meta) in there.iter().enumerate() {
                self.target.make_durable(&meta.location).await.map_err(fatal)?;
                let (folders, within) = folders_of(&path, &meta.location, &staged);
                let number = if partitioned && there.len() > 1 { format!("-{i}") } else { String::new() };
                files.push(OutputFile {
                    path: format!("{folders}{name}{number}.{extension}"),
                    size: meta.size,
                    staged: within,
                });
                record.bytes_written += meta.size;
            }
        }
        for (node, rows) in restricted.set_aside.iter().enumerate() {
            let taken = rows.take().map_err(|cause| Failure::Final(error_of(&cause)))?;
            let Some((count, bytes)) = taken else { continue };
            let file = format!("{}-{part}-{node}-{}.parquet", record.split, &attempt[..12]);
            let path = self.target.set_aside(self.run, &file);
            let put = crate::storage::patience::answer(self.target.store.put(&path, PutPayload::from(bytes))).await;
            put.map_err(|cause| Failure::Transient(self.target.failed("written", &path, cause)))?;
            record.rows_set_aside += count;
            record.set_aside.push(self.target.url_of(&path));
        }
        record.files.append(&mut files);
        record.rows_in += restricted.rows_in();
        record.rows_out += passed.rows();
        for (column, (sum, count)) in passed.sums() {
            let entry = record.sums.entry(column).or_default();
            *entry = (entry.0 + sum, entry.1 + count);
        }
        record.model_seconds += restricted.model_seconds();
        record.engines.extend(restricted.engines());
        record.bytes_read += self.query.session.pins.take_bytes_read();
        Ok(())
    }

    fn extension(&self) -> String {
        let with_compression = self.format.compression_type().map(|kind| self.format.get_ext_with_compression(&kind));
        with_compression.and_then(DFResult::ok).unwrap_or_else(|| self.format.get_ext())
    }

    /// The plan that writes the rows of `input` to `path`.
    async fn sink(
        &self,
        input: Arc<dyn ExecutionPlan>,
        path: &Path,
        partitioned: bool,
        extension: &str,
    ) -> DFResult<Arc<dyn ExecutionPlan>> {
        let url = self.target.url_of(path);
        let url = if partitioned { format!("{url}/") } else { url };
        let config = FileSinkConfig {
            original_url: url.clone(),
            object_store_url: self.target.url.clone(),
            table_paths: vec![ListingTableUrl::parse(&url)?],
            file_group: FileGroup::default(),
            output_schema: input.schema(),
            table_partition_cols: self
                .definition
                .partition_by
                .iter()
                .map(|name| (name.clone(), DataType::Null))
                .collect(),
            insert_op: InsertOp::Append,
            keep_partition_by_columns: false,
            file_extension: extension.to_owned(),
            file_output_mode: if partitioned { FileOutputMode::Directory } else { FileOutputMode::SingleFile },
        };
        let state = self.query.session.context.state();
        self.format.create_writer_physical_plan(input, &state, config, None).await
    }

    /// The name of an output file: that of the first input, and what tells it from all others.
    fn file_name(&self, split: u32, part: usize, inputs: &[InputFile]) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{}\n{}\n{split}\n{part}\n", self.salt, self.run));
        for InputFile { path, size, etag, range, .. } in inputs {
            hash.update(format!("{path}\n{size}\n{etag:?}\n{range:?}\n"));
        }
        let hash = hex(hash.finalize());
        let first = inputs.first().and_then(|input| input.path.rsplit('/').next()).unwrap_or("rows");
        let stem = first.split('.').next().unwrap_or_default();
        let plain: String = stem.chars().filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).take(64).collect();
        let plain = if plain.is_empty() { "rows".to_owned() } else { plain };
        format!("{plain}-{}", &hash[..16])
    }
}

/// The folders of a staged file below its split's, with a slash behind; and where it is staged, below the run's.
fn folders_of(split: &Path, file: &Path, staged: &str) -> (String, String) {
    let parts: Vec<_> = file.prefix_match(split).map(|parts| parts.collect()).unwrap_or_default();
    let Some((_, folders)) = parts.split_last() else { return (String::new(), staged.to_owned()) };
    let folders: String = folders.iter().map(|folder| format!("{}/", folder.as_ref())).collect();
    let within: Vec<_> = parts.iter().map(|part| part.as_ref()).collect();
    (folders, format!("{staged}/{}", within.join("/")))
}

fn failed(input: &InputFile, error: &Error) -> FileError {
    FileError { path: input.path.clone(), error: error.to_string() }
}

fn of_file(input: &InputFile, error: Error) -> Error {
    let says = error.to_string().contains(&input.path);
    if says { error } else { error!(RunFailed, "file '{}'", input.path).with_source(error) }
}
