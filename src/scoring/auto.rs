//! `OPTIONS (device 'auto')`: the device or the CPU, by what rows cost on each.

use std::sync::Arc;
use std::time::Duration;

use super::Predictor;
use super::prepare::PredictorRequest;
use crate::cancel::CancelToken;
use crate::engine::{Device, Engine};
use crate::error::Result;

/// Prepares a model whose options leave the device to us: on the device that was chosen when it was created, if that is there. Else an
/// engine takes the first device that it can, and where made-up rows cost more there than on all cores of the CPU, the model runs on the
/// CPU.
///
/// # Errors
/// A model that can be prepared neither on a device nor on the CPU: those of the CPU.
pub(super) fn prepare(
    request: PredictorRequest,
    engines: &[Arc<dyn Engine>],
    cancel: &CancelToken,
) -> Result<Arc<Predictor>> {
    let on = |device: Device| {
        let mut on = request.clone();
        on.options.device = Some(device.into());
        Predictor::prepare_on(on, engines, cancel, true)
    };
    if let Some(Ok(chosen)) = request.chosen_device.map(on) {
        return Ok(as_asked(chosen, None, request));
    }
    let on_device = match on(Device::Auto) {
        Ok(on_device) => on_device,
        Err(error) => {
            let note = format!("device 'auto' has left a device on which the model fails: {error}");
            return Ok(as_asked(on(Device::Cpu)?, Some(note), request));
        }
    };
    if on_device.on_cpu {
        let tried = on_device.notes.iter().any(|note| note.starts_with("device 'auto'"));
        let engine = on_device.runner.engine.name();
        let note = format!("device 'auto' has tried none: engine '{engine}' runs the model on the CPU");
        return Ok(if tried { on_device } else { as_asked(on_device, Some(note), request) });
    }
    let device = on_device.device();
    let on_cpu = match on(Device::Cpu) {
        Ok(on_cpu) => on_cpu,
        Err(error) => {
            let note = format!("device 'auto' has chosen {device}: on the CPU the model fails: {error}");
            return Ok(as_asked(on_device, Some(note), request));
        }
    };
    let cores = u32::try_from(request.cores.max(1)).unwrap_or(u32::MAX);
    let (Some(there), Some(here)) = (on_device.row_cost, on_cpu.row_cost.map(|cost| cost / cores)) else {
        return Ok(as_asked(on_device, None, request)); // nothing could be measured
    };
    let (chosen, note) = choose(&device, there, here, on_device, on_cpu);
    Ok(as_asked(chosen, Some(note), request))
}

/// The predictor with the options of `request`, and one more note.
fn as_asked(predictor: Arc<Predictor>, note: Option<String>, request: PredictorRequest) -> Arc<Predictor> {
    let mut predictor = (*predictor).clone();
    predictor.notes.extend(note);
    predictor.request = request;
    Arc::new(predictor)
}

/// The cheaper one, and why.
fn choose<T>(device: &str, there: Duration, here: Duration, on_device: T, on_cpu: T) -> (T, String) {
    let costs = format!("a row costs {there:?} there, {here:?} on all cores of the CPU");
    match there > here {
        true => (on_cpu, format!("device 'auto' has tried {device} and left it: {costs}")),
        false => (on_device, format!("device 'auto' has chosen {device}: {costs}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_left_where_the_cpu_is_faster() {
        let microseconds = Duration::from_micros;
        let (chosen, note) = choose("cuda:0", microseconds(2), microseconds(1), "device", "cpu");
        assert_eq!(chosen, "cpu");
        assert_eq!(
            note,
            "device 'auto' has tried cuda:0 and left it: a row costs 2µs there, 1µs on all cores of the CPU"
        );
        let (chosen, note) = choose("cuda:0", microseconds(1), microseconds(1), "device", "cpu");
        assert_eq!(chosen, "device");
        assert!(note.starts_with("device 'auto' has chosen cuda:0"), "{note}");
    }
}
