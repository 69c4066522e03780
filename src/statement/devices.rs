//! `SHOW DEVICES`: where models can run here.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray, UInt64Array};
use datafusion::common::Result as DFResult;

use crate::engine::{Device, PluginDevice, hardware};
use crate::error::Result;
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
/// built for it or the plug-in that brings it, and whether there is one, where that is known. A plug-in that finds none of its devices has a
/// row, too. It loads ONNX Runtime.
///
/// # Errors
/// A plug-in that can't be loaded.
pub(super) fn devices(runtime: &PredictRuntime) -> DFResult<RecordBatch> {
    let engines = runtime.registry().engines();
    let kinds: Vec<_> = engines.iter().map(|engine| (engine.name(), engine.devices())).collect();
    let plugged = engines.iter().map(|engine| engine.plugin_devices()).collect::<Result<Vec<_>>>()?.concat();
    let hardware = hardware();
    let has_gpu = hardware.iter().any(|it| it.device.starts_with("cuda"));
    let mut rows = vec![];
    for kind in KINDS.map(Device::kind) {
        let of_kind: Vec<_> = kinds.iter().filter(|(_, kinds)| kinds.contains(&kind)).map(|(name, _)| *name).collect();
        let found = hardware.iter().filter(|it| it.device.split(':').next() == Some(kind));
        let plugged = plugged.iter().filter(|it| it.device.as_deref() == Some(kind));
        let (mut found, mut plugged) = (found.peekable(), plugged.peekable());
        let none = (found.peek().is_none() && plugged.peek().is_none()).then_some(None);
        rows.extend(plugged.map(Row::plugged));
        rows.extend(found.map(Some).chain(none).map(|it| Row {
            device: Some(it.map_or(kind, |it| &it.device).to_owned()),
            name: it.and_then(|it| it.name.clone()),
            memory: it.and_then(|it| it.memory),
            built_for_it: of_kind.join(", "),
            available: match kind {
                _ if of_kind.is_empty() => Some(false),
                "cpu" => Some(true),
                "cuda" | "tensorrt" if cfg!(any(target_os = "linux", windows)) => Some(has_gpu),
                _ => None, // whether there is one shows when a model is created for it
            },
        }));
    }
    rows.extend(plugged.iter().filter(|it| it.device.is_none()).map(Row::plugged));
    let text =
        |text: fn(&Row) -> Option<&str>| -> ArrayRef { Arc::new(rows.iter().map(text).collect::<StringArray>()) };
    Ok(RecordBatch::try_from_iter([
        ("device", text(|row| row.device.as_deref())),
        ("name", text(|row| row.name.as_deref())),
        ("memory", Arc::new(rows.iter().map(|row| row.memory).collect::<UInt64Array>())),
        ("built_for_it", text(|row| Some(&row.built_for_it))),
        ("available", Arc::new(rows.iter().map(|row| row.available).collect::<BooleanArray>())),
    ])?)
}

/// What is known of a device.
struct Row {
    device: Option<String>,
    name: Option<String>,
    memory: Option<u64>,
    built_for_it: String,
    available: Option<bool>,
}

impl Row {
    fn plugged(it: &PluginDevice) -> Self {
        Self {
            device: it.device.clone(),
            name: it.name.clone(),
            memory: None,
            built_for_it: format!("plug-in {}", it.plug_in),
            available: Some(it.is_available),
        }
    }
}
