//! Writes batches to standard output in the formats that need not see all rows first.

use std::io::{self, Write};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::csv;
use datafusion::arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::arrow::json;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::error::Result;
use datafusion_cli::print_format::PrintFormat;

/// One document of rows.
pub(crate) struct RowWriter {
    schema: SchemaRef,
    format: PrintFormat,
    /// Whether something was written.
    started: bool,
}

impl RowWriter {
    /// For rows of `schema`; `format` is no table.
    pub(crate) fn new(format: PrintFormat, schema: SchemaRef) -> Self {
        Self { schema, format, started: false }
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if self.schema.fields().is_empty() || batch.num_rows() == 0 {
            return Ok(()); // a statement that gives no rows
        }
        let text = match self.format {
            PrintFormat::Tsv => self.delimited(batch, b'\t')?,
            PrintFormat::NdJson => {
                let mut lines = json::LineDelimitedWriter::new(vec![]);
                lines.write(&convert(batch, text_keys)?)?;
                lines.finish()?;
                lines.into_inner()
            }
            PrintFormat::Json => self.array(batch)?,
            PrintFormat::Csv | PrintFormat::Table | PrintFormat::Automatic => self.delimited(batch, b',')?,
        };
        self.started = true;
        print(&text)
    }

    /// Ends the document, which is one even if no row was written: the names of the columns, an empty array.
    pub(crate) fn finish(self) -> Result<()> {
        if self.schema.fields().is_empty() {
            return Ok(());
        }
        match (self.format, self.started) {
            (PrintFormat::Json, true) => print(b"]\n"),
            (PrintFormat::Json, false) => print(b"[]\n"),
            (PrintFormat::NdJson, _) | (_, true) => Ok(()),
            (PrintFormat::Tsv, false) => print(&self.delimited(&RecordBatch::new_empty(self.schema.clone()), b'\t')?),
            (_, false) => print(&self.delimited(&RecordBatch::new_empty(self.schema.clone()), b',')?),
        }
    }

    fn delimited(&self, batch: &RecordBatch, delimiter: u8) -> Result<Vec<u8>> {
        let mut writer = csv::WriterBuilder::new().with_header(!self.started).with_delimiter(delimiter).build(vec![]);
        writer.write(&convert(batch, nested_as_text)?)?;
        Ok(writer.into_inner())
    }

    /// The rows as the next part of the one array: `[` or `,` before them, and no `]`.
    fn array(&self, batch: &RecordBatch) -> Result<Vec<u8>> {
        let mut array = json::ArrayWriter::new(vec![]);
        array.write(&convert(batch, text_keys)?)?;
        array.finish()?;
        let mut text = array.into_inner();
        text.pop();
        if let (true, Some(first)) = (self.started, text.first_mut()) {
            *first = b',';
        }
        Ok(text)
    }
}

/// Straight to standard output, so that an error still tells that it was closed.
fn print(text: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text)?;
    Ok(out.flush()?)
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
    if &wanted == column.data_type() { Ok(column.clone()) } else { Ok(cast(column, &wanted)?) }
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
