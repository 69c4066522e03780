//! `SHOW DEVICES`: where models can run here.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray, UInt64Array};
use datafusion::common::Result as DFResult;

use crate::engine::{Device, hardware};
use crate::runtime::PredictRuntime;

/// The kinds of devices that the option `device` names.
const KINDS: [Device; 7] = [
    Device::Cpu,
    Device::Cuda(0),
    Device::TensorRt(0),
    Device::OpenVino,
    Device::CoreMl,
    Device::DirectMl(0),
    Device::WebGpu,
];

/// A row for each device that is known, and for each kind of which none is: its name, the bytes of its memory, the engines that were
/// built for it, and whether there is one, where that is known. It loads ONNX Runtime.
pub(super) fn devices(runtime: &PredictRuntime) -> DFResult<RecordBatch> {
    let engines = runtime.registry().engines();
    let known: Vec<_> = engines.iter().map(|engine| (engine.name().to_owned(), engine.devices())).collect();
    let hardware = hardware();
    let has_gpu = hardware.iter().any(|it| it.device.starts_with("cuda"));
    let (mut device, mut name, mut memory, mut of_engines, mut available) = (vec![], vec![], vec![], vec![], vec![]);
    for kind in KINDS.map(Device::kind) {
        let mut found = hardware.iter().filter(|it| it.device.split(':').next() == Some(kind)).peekable();
        let engines: Vec<_> =
            known.iter().filter(|(_, kinds)| kinds.contains(&kind)).map(|(name, _)| &**name).collect();
        let none = found.peek().is_none().then_some(None);
        for it in found.map(Some).chain(none) {
            device.push(it.map_or(kind, |it| &it.device));
            name.push(it.and_then(|it| it.name.clone()));
            memory.push(it.and_then(|it| it.memory));
            of_engines.push(engines.join(", "));
            available.push(match kind {
                _ if engines.is_empty() => Some(false),
                "cpu" => Some(true),
                "cuda" | "tensorrt" if cfg!(target_os = "linux") => Some(has_gpu),
                _ => None, // whether there is one shows when a model is created for it
            });
        }
    }
    let text = |values: Vec<Option<String>>| -> ArrayRef { Arc::new(StringArray::from(values)) };
    Ok(RecordBatch::try_from_iter([
        ("device", Arc::new(StringArray::from(device)) as ArrayRef),
        ("name", text(name)),
        ("memory", Arc::new(UInt64Array::from(memory))),
        ("built_for_it", Arc::new(StringArray::from(of_engines))),
        ("available", Arc::new(BooleanArray::from(available))),
    ])?)
}
