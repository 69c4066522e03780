//! The tables of a job: taken from the session that creates it, made again in the session that runs it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;
use datafusion::catalog::{MemoryCatalogProvider, MemorySchemaProvider, TableProvider};
use datafusion::common::config::{ConfigFileType, TableOptions};
use datafusion::common::{Result as DFResult, TableReference};
use datafusion::datasource::ViewTable;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::execution::context::SessionContext;
use datafusion::sql::parser::{DFParser, Statement};

use super::definition::{Column, FilesDefinition, JobDefinition, TableDefinition, TableKind};
use crate::error::{Result, bail};
use crate::storage::redacted;

/// The tables that `statement` names, each after those that it is made of.
///
/// # Errors
/// A table that is not there, and one that another process could not make again: only tables of files can be.
pub(super) async fn captured(context: &SessionContext, statement: &Statement) -> DFResult<Vec<TableDefinition>> {
    let mut found = vec![];
    Box::pin(capture(context, statement, &mut found)).await?;
    Ok(found)
}

async fn capture(context: &SessionContext, statement: &Statement, found: &mut Vec<TableDefinition>) -> DFResult<()> {
    let state = context.state();
    let defaults = state.config_options().catalog.clone();
    for reference in state.resolve_table_references(statement)? {
        let resolved = reference.clone().resolve(&defaults.default_catalog, &defaults.default_schema);
        let name = [resolved.catalog, resolved.schema, resolved.table].map(|part| part.to_string());
        if found.iter().any(|table| table.name == name) {
            continue;
        }
        let schema = context.catalog(&name[0]).and_then(|catalog| catalog.schema(&name[1]));
        let table = match schema {
            Some(schema) => schema.table(&name[2]).await?,
            None => None,
        };
        // A function of tables, or a mistake: planning the query tells which.
        let Some(table) = table else { continue };
        let any = table.as_ref() as &dyn std::any::Any;
        let kind = if let Some(view) = any.downcast_ref::<ViewTable>() {
            let Some(sql) = view.definition() else {
                return Err(refused(&reference, "it is a view without a text in SQL").into());
            };
            for statement in DFParser::parse_sql(sql)? {
                Box::pin(capture(context, &statement, found)).await?;
            }
            TableKind::View(sql.to_owned())
        } else if let Some(files) = any.downcast_ref::<ListingTable>() {
            TableKind::Files(files_definition(files)?)
        } else {
            let what = "it is not one of files (CREATE EXTERNAL TABLE, or a path or URL in quotes)";
            return Err(refused(&reference, what).into());
        };
        found.push(TableDefinition { name, kind });
    }
    Ok(())
}

fn refused(table: &TableReference, why: &str) -> crate::error::Error {
    crate::error::error!(InvalidJob, "table '{table}' can't be part of a job: {why}")
}

fn files_definition(table: &ListingTable) -> Result<FilesDefinition> {
    let options = table.options();
    let mut locations = vec![];
    for location in table.table_paths() {
        let location = location.as_str().to_owned();
        if redacted(&location) != location {
            bail!(
                InvalidJob,
                "'{}' can't be part of a job: credentials belong into the environment",
                redacted(&location)
            );
        }
        locations.push(location);
    }
    let is_folder = |name: &str| options.table_partition_cols.iter().any(|(column, _)| column == name);
    let schema = table.schema();
    let (folders, columns): (Vec<_>, Vec<_>) = schema.fields().iter().partition(|field| is_folder(field.name()));
    Ok(FilesDefinition {
        locations,
        format: options.format.get_ext(),
        format_options: format_options(options.format.as_ref()),
        extension: options.file_extension.clone(),
        // A file that comes later may have a NULL, or lack a column, where those of today have none.
        columns: columns
            .into_iter()
            .map(|field| Ok(Column { nullable: true, ..Column::of(field)? }))
            .collect::<Result<_>>()?,
        partition_by: folders.into_iter().map(|field| Column::of(field)).collect::<Result<_>>()?,
    })
}

/// The options of a format of text that are not at their defaults.
fn format_options(format: &dyn FileFormat) -> BTreeMap<String, String> {
    let mut options = TableOptions::new();
    let any = format as &dyn std::any::Any;
    if let Some(csv) = any.downcast_ref::<CsvFormat>() {
        options.csv = csv.options().clone();
        options.set_config_format(ConfigFileType::CSV);
    } else if let Some(json) = any.downcast_ref::<JsonFormat>() {
        options.json = json.options().clone();
        options.set_config_format(ConfigFileType::JSON);
    } else {
        return BTreeMap::new(); // Parquet's are about reading, not about what is read
    }
    let mut defaults = TableOptions::new();
    if let Some(format) = &options.current_format {
        defaults.set_config_format(format.clone());
    }
    let entries = |options: &TableOptions| -> HashMap<String, Option<String>> {
        options.entries().into_iter().map(|entry| (entry.key, entry.value)).collect()
    };
    let defaults = entries(&defaults);
    let set = entries(&options).into_iter().filter(|(key, value)| defaults.get(key) != Some(value));
    set.filter_map(|(key, value)| Some((key, value?))).collect()
}

/// Refuses an output that lies within an input: each run would read what the ones before have written.
pub(super) fn check_target(definition: &JobDefinition) -> DFResult<()> {
    let target = ListingTableUrl::parse(&definition.target)?;
    for TableDefinition { name, kind } in &definition.tables {
        let TableKind::Files(files) = kind else { continue };
        for location in &files.locations {
            if location.ends_with('/') && target.as_str().starts_with(location.as_str()) {
                let why = format!("the output '{}' lies within it", definition.target);
                return Err(refused(&TableReference::bare(name[2].as_str()), &why).into());
            }
        }
    }
    Ok(())
}

/// Makes the tables in the session that runs the job.
pub(super) async fn register(context: &SessionContext, tables: &[TableDefinition]) -> DFResult<()> {
    for TableDefinition { name: [catalog, schema, table], kind } in tables {
        let catalogs = context.state().catalog_list().clone();
        let provider = catalogs.catalog(catalog).unwrap_or_else(|| {
            let made = Arc::new(MemoryCatalogProvider::new());
            catalogs.register_catalog(catalog.clone(), made.clone());
            made
        });
        if provider.schema(schema).is_none() {
            provider.register_schema(schema, Arc::new(MemorySchemaProvider::new()))?;
        }
        match kind {
            TableKind::View(sql) => {
                context.sql(sql).await?;
            }
            TableKind::Files(files) => {
                let reference = TableReference::full(catalog.as_str(), schema.as_str(), table.as_str());
                let table = listing_table(context, &reference, files)?;
                context.register_table(reference, Arc::new(table))?;
            }
        }
    }
    Ok(())
}

fn listing_table(context: &SessionContext, name: &TableReference, files: &FilesDefinition) -> DFResult<ListingTable> {
    let state = context.state();
    let Some(factory) = state.get_file_format_factory(&files.format) else {
        return Err(crate::error::error!(InvalidJob, "the format '{}' is not known here", files.format).into());
    };
    let options: HashMap<_, _> = files.format_options.clone().into_iter().collect();
    let format = factory.create(&state, &options)?;
    let fields = |columns: &[Column]| columns.iter().map(Column::field).collect::<Result<Vec<_>>>();
    let folders = fields(&files.partition_by)?;
    let folders = folders.into_iter().map(|field| (field.name().clone(), field.data_type().clone())).collect();
    let options = ListingOptions::new(format).with_file_extension(&files.extension).with_table_partition_cols(folders);
    // Lists of files are remembered by table and path: two stores may have the same path.
    let url = |location| Ok(ListingTableUrl::parse(location)?.with_table_ref(name.clone()));
    let urls = files.locations.iter().map(url).collect::<DFResult<Vec<_>>>()?;
    let config = ListingTableConfig::new_with_multi_paths(urls)
        .with_listing_options(options)
        .with_schema(Arc::new(Schema::new(fields(&files.columns)?)));
    ListingTable::try_new(config)
}
