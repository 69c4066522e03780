//! What a job is: a query, where its rows go, and on which conditions.

use std::collections::BTreeMap;
use std::fmt;

use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::arrow::error::ArrowError;
use serde::{Deserialize, Serialize};

use super::JobOptions;
use crate::error::{Result, bail, error};

/// A job as `CREATE JOB` defines it: `COPY (query) TO target`, to be run again and again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JobDefinition {
    /// The query, in SQL.
    pub query: String,
    /// The folder of the output, a URL or an absolute path that ends with a slash. Generations lie in folders within.
    pub target: String,
    /// The format of the output's files: `parquet`, `csv`, `json` …
    pub format: String,
    /// The columns that are folders of the output.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partition_by: Vec<String>,
    /// Options of the format, as in COPY.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub format_options: BTreeMap<String, String>,
    /// Conditions on the output of a run, in SQL; it is published if all are true.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<String>,
    /// The job's options.
    #[serde(default)]
    pub options: JobOptions,
    /// The tables and views that the query names, each after those that it is made of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<TableDefinition>,
    /// The columns of the output, those of `partition_by` last.
    #[serde(default)]
    pub columns: Vec<Column>,
    /// What stands in the output's folder to say that it is this job's.
    #[serde(default)]
    pub(super) owner: String,
}

/// A table that is part of a job's definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TableDefinition {
    /// Its name: catalog, schema and table.
    pub name: [String; 3],
    /// What it is.
    #[serde(flatten)]
    pub kind: TableKind,
}

/// What a table of a job is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TableKind {
    /// `CREATE VIEW …`
    View(String),
    /// A table of files.
    Files(FilesDefinition),
}

/// A table of files, with the columns that it had when the job was created: a run need not look into each file to know them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FilesDefinition {
    /// Where they are: URLs of folders or files.
    pub locations: Vec<String>,
    /// The format: `parquet`, `csv` …
    pub format: String,
    /// Options of the format.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub format_options: BTreeMap<String, String>,
    /// What the names of files end with.
    pub extension: String,
    /// The columns within the files.
    pub columns: Vec<Column>,
    /// The columns that are folders.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partition_by: Vec<Column>,
}

/// A column of a job's table or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The name.
    pub name: String,
    /// The Arrow type, as text.
    #[serde(rename = "type")]
    pub data_type: String,
    /// Whether it may be NULL.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub nullable: bool,
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

impl Column {
    /// # Errors
    /// A type that can't be kept as text.
    pub(super) fn of(field: &Field) -> Result<Self> {
        let column = Self {
            name: field.name().clone(),
            data_type: field.data_type().to_string(),
            nullable: field.is_nullable(),
        };
        if column.field()?.data_type() != field.data_type() {
            bail!(InvalidJob, "column '{}' is of type {}, which a job can't keep", column.name, column.data_type);
        }
        Ok(column)
    }

    pub(super) fn field(&self) -> Result<Field> {
        let data_type = self.data_type.parse().map_err(|cause: ArrowError| {
            let Self { name, data_type, .. } = self;
            error!(InvalidJob, "column '{name}' is of type {data_type}, which a job can't keep").with_source(cause)
        })?;
        Ok(Field::new(&self.name, data_type, self.nullable))
    }
}

impl JobDefinition {
    /// A job that writes the rows of `query` as Parquet to the folder `target`, an absolute path or a URL.
    pub fn new(query: impl Into<String>, target: impl Into<String>) -> Self {
        let target = target.into();
        Self {
            query: query.into(),
            target: format!("{}/", target.trim_end_matches('/')),
            format: "parquet".to_owned(),
            partition_by: vec![],
            format_options: BTreeMap::new(),
            checks: vec![],
            options: JobOptions::default(),
            tables: vec![],
            columns: vec![],
            owner: String::new(),
        }
    }

    /// The same, whose query gives rows of `schema`: its columns, and then its folders in the order in which they lie within
    /// each other.
    pub(super) fn with_columns(&self, schema: &Schema) -> Result<Self> {
        let is_folder = |field: &Field| self.partition_by.iter().any(|column| column == field.name());
        let columns = schema.fields().iter().map(AsRef::as_ref).filter(|field| !is_folder(field));
        let folders = self.partition_by.iter().filter_map(|name| schema.field_with_name(name).ok());
        let columns = columns.chain(folders).map(Column::of).collect::<Result<_>>()?;
        Ok(Self { columns, ..self.clone() })
    }

    /// Whether a run publishes all that it scores at its end, and not split by split.
    pub(crate) fn publishes_at_end(&self) -> bool {
        self.options.publishes_at_end() || !self.checks.is_empty()
    }

    /// The folder of what is no output: rows that were set aside, and files that are on their way.
    pub fn work_folder(&self) -> String {
        format!("{}.job/", self.target.trim_end_matches('/'))
    }

    /// The folder of a generation of the output.
    pub fn generation_folder(&self, generation: u64) -> String {
        format!("{}{}/", self.target, generation_name(generation))
    }
}

/// The name of a generation's folder.
pub(super) fn generation_name(generation: u64) -> String {
    format!("g{generation:06}")
}

/// As in `CREATE JOB … AS`.
impl fmt::Display for JobDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        write!(f, "COPY ({}) TO {}", self.query, quoted(&self.target))?;
        write!(f, " STORED AS {}", self.format.to_uppercase())?;
        if !self.partition_by.is_empty() {
            write!(f, " PARTITIONED BY ({})", self.partition_by.join(", "))?;
        }
        if !self.checks.is_empty() {
            write!(f, " CHECK ({})", self.checks.join(", "))?;
        }
        let options: Vec<_> = BTreeMap::from(self.options.clone())
            .into_iter()
            .chain(self.format_options.clone())
            .map(|(name, value)| format!("{} {}", quoted(&name), quoted(&value)))
            .collect();
        if options.is_empty() { Ok(()) } else { write!(f, " OPTIONS ({})", options.join(", ")) }
    }
}
