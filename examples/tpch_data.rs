//! TPC-H's lineitem as Parquet: `cargo run --example tpch_data -- SCALE_FACTOR OUT.parquet`
//!
//! `tests/models/make_tpch.py` trains its model on it, and it is data at scale for the shell.

use std::fs::File;

use datafusion::error::{DataFusionError, Result};
use datafusion::parquet::arrow::ArrowWriter;
use tpchgen::generators::LineItemGenerator;
use tpchgen_arrow::LineItemArrow;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [scale_factor, path] = arguments.as_slice() else {
        return Err(DataFusionError::Execution("usage: tpch_data SCALE_FACTOR OUT.parquet".into()));
    };
    let scale_factor = scale_factor.parse().map_err(|error| DataFusionError::External(Box::new(error)))?;
    let generator = LineItemArrow::new(LineItemGenerator::new(scale_factor, 1, 1));
    let mut writer = ArrowWriter::try_new(File::create(path)?, LineItemArrow::schema_ref(), None)?;
    for batch in generator {
        writer.write(&batch?)?;
    }
    writer.close()?;
    Ok(())
}
