//! Writes batches to standard output in the formats that need not see all rows first.

use std::io::{self, BufWriter, Stdout, Write};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::csv;
use datafusion::arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::arrow::json;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::not_impl_err;
use datafusion::error::Result;
use datafusion_cli::print_format::PrintFormat;

type Out = BufWriter<Stdout>;

/// One document of rows.
pub(crate) struct RowWriter {
    schema: SchemaRef,
    format: Format,
}

enum Format {
    Delimited(csv::Writer<Out>),
    Array(json::ArrayWriter<Out>),
    Lines(json::LineDelimitedWriter<Out>),
}

impl RowWriter {
    pub(crate) fn new(format: PrintFormat, schema: SchemaRef) -> Result<Self> {
        let out = BufWriter::new(io::stdout());
        let delimited = |delimiter| csv::WriterBuilder::new().with_header(true).with_delimiter(delimiter);
        let format = match format {
            PrintFormat::Csv => Format::Delimited(delimited(b',').build(out)),
            PrintFormat::Tsv => Format::Delimited(delimited(b'\t').build(out)),
            PrintFormat::Json => Format::Array(json::ArrayWriter::new(out)),
            PrintFormat::NdJson => Format::Lines(json::LineDelimitedWriter::new(out)),
            PrintFormat::Table | PrintFormat::Automatic => return not_impl_err!("a table is not written row by row"),
        };
        let mut this = Self { format, schema };
        // The names stand there even if no row follows.
        if matches!(this.format, Format::Delimited(_)) && !this.schema.fields().is_empty() {
            this.write(&RecordBatch::new_empty(this.schema.clone()))?;
        }
        Ok(this)
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if self.schema.fields().is_empty() {
            return Ok(()); // a statement that gives no rows
        }
        match &mut self.format {
            Format::Delimited(writer) => writer.write(&convert(batch, nested_as_text)?)?,
            Format::Array(writer) => writer.write(&convert(batch, text_keys)?)?,
            Format::Lines(writer) => writer.write(&convert(batch, text_keys)?)?,
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<()> {
        let mut out = match self.format {
            Format::Delimited(writer) => writer.into_inner(),
            Format::Array(_) if self.schema.fields().is_empty() => return Ok(()),
            Format::Array(mut writer) => {
                writer.finish()?;
                let mut out = writer.into_inner();
                writeln!(out)?;
                out
            }
            Format::Lines(mut writer) => {
                writer.finish()?;
                writer.into_inner()
            }
        };
        Ok(out.flush()?)
    }
}

fn convert(batch: &RecordBatch, convert: impl Fn(&ArrayRef) -> Result<ArrayRef>) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(convert).collect::<Result<Vec<_>>>()?;
    let schema = batch.schema();
    let names = schema.fields().iter().map(|field| field.name().clone());
    Ok(RecordBatch::try_from_iter_with_nullable(names.zip(columns).map(|(name, column)| (name, column, true)))?)
}

/// A struct, list or map as a table shows it: a line of CSV has no place for more.
fn nested_as_text(column: &ArrayRef) -> Result<ArrayRef> {
    if !column.data_type().is_nested() {
        return Ok(column.clone());
    }
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(column, &options)?;
    let value = |row| column.is_valid(row).then(|| formatter.value(row).try_to_string()).transpose();
    let text: Vec<Option<String>> = (0..column.len()).map(value).collect::<Result<_, _>>()?;
    Ok(Arc::new(StringArray::from(text)))
}

/// Maps with strings as keys: JSON has no others.
fn text_keys(column: &ArrayRef) -> Result<ArrayRef> {
    let wanted = with_text_keys(column.data_type());
    match &wanted == column.data_type() {
        true => Ok(column.clone()),
        false => Ok(cast(column, &wanted)?),
    }
}

fn with_text_keys(data_type: &DataType) -> DataType {
    let inner = |field: &Arc<Field>| Arc::new(field.as_ref().clone().with_data_type(with_text_keys(field.data_type())));
    match data_type {
        DataType::Map(entries, sorted) => {
            let DataType::Struct(fields) = entries.data_type() else {
                return data_type.clone();
            };
            let [key, value] = [&fields[0], &fields[1]];
            let key = Arc::new(key.as_ref().clone().with_data_type(DataType::Utf8));
            let entries = entries.as_ref().clone().with_data_type(DataType::Struct([key, inner(value)].into()));
            DataType::Map(Arc::new(entries), *sorted)
        }
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect()),
        DataType::List(item) => DataType::List(inner(item)),
        DataType::LargeList(item) => DataType::LargeList(inner(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(inner(item), *size),
        other => other.clone(),
    }
}
