//! `OPTIONS (device 'auto')`: the device or the CPU, by what rows cost on each.

use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use super::Predictor;
use super::prepare::PredictorRequest;
use crate::cancel::CancelToken;
use crate::engine::{Device, Engine};
use crate::error::Result;

/// Prepares a model whose options leave the device to us. An engine has taken the first device that it could; where made-up rows
/// cost more there than on all cores of the CPU, the model runs on the CPU.
///
/// # Errors
/// Those of [`Predictor::prepare`].
pub(super) fn prepare(
    request: PredictorRequest,
    engines: &[Arc<dyn Engine>],
    cancel: &CancelToken,
) -> Result<Arc<Predictor>> {
    let on_device = Predictor::prepare_on(request.clone(), engines, cancel, true)?;
    if on_device.on_cpu {
        return Ok(on_device); // its notes say what was tried
    }
    let mut of_cpu = request.clone();
    of_cpu.options.device = Some(Device::Cpu);
    let on_cpu = Predictor::prepare_on(of_cpu, engines, cancel, true)?;
    let cores = available_parallelism().map_or(1, |cores| cores.get());
    let (Some(there), Some(here)) = (on_device.row_cost, on_cpu.row_cost.map(|cost| cost / cores as u32)) else {
        return Ok(on_device); // nothing could be measured
    };
    let (mut chosen, note) = choose(&on_device.device(), there, here, on_device, on_cpu);
    chosen.notes.push(note);
    chosen.request = request;
    Ok(Arc::new(chosen))
}

/// The cheaper one, and why.
fn choose<T: Clone>(device: &str, there: Duration, here: Duration, on_device: Arc<T>, on_cpu: Arc<T>) -> (T, String) {
    let costs = format!("a row costs {there:?} there, {here:?} on all cores of the CPU");
    match there > here {
        true => ((*on_cpu).clone(), format!("device 'auto' has tried {device} and left it: {costs}")),
        false => ((*on_device).clone(), format!("device 'auto' has chosen {device}: {costs}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_left_where_the_cpu_is_faster() {
        let (device, cpu) = (Arc::new("device"), Arc::new("cpu"));
        let microseconds = Duration::from_micros;
        let (chosen, note) = choose("cuda:0", microseconds(2), microseconds(1), device.clone(), cpu.clone());
        assert_eq!(chosen, "cpu");
        assert_eq!(
            note,
            "device 'auto' has tried cuda:0 and left it: a row costs 2µs there, 1µs on all cores of the CPU"
        );
        let (chosen, note) = choose("cuda:0", microseconds(1), microseconds(1), device, cpu);
        assert_eq!(chosen, "device");
        assert!(note.starts_with("device 'auto' has chosen cuda:0"), "{note}");
    }
}
