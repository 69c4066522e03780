//! The devices of this machine, as its system names them.

use std::fs;
use std::thread::available_parallelism;

/// A processor or a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hardware {
    /// As the option `device` names it: `cpu`, `cuda:0`.
    pub device: String,
    /// As its maker names it, where the system says it.
    pub name: Option<String>,
    /// Bytes of its memory, where the system says it.
    pub memory: Option<u64>,
}

/// The processor, and what NVIDIA's driver names. Other devices can't be told without their libraries.
pub(crate) fn hardware() -> Vec<Hardware> {
    #[cfg(feature = "onnxruntime")]
    let gpus = super::cuda_driver::gpus().unwrap_or_else(gpus_of_kernel);
    #[cfg(not(feature = "onnxruntime"))]
    let gpus = gpus_of_kernel();
    std::iter::once(processor()).chain(gpus).collect()
}

/// The GPUs that NVIDIA's part of Linux names.
///
/// CUDA numbers several of them by their speed, which can't be seen here, unless `CUDA_DEVICE_ORDER` says `PCI_BUS_ID`: without that they are
/// `cuda` alone.
fn gpus_of_kernel() -> Vec<Hardware> {
    let gpus = fs::read_dir("/proc/driver/nvidia/gpus").into_iter().flatten().flatten();
    let mut gpus: Vec<_> = gpus.map(|gpu| gpu.path()).collect();
    gpus.sort();
    let by_bus = std::env::var_os("CUDA_DEVICE_ORDER").is_some_and(|order| order == "PCI_BUS_ID");
    let numbered = gpus.len() == 1 || by_bus;
    let gpus = gpus.iter().enumerate().map(|(number, gpu)| Hardware {
        device: if numbered { format!("cuda:{number}") } else { "cuda".to_owned() },
        name: line(&gpu.join("information").display().to_string(), "Model:"),
        memory: None,
    });
    gpus.collect()
}

fn processor() -> Hardware {
    let cores = available_parallelism().map_or(1, |cores| cores.get());
    let model = line("/proc/cpuinfo", "model name").map(|name| name.trim_start_matches(':').trim().to_owned());
    let memory = line("/proc/meminfo", "MemTotal:").and_then(|text| {
        let kilobytes: u64 = text.strip_suffix("kB")?.trim().parse().ok()?;
        kilobytes.checked_mul(1024)
    });
    let name = model.map_or_else(|| format!("{cores} cores"), |model| format!("{model}, {cores} cores"));
    Hardware { device: "cpu".to_owned(), name: Some(name), memory }
}

/// Finds the first line of the file that begins with `key`, and gives the rest of that line: `line("/proc/meminfo", "MemTotal:")`.
fn line(file: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(rest.trim().to_owned()).filter(|rest| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_always_there() {
        let found = hardware();
        assert_eq!(found[0].device, "cpu");
        assert!(found[0].name.as_ref().is_some_and(|name| name.ends_with("cores")), "{found:?}");
    }
}
