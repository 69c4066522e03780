//! Providers that are libraries of their own: plug-ins, which ONNX Runtime loads since its version 1.22.
//!
//! A plug-in brings devices: those of this machine that its provider can use. ONNX Runtime's table of functions has the ones for plug-ins
//! after those that `ort` knows of the oldest version that we take, so they are called by their places.

use std::ffi::{CStr, CString, c_char, c_void};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ort::AsPointer;
use ort::environment::Environment;
use ort::session::builder::SessionBuilder;

use super::library::Loaded;
use super::message::RuntimeError;
use super::provider;
use crate::engine::{Device, PluginDevice};
use crate::error::{Result, bail, error};

/// The first minor version of ONNX Runtime 1 whose table has the functions below.
pub(super) const SINCE: u32 = 22;

/// The places of functions, which are given to no others in later versions.
mod place {
    pub(super) const REGISTER: usize = 301;
    pub(super) const DEVICES: usize = 303;
    pub(super) const APPEND: usize = 304;
    pub(super) const KIND: usize = 307;
    pub(super) const VENDOR: usize = 309;
    pub(super) const PROVIDER: usize = 312;
    pub(super) const HARDWARE: usize = 316;
}

/// One of the devices of a provider, which ONNX Runtime keeps until the process ends.
type EpDevice = *const c_void;
type Status = ort::sys::OrtStatusPtr;

/// The functions for plug-ins, from ONNX Runtime's table.
struct Functions(*const *const c_void);

impl Functions {
    /// Those of the loaded library, if its version has them.
    fn of(minor: u32) -> Option<Self> {
        let table: *const ort::sys::OrtApi = ort::api();
        // A library gives the same table, its newest one, whatever older version is asked for.
        (minor >= SINCE).then(|| Self(table.cast()))
    }

    /// The function at `place`.
    ///
    /// # Safety
    /// `F` is the type of the function that all versions from [`SINCE`] on have there.
    unsafe fn at<F: Copy>(&self, place: usize) -> F {
        assert_eq!(size_of::<F>(), size_of::<*const c_void>());
        // SAFETY: the table is as long, see `of`, and all of its entries are functions.
        unsafe { self.0.add(place).cast::<F>().read() }
    }

    /// `RegisterExecutionProviderLibrary`
    fn register(&self, environment: &Environment, name: &CStr, path: &Path) -> ort::Result<()> {
        type Register = unsafe extern "system" fn(*mut c_void, *const c_char, *const ort::sys::os_char) -> Status;
        let path = path_chars(path);
        // SAFETY: the function's type is that of ONNX Runtime's header, and all that it is given is alive.
        unsafe {
            let register: Register = self.at(place::REGISTER);
            let status = register(environment.ptr().cast_mut().cast(), name.as_ptr(), path.as_ptr());
            ort::Error::result_from_status(status)
        }
    }

    /// `GetEpDevices`
    fn devices(&self, environment: &Environment) -> ort::Result<Vec<EpDevice>> {
        type Devices = unsafe extern "system" fn(*const c_void, *mut *const EpDevice, *mut usize) -> Status;
        let (mut devices, mut count) = (ptr::null(), 0);
        // SAFETY: as above; the list is ONNX Runtime's own, and is copied before anything else is registered.
        unsafe {
            let list: Devices = self.at(place::DEVICES);
            ort::Error::result_from_status(list(environment.ptr().cast(), &mut devices, &mut count))?;
            Ok(if count == 0 { vec![] } else { std::slice::from_raw_parts(devices, count).to_vec() })
        }
    }

    /// `SessionOptionsAppendExecutionProvider_V2`
    fn append(
        &self,
        builder: &SessionBuilder,
        environment: &Environment,
        device: EpDevice,
        options: &[(CString, CString)],
    ) -> ort::Result<()> {
        type Append = unsafe extern "system" fn(
            *mut c_void,
            *mut c_void,
            *const EpDevice,
            usize,
            *const *const c_char,
            *const *const c_char,
            usize,
        ) -> Status;
        let names: Vec<_> = options.iter().map(|(name, _)| name.as_ptr()).collect();
        let values: Vec<_> = options.iter().map(|(_, value)| value.as_ptr()).collect();
        // SAFETY: as above; both lists have as many entries as is said.
        unsafe {
            let append: Append = self.at(place::APPEND);
            let (options, environment) = (builder.ptr().cast_mut().cast(), environment.ptr().cast_mut().cast());
            let status = append(options, environment, &device, 1, names.as_ptr(), values.as_ptr(), names.len());
            ort::Error::result_from_status(status)
        }
    }

    /// What `device` is, by `EpDevice_EpName`, `EpDevice_Device` and `HardwareDevice_Vendor`.
    fn describe(&self, device: EpDevice) -> Found {
        let (hardware, kind) = self.hardware(device);
        Found { device, provider: self.text(place::PROVIDER, device), kind, vendor: self.text(place::VENDOR, hardware) }
    }

    /// A text of a device, by the place of the function that gives it.
    fn text(&self, place: usize, device: *const c_void) -> String {
        type Text = unsafe extern "system" fn(*const c_void) -> *const c_char;
        // SAFETY: as above; the text lives as long as the device.
        unsafe {
            let text = self.at::<Text>(place)(device);
            if text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
        }
    }

    /// `EpDevice_Device` and `HardwareDevice_Type`: the hardware of `device`, and its kind.
    fn hardware(&self, device: EpDevice) -> (*const c_void, &'static str) {
        type Hardware = unsafe extern "system" fn(EpDevice) -> *const c_void;
        type Kind = unsafe extern "system" fn(*const c_void) -> i32;
        // SAFETY: as above.
        unsafe {
            let hardware = self.at::<Hardware>(place::HARDWARE)(device);
            let kind = match self.at::<Kind>(place::KIND)(hardware) {
                0 => "CPU",
                1 => "GPU",
                _ => "NPU",
            };
            (hardware, kind)
        }
    }
}

/// A device of a plug-in.
#[derive(Debug, Clone)]
struct Found {
    device: EpDevice,
    /// As ONNX Runtime names the provider: `OpenVINOExecutionProvider`.
    provider: String,
    /// Of the hardware: `CPU`, `GPU`, `NPU`.
    kind: &'static str,
    /// Its maker.
    vendor: String,
}

// SAFETY: ONNX Runtime keeps devices until the process ends, and never changes them.
unsafe impl Send for Found {}

/// A plug-in that is loaded.
#[derive(Debug)]
struct Plugin {
    library: PathBuf,
    found: Vec<Found>,
}

/// The plug-ins of the process.
fn plugins() -> MutexGuard<'static, Vec<Plugin>> {
    static PLUGINS: Mutex<Vec<Plugin>> = Mutex::new(vec![]);
    PLUGINS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Loads the plug-in at `path`, unless it is; its path from the root on.
pub(super) fn register(environment: &Environment, minor: u32, path: &Path) -> Result<PathBuf> {
    let mut plugins = plugins();
    // ONNX Runtime takes a relative one from the folder of its own library.
    let path = &std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if plugins.iter().any(|plugin| plugin.library == *path) {
        return Ok(path.clone());
    }
    let library = path.display();
    if !path.is_file() {
        bail!(OnnxRuntimeMissing, "no provider's library at '{library}': expected a file");
    }
    let Some(functions) = Functions::of(minor) else {
        bail!(
            OnnxRuntimeUnusable,
            "the provider's library '{library}' can't be loaded by ONNX Runtime 1.{minor}: expected 1.{SINCE} or later"
        );
    };
    let loaded = || {
        let before = functions.devices(environment)?;
        let name = CString::new(name(path)).map_err(|_| ort::Error::new("its name has a zero byte"))?;
        functions.register(environment, &name, path)?;
        let devices = functions.devices(environment)?.into_iter().filter(|device| !before.contains(device));
        Ok(devices.map(|device| functions.describe(device)).collect())
    };
    let found = loaded().map_err(|cause: ort::Error| {
        error!(OnnxRuntimeUnusable, "the provider's library '{library}' can't be loaded")
            .with_source(RuntimeError(cause))
    })?;
    plugins.push(Plugin { library: path.clone(), found });
    Ok(path.clone())
}

/// What the plug-ins of `libraries` bring; one that finds none of its devices here brings one that is not available.
pub(super) fn devices(libraries: &[PathBuf]) -> Vec<PluginDevice> {
    let of = |plugin: &Plugin| {
        let plug_in = name(&plugin.library);
        let found = plugin.found.iter().map(|found| PluginDevice {
            device: provider::of_name(&found.provider).map(|device| device.kind().to_owned()),
            name: Some(format!("{} {}", found.vendor, found.kind).trim().to_owned()),
            plug_in: plug_in.clone(),
            is_available: true,
        });
        let found: Vec<_> = found.collect();
        match found.is_empty() {
            true => vec![PluginDevice { device: None, name: None, plug_in, is_available: false }],
            false => found,
        }
    };
    plugins().iter().filter(|plugin| libraries.contains(&plugin.library)).flat_map(of).collect()
}

/// A device of each kind that the plug-ins of `libraries` bring.
pub(super) fn kinds(libraries: &[PathBuf]) -> Vec<Device> {
    let plugins = plugins();
    let found = plugins.iter().filter(|plugin| libraries.contains(&plugin.library)).flat_map(|plugin| &plugin.found);
    found.filter_map(|found| provider::of_name(&found.provider)).collect()
}

/// Lets sessions of `builder` run on `device` with a plug-in, if one brings such devices: the one of its number, or of OpenVINO the first of
/// the kind of hardware that the option `device_type` names, the CPU by default. Whether there is such a plug-in.
///
/// # Errors
/// A plug-in that has not found that device.
pub(super) fn append(
    builder: &SessionBuilder,
    runtime: &Loaded,
    device: Device,
    options: &[(String, String)],
) -> ort::Result<bool> {
    let Loaded { environment, minor, plugins: libraries } = runtime;
    let Some(functions) = Functions::of(*minor) else { return Ok(false) };
    let all = plugins();
    let all = all.iter().filter(|plugin| libraries.contains(&plugin.library)).flat_map(|plugin| &plugin.found);
    let is_of_kind = |found: &&Found| provider::of_name(&found.provider).is_some_and(|of| of.kind() == device.kind());
    let found: Vec<_> = all.filter(is_of_kind).cloned().collect();
    if found.is_empty() {
        return Ok(false);
    }
    let is_kind = |(name, _): &&(String, String)| name == "device_type";
    let asked = options.iter().rev().find(is_kind).map(|(_, kind)| kind.as_str());
    let Some(chosen) = choose(&found, device, asked) else {
        let there: Vec<_> = found.iter().map(|found| format!("{} {}", found.vendor, found.kind)).collect();
        let asked = asked.map_or_else(|| device.to_string(), |kind| format!("{device} of device_type '{kind}'"));
        return Err(ort::Error::new(format!("the plug-in has found no {asked}, but {}", there.join(", "))));
    };
    let options = options.iter().filter(|option| !is_kind(option)).map(|(name, value)| {
        let zero = |_| ort::Error::new(format!("option '{name}' has a zero byte"));
        Ok((CString::new(name.as_str()).map_err(zero)?, CString::new(value.as_str()).map_err(zero)?))
    });
    functions.append(builder, environment, chosen.device, &options.collect::<ort::Result<Vec<_>>>()?)?;
    Ok(true)
}

/// Of what a plug-in has found, what `device` means, whose kind of hardware may be `asked` for: `GPU`, `GPU.1`, `AUTO`.
fn choose<'f>(found: &'f [Found], device: Device, asked: Option<&str>) -> Option<&'f Found> {
    if device != Device::OpenVino {
        return found.get(usize::from(device.number().unwrap_or(0)));
    }
    let of_kind = |kind: &str, number| found.iter().filter(|found| found.kind == kind).nth(number);
    match asked {
        None => of_kind("CPU", 0).or(found.first()),
        Some(kind) => {
            let (kind, number) = kind.split_once('.').unwrap_or((kind, "0"));
            let is_choice = ["AUTO", "HETERO", "MULTI"].iter().any(|choice| kind.starts_with(choice));
            if is_choice { found.first() } else { of_kind(kind, number.parse().ok()?) }
        }
    }
}

/// The name of the plug-in at `path`: that of its file, without what libraries have around it.
fn name(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = file.split('.').next().unwrap_or_default();
    stem.strip_prefix("lib").unwrap_or(stem).to_owned()
}

#[cfg(windows)]
fn path_chars(path: &Path) -> Vec<ort::sys::os_char> {
    use std::os::windows::ffi::OsStrExt;
    path.as_os_str().encode_wide().chain([0]).collect()
}

#[cfg(not(windows))]
fn path_chars(path: &Path) -> Vec<ort::sys::os_char> {
    path.as_os_str().as_encoded_bytes().iter().chain([&0]).map(|byte| *byte as c_char).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ort::library;

    /// The CPU is a device, too, of a provider that needs no plug-in: by it the places are checked.
    #[test]
    fn devices_are_found_described_and_given_to_sessions() {
        let loaded = library::environment(None, 0).expect("ONNX Runtime");
        let Some(functions) = Functions::of(loaded.minor) else { return };
        let devices = functions.devices(&loaded.environment).expect("devices");
        let found: Vec<_> = devices.into_iter().map(|device| functions.describe(device)).collect();
        let cpu = found.iter().find(|found| found.provider == "CPUExecutionProvider").expect("the CPU");
        assert_eq!(cpu.kind, "CPU");
        assert!(!cpu.vendor.is_empty() && cpu.vendor.is_ascii(), "{cpu:?}");
        let mut builder = ort::session::Session::builder(&loaded.environment).expect("a builder");
        let option = (c"use_arena".to_owned(), c"0".to_owned());
        functions.append(&builder, &loaded.environment, cpu.device, &[option]).expect("it is there");
        builder.commit_from_file("tests/models/neural/diabetes_mlp.onnx").expect("a session");
        assert!(!append(&builder, &loaded, Device::OpenVino, &[]).expect("no error"));
    }

    #[test]
    fn what_is_no_plug_in_is_an_error_and_old_versions_have_none() {
        let environment = library::environment(None, 0).expect("ONNX Runtime").environment;
        let problem =
            |path, minor| register(&environment, minor, Path::new(path)).expect_err("it is no library").to_string();
        let found = problem("Cargo.toml", SINCE);
        assert!(found.contains("Cargo.toml' can't be loaded: "), "{found}");
        let found = problem("Cargo.toml", 18);
        assert!(found.ends_with("can't be loaded by ONNX Runtime 1.18: expected 1.22 or later"), "{found}");
        assert!(problem("nothing.so", SINCE).ends_with("nothing.so': expected a file"));
        assert_eq!(devices(&[std::path::absolute("Cargo.toml").expect("a path")]), []);
    }

    #[test]
    fn openvino_has_kinds_of_hardware_and_others_have_numbers() {
        let found = ["GPU", "CPU", "GPU"].map(|kind| Found {
            device: ptr::null(),
            provider: String::new(),
            kind,
            vendor: String::new(),
        });
        let place = |device, asked| {
            choose(&found, device, asked).and_then(|it| found.iter().position(|other| ptr::eq(it, other)))
        };
        let cases = [
            (None, Some(1)),
            (Some("GPU"), Some(0)),
            (Some("GPU.1"), Some(2)),
            (Some("NPU"), None),
            (Some("AUTO:GPU"), Some(0)),
        ];
        cases
            .into_iter()
            .for_each(|(asked, expected)| assert_eq!(place(Device::OpenVino, asked), expected, "{asked:?}"));
        assert_eq!([place(Device::Cuda(2), None), place(Device::Cuda(3), None)], [Some(2), None]);
    }

    #[test]
    fn a_plug_in_is_called_as_its_file() {
        let file = Path::new("/opt/libonnxruntime_providers_openvino_plugin.so.1.8.1");
        assert_eq!(name(file), "onnxruntime_providers_openvino_plugin");
    }
}
