//! The engine that needs no library: what [`datafusion_predict_native`] compiles.

use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion_predict_native::{CompileOptions, Compiled, CompiledModel, Model, Tensor, TensorData};

use super::{Columnar, Device, Engine, Executable, PrepareRequest, Prepared, RunContext};
use crate::error::{Result, bail};

/// Runs trees, linear models and their preprocessing, over the columns where they lie.
#[derive(Debug, Default)]
pub struct NativeEngine;

impl NativeEngine {
    /// The name by which sessions choose it.
    pub const NAME: &str = "native";
}

impl Engine for NativeEngine {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn prepare(&self, model: &Arc<Model>, request: &PrepareRequest) -> Result<Prepared> {
        if !matches!(request.device, Device::Cpu | Device::Auto) {
            return Ok(Prepared::Refused(format!("device '{}' is asked for", request.device)));
        }
        if let Some(precision) = request.precision {
            return Ok(Prepared::Refused(format!("it has no floats of precision '{precision}'")));
        }
        if model.token_table().is_some() {
            return Ok(Prepared::Ready(Arc::new(TokenVectors { model: model.clone(), label: request.label.clone() })));
        }
        if request.rows_elsewhere {
            return Ok(Prepared::Refused(
                "its inputs are not one row after the other: its rows may lie elsewhere, or are texts or pictures"
                    .to_owned(),
            ));
        }
        let PrepareRequest { label, inputs, features, outputs, chosen, .. } = request.clone();
        let mut options = CompileOptions::of(model);
        (options.name, options.inputs, options.features) = (label, inputs, features);
        (options.outputs, options.forced) = (outputs, chosen);
        Ok(match CompiledModel::compile(model, &options)? {
            Compiled::Ready(compiled) => Prepared::Ready(Arc::new(NativeExecutable(*compiled))),
            Compiled::Refused(reason) => Prepared::Refused(reason),
            other => Prepared::Refused(format!("{other:?}")),
        })
    }
}

/// Looks up the vectors of tokens.
#[derive(Debug)]
struct TokenVectors {
    model: Arc<Model>,
    label: String,
}

impl Executable for TokenVectors {
    fn run(&self, inputs: &[Tensor], _: &RunContext) -> Result<Vec<Tensor>> {
        let (Some(table), [Tensor { shape, data: TensorData::Int64(tokens) }]) = (self.model.token_table(), inputs)
        else {
            bail!(EngineFailed, "model '{}' takes numbers of tokens", self.label)
        };
        let mut values = Vec::with_capacity(tokens.len() * table.width());
        for token in tokens.iter() {
            let known = usize::try_from(*token).ok().and_then(|token| table.push_vector(token, &mut values));
            if known.is_none() {
                bail!(EngineFailed, "model '{}' has no vector for token {token}", self.label);
            }
        }
        let shape = shape.iter().copied().chain([table.width()]).collect();
        Ok(vec![Tensor { shape, data: TensorData::Float32(values.into()) }])
    }

    fn device(&self) -> String {
        Device::Cpu.to_string()
    }

    /// None beside the model's own.
    fn size(&self) -> Option<usize> {
        Some(0)
    }
}

#[derive(Debug)]
struct NativeExecutable(CompiledModel);

impl Executable for NativeExecutable {
    fn run(&self, inputs: &[Tensor], context: &RunContext) -> Result<Vec<Tensor>> {
        Ok(self.0.run(inputs, &|| context.cancel.is_cancelled())?)
    }

    fn columnar(&self) -> Option<&dyn Columnar> {
        Some(self)
    }

    fn device(&self) -> String {
        Device::Cpu.to_string()
    }

    fn size(&self) -> Option<usize> {
        Some(self.0.size()).filter(|size| *size > 0)
    }
}

impl Columnar for NativeExecutable {
    fn run_columns(&self, inputs: &[Vec<ArrayRef>], rows: usize, context: &RunContext) -> Result<Vec<Tensor>> {
        Ok(self.0.run_columns(inputs, rows, &|| context.cancel.is_cancelled())?)
    }
}
