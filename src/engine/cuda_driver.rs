//! The GPUs that NVIDIA's driver names, asked through its library, which is loaded if it is there.

use std::ffi::{CStr, c_char, c_int};
use std::sync::OnceLock;

use libloading::Library;

use super::hardware::Hardware;

#[cfg(windows)]
const DRIVER: &str = "nvcuda.dll";
#[cfg(not(windows))]
const DRIVER: &str = "libcuda.so.1";

/// The longest name of a GPU that is read.
const LONGEST_NAME: usize = 256;

/// The GPUs in the order of CUDA's numbers, with their names and memory; `None` without the driver. Nothing is started on them.
pub(super) fn gpus() -> Option<Vec<Hardware>> {
    type Init = unsafe extern "system" fn(u32) -> c_int;
    type Count = unsafe extern "system" fn(*mut c_int) -> c_int;
    type Get = unsafe extern "system" fn(*mut c_int, c_int) -> c_int;
    type Name = unsafe extern "system" fn(*mut c_char, c_int, c_int) -> c_int;
    type Memory = unsafe extern "system" fn(*mut usize, c_int) -> c_int;
    const SUCCESS: c_int = 0;
    static LOADED: OnceLock<Option<Library>> = OnceLock::new(); // it stays, as it may have threads by then
    // SAFETY: the library is the driver, whose functions have been of these types since CUDA 4; what they write to is alive and as large
    // as they are told.
    unsafe {
        let driver = LOADED.get_or_init(|| Library::new(DRIVER).ok()).as_ref()?;
        let mut count = 0;
        let is_there = driver.get::<Init>(c"cuInit").ok()?(0) == SUCCESS
            && driver.get::<Count>(c"cuDeviceGetCount").ok()?(&mut count) == SUCCESS;
        if !is_there {
            return None;
        }
        let get = driver.get::<Get>(c"cuDeviceGet").ok()?;
        let name_of = driver.get::<Name>(c"cuDeviceGetName").ok()?;
        let memory_of = driver.get::<Memory>(c"cuDeviceTotalMem_v2").ok()?;
        let gpu = |number| {
            let (mut device, mut memory, mut name) = (0, 0, [0; LONGEST_NAME]);
            if get(&mut device, number) != SUCCESS {
                return None;
            }
            let is_named = name_of(name.as_mut_ptr(), LONGEST_NAME as c_int - 1, device) == SUCCESS;
            let name = is_named.then(|| CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned());
            let memory = (memory_of(&mut memory, device) == SUCCESS).then_some(memory as u64);
            Some(Hardware { device: format!("cuda:{number}"), name, memory })
        };
        Some((0..count).filter_map(gpu).collect())
    }
}
