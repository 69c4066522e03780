//! One arena for all sessions on the CPU, with a limit.
//!
//! A graph of 200 bytes can ask for a tensor of 34 GB. Without a limit the system ends the process; with one, the run fails.

use std::ptr::{self, NonNull};

use ort::AsPointer;
use ort::environment::Environment;
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};

/// Makes the arena that sessions of `environment` share if they ask for it, for at most `limit` bytes, of which 0 is none.
///
/// What runs keep between layers comes from it, and copies of weights that were repacked. Not the weights themselves, the
/// structures of trees, and what is folded while a model is loaded. Call it once, before the first session is made. ONNX
/// Runtime before 1.20 may ignore it on other processors than x86-64.
pub(super) fn share(environment: &Environment, limit: u64) -> ort::Result<()> {
    // Another type of allocator would be none with a limit, without a word.
    let info = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Arena, MemoryType::Default)?;
    let keys = [c"max_mem".as_ptr()];
    let values = [usize::try_from(limit).unwrap_or(usize::MAX)];
    let mut config = ptr::null_mut();
    // SAFETY: both arrays have the length that is given, and the keys are C strings.
    let status = unsafe { (ort::api().CreateArenaCfgV2)(keys.as_ptr(), values.as_ptr(), keys.len(), &mut config) };
    // SAFETY: the status is fresh, and given away here.
    unsafe { ort::Error::result_from_status(status)? };
    let config =
        NonNull::new(config).ok_or_else(|| ort::Error::new("ONNX Runtime made no configuration of an arena"))?;
    // SAFETY: all three are alive, ONNX Runtime copies what it needs of the last two, and no session is being made.
    unsafe {
        let status = (ort::api().CreateAndRegisterAllocator)(environment.ptr().cast_mut(), info.ptr(), config.as_ptr());
        (ort::api().ReleaseArenaCfg)(config.as_ptr());
        ort::Error::result_from_status(status)
    }
}

/// Half of the machine's memory, or of what the process may have of it; no limit where the system does not say.
pub(super) fn default_limit() -> u64 {
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let of_machine = || {
        let text = std::fs::read_to_string("/proc/meminfo").ok()?;
        let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        total.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    let of_container =
        ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"].into_iter().filter_map(number);
    of_machine().into_iter().chain(of_container).min().map_or(0, |bytes| bytes / 2)
}
