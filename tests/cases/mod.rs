//! Models with data and with what another implementation gave for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array, OffsetSizeTrait, RecordBatch};
use datafusion::arrow::compute::{cast, concat_batches};
use datafusion::arrow::datatypes::{DataType, Field, Float64Type, Schema};
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use datafusion_predict::{ModelOptions, PredictExt, PredictRuntime, PredictSql};
use serde_json::Value;

/// The entries of a folder's manifest, by the models' names.
pub(crate) type Manifest = BTreeMap<String, Value>;

/// The models in the repository.
pub(crate) fn models() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/models")
}

/// The manifest of a folder of models.
pub(crate) fn manifest(folder: &Path) -> Manifest {
    let text = std::fs::read_to_string(folder.join("manifest.json")).expect("the manifest of the models");
    serde_json::from_str(&text).expect("a manifest in JSON")
}

fn texts(values: &Value) -> Vec<String> {
    values.as_array().into_iter().flatten().map(|value| value.as_str().expect("a text").to_owned()).collect()
}

/// How a query is run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// Rows for each run of the model.
    pub(crate) batch_size: usize,
    /// Rows for each batch of the data.
    pub(crate) arrow_batch: usize,
    pub(crate) partitions: usize,
    pub(crate) extract: bool,
    pub(crate) engine: &'static str,
}

/// A model's data: its inputs, the outputs of another implementation, and the rows' numbers.
pub(crate) struct Case {
    pub(crate) name: String,
    onnx: PathBuf,
    entry: Value,
    data: RecordBatch,
}

impl Case {
    pub(crate) async fn read(folder: &Path, name: &str, entry: &Value) -> Self {
        let file = |key: &str| folder.join(entry[key].as_str().expect("a file"));
        let context = SessionContext::new();
        let parquet = file("parquet");
        let frame = context.read_parquet(parquet.to_str().expect("a path"), ParquetReadOptions::default()).await;
        let batches = frame.expect("a table").collect().await.expect("rows");
        let data = concat_batches(&batches[0].schema(), &batches).expect("equal batches");
        let rows: ArrayRef = Arc::new(Int64Array::from_iter_values(0..data.num_rows() as i64));
        let row = Arc::new(Field::new("row", DataType::Int64, false));
        let fields = data.schema().fields().iter().cloned().chain([row]).collect::<Vec<_>>();
        let columns = data.columns().iter().cloned().chain([rows]).collect();
        let data = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("one more column");
        Self { name: name.replace('/', "-"), onnx: file("onnx"), entry: entry.clone(), data }
    }

    /// The same rows so many times.
    pub(crate) fn repeated(self, times: usize) -> Self {
        let schema = self.data.schema();
        let once = concat_batches(&schema, &vec![self.data.clone(); times]).expect("equal batches");
        let mut columns = once.columns().to_vec();
        columns.pop();
        columns.push(Arc::new(Int64Array::from_iter_values(0..once.num_rows() as i64)));
        Self { data: RecordBatch::try_new(schema, columns).expect("the same columns"), ..self }
    }

    /// The texts among the features as `data_type`; `None` if there are none.
    pub(crate) fn with_texts_as(&self, data_type: &DataType) -> Option<Self> {
        let features = texts(&self.entry["features"]);
        let is_text = |field: &Field| {
            features.contains(field.name())
                && matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
        };
        let schema = self.data.schema();
        let wanted = schema.fields().iter().map(|field| if is_text(field) { data_type } else { field.data_type() });
        let columns: Vec<_> = self.data.columns().iter().zip(wanted).map(|(c, t)| cast(c, t).expect("texts")).collect();
        let fields = schema.fields().iter().zip(&columns);
        let fields: Vec<_> =
            fields.map(|(field, c)| field.as_ref().clone().with_data_type(c.data_type().clone())).collect();
        let data = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("the same rows");
        schema.fields().iter().any(|field| is_text(field)).then(|| Self {
            name: self.name.clone(),
            onnx: self.onnx.clone(),
            entry: self.entry.clone(),
            data,
        })
    }

    fn table(&self, setting: Setting) -> MemTable {
        let mut partitions = vec![vec![]; setting.partitions];
        for (i, start) in (0..self.data.num_rows()).step_by(setting.arrow_batch).enumerate() {
            let count = setting.arrow_batch.min(self.data.num_rows() - start);
            partitions[i % setting.partitions].push(self.data.slice(start, count));
        }
        MemTable::try_new(self.data.schema(), partitions).expect("a table")
    }

    /// The engine that runs the model where the session leaves the choice, and why others do not.
    pub(crate) async fn engine(&self, runtime: &Arc<PredictRuntime>) -> Result<(String, Vec<String>), String> {
        let uri = self.onnx.to_str().expect("a path");
        let loaded = runtime.load(&self.name, uri, vec![], ModelOptions::default(), "auto").await;
        let predictor = loaded.map_err(|error| error.to_string())?;
        Ok((predictor.engine().to_owned(), predictor.refusals().to_vec()))
    }

    /// The predictions in the rows' order, one array for each output.
    pub(crate) async fn predict(
        &self,
        runtime: &Arc<PredictRuntime>,
        setting: Setting,
    ) -> Result<Vec<ArrayRef>, String> {
        let config =
            SessionConfig::new().with_target_partitions(setting.partitions).with_batch_size(setting.arrow_batch);
        let context = SessionContext::new_with_config(config).with_predict(runtime.clone());
        context.register_table("t", Arc::new(self.table(setting))).expect("a table");
        let features: Vec<_> = texts(&self.entry["features"]).iter().map(|name| format!("\"{name}\"")).collect();
        let call = format!("predict('\"{}\"', {})", self.name, features.join(", "));
        let statements = [
            format!("SET predict.batch_size = {}", setting.batch_size),
            format!("SET predict.extract = {}", setting.extract),
            format!("SET predict.engine = '{}'", setting.engine),
            format!("CREATE MODEL IF NOT EXISTS \"{}\" FROM '{}'", self.name, self.onnx.display()),
        ];
        let failed = |error: DataFusionError| format!("{} with {setting:?}: {error}", self.name);
        for statement in statements {
            context.predict_sql(&statement).await.map_err(failed)?;
        }
        let frame = context.predict_sql(&format!("SELECT {call} AS p FROM t ORDER BY row")).await.map_err(failed)?;
        let schema = frame.schema().as_arrow().clone();
        let batches = frame.collect().await.map_err(failed)?;
        let result = concat_batches(&Arc::new(schema), &batches).expect("equal batches");
        Ok(match result.column(0).as_struct_opt() {
            Some(outputs) => outputs.columns().to_vec(),
            None => vec![result.column(0).clone()],
        })
    }

    /// What differs from the other implementation's outputs, if anything does.
    pub(crate) fn check(&self, outputs: &[ArrayRef], setting: Setting) -> Result<(), String> {
        let described = self.entry["outputs"].as_array().expect("outputs");
        if outputs.len() != described.len() {
            return Err(format!("{}: {} outputs, expected {}", self.name, outputs.len(), described.len()));
        }
        let column = |output: &Value| {
            let name = format!("expected_{}", output["name"].as_str().expect("a name"));
            self.data.column_by_name(&name).unwrap_or_else(|| panic!("{}: no column {name}", self.name))
        };
        let expected = |output: &Value| rows(column(output));
        let scores = described.iter().find(|output| matches!(output["kind"].as_str(), Some("scores" | "zipmap")));
        let margins = scores.map(|output| expected(output).iter().map(|row| margin(row)).collect::<Vec<_>>());
        for (output, found) in described.iter().zip(outputs) {
            let context = format!("{}, output {}, {setting:?}", self.name, output["name"]);
            let types = (element(found.data_type()), element(column(output).data_type()));
            if types.0 != types.1 {
                return Err(format!("{context}: {}, expected {}", types.0, types.1));
            }
            let (found, wanted) = (rows(found), expected(output));
            if found.len() != wanted.len() {
                return Err(format!("{context}: {} rows, expected {}", found.len(), wanted.len()));
            }
            let differs = |row: &usize| {
                let (found, wanted) = (&found[*row], &wanted[*row]);
                let near = found.len() == wanted.len() && found.iter().zip(wanted).all(|(a, b)| a.is_near(b));
                let close = output["kind"] == "label" && margins.as_ref().is_some_and(|margins| margins[*row] <= 2e-6);
                !near && !close
            };
            let differing: Vec<_> = (0..wanted.len()).filter(differs).collect();
            if let Some(row) = differing.first() {
                return Err(format!(
                    "{context}: {} rows differ; row {row}: found {:?}, expected {:?}",
                    differing.len(),
                    found[*row],
                    wanted[*row]
                ));
            }
        }
        Ok(())
    }
}

/// The type of the values, through lists and the values of maps; one for all kinds of texts.
fn element(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::List(field) | DataType::FixedSizeList(field, _) => element(field.data_type()),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => element(fields[1].data_type()),
            other => other,
        },
        DataType::Utf8View | DataType::LargeUtf8 => &DataType::Utf8,
        other => other,
    }
}

/// How far the best class is ahead of the second.
fn margin(row: &[Cell]) -> f64 {
    let mut scores: Vec<f64> = row.iter().map(|cell| if let Cell::Number(x) = cell { *x } else { 0.0 }).collect();
    scores.sort_by(|a, b| b.total_cmp(a));
    scores[0] - scores.get(1).unwrap_or(&f64::NEG_INFINITY)
}

#[derive(Debug, Clone, PartialEq)]
enum Cell {
    Null,
    Number(f64),
    Text(String),
}

impl Cell {
    fn is_near(&self, expected: &Self) -> bool {
        match (self, expected) {
            (Self::Number(a), Self::Number(b)) => {
                a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-6 + 1e-5 * b.abs()
            }
            (a, b) => a == b,
        }
    }
}

/// The values of each row, through lists and the values of maps.
fn rows(array: &ArrayRef) -> Vec<Vec<Cell>> {
    fn grouped<O: OffsetSizeTrait>(values: &ArrayRef, offsets: &[O]) -> Vec<Vec<Cell>> {
        let inner = rows(values);
        offsets.windows(2).map(|row| inner[row[0].as_usize()..row[1].as_usize()].concat()).collect()
    }
    let mut found: Vec<Vec<Cell>> = match array.data_type() {
        DataType::List(_) => grouped(array.as_list::<i32>().values(), array.as_list::<i32>().offsets()),
        DataType::Map(_, _) => grouped(array.as_map().values(), array.as_map().offsets()),
        DataType::FixedSizeList(_, size) => {
            let inner = rows(array.as_fixed_size_list().values());
            inner.chunks(*size as usize).map(<[Vec<Cell>]>::concat).collect()
        }
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => {
            let texts = cast(array, &DataType::Utf8).expect("texts");
            let texts = texts.as_string::<i32>();
            (0..texts.len()).map(|row| vec![Cell::Text(texts.value(row).to_owned())]).collect()
        }
        _ => {
            let numbers = cast(array, &DataType::Float64).expect("numbers");
            numbers.as_primitive::<Float64Type>().values().iter().map(|value| vec![Cell::Number(*value)]).collect()
        }
    };
    for (row, cells) in found.iter_mut().enumerate() {
        if array.is_null(row) {
            *cells = vec![Cell::Null];
        }
    }
    found
}
