//! Finds and loads the library of ONNX Runtime.

use std::env;
use std::ffi::CStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::LoadDynamicError;
use ort::environment::Environment;

use super::arena;
use crate::error::{Result, bail, error};

/// The oldest minor version of ONNX Runtime 1 that will do.
const OLDEST: u32 = ort::MINOR_VERSION;

const HOW_TO_GET_IT: &str =
    "get it with `pip install onnxruntime`, or name the library with --onnxruntime or ORT_DYLIB_PATH";

/// ONNX Runtime, once it is loaded.
#[derive(Debug, Clone)]
pub(super) struct Loaded {
    pub environment: Environment,
    /// The second number of its version: 32 of 1.32.0.
    pub minor: u32,
    /// The libraries of the plug-ins that an engine uses.
    pub plugins: Vec<PathBuf>,
}

/// The process' environment of ONNX Runtime; the first call loads the library, from `explicit` if that is given, and lets all
/// runs on the CPU take `memory_limit` bytes.
pub(super) fn environment(explicit: Option<&Path>, memory_limit: u64) -> Result<Loaded> {
    static ENVIRONMENT: Mutex<Option<Loaded>> = Mutex::new(None);
    let mut environment = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(loaded) = environment.as_ref() {
        return Ok(loaded.clone());
    }
    let path = find(explicit)?;
    let builder = ort::init_from(&path).map_err(|cause| match cause {
        LoadDynamicError::BadVersion { version_str, path } => error!(
            OnnxRuntimeUnusable,
            "the ONNX Runtime at '{}' is version {version_str}: expected 1.{OLDEST} or later; {HOW_TO_GET_IT}",
            path.display()
        ),
        LoadDynamicError::MissingApi { path } => {
            error!(OnnxRuntimeUnusable, "'{}' is not the library of ONNX Runtime; {HOW_TO_GET_IT}", path.display())
        }
        other => error!(OnnxRuntimeMissing, "no ONNX Runtime: {HOW_TO_GET_IT}").with_source(other),
    })?;
    let built = builder
        .with_name("datafusion-predict")
        .with_telemetry(false)
        .build()
        .map_err(|cause| error!(OnnxRuntimeUnusable, "ONNX Runtime does not start").with_source(cause))?;
    arena::share(&built, memory_limit)
        .map_err(|cause| error!(OnnxRuntimeUnusable, "ONNX Runtime has no memory").with_source(cause))?;
    let minor = minor_version(&path).unwrap_or(OLDEST);
    Ok(environment.insert(Loaded { environment: built, minor, plugins: vec![] }).clone())
}

/// The second number of the version of the library at `path`, which is loaded.
fn minor_version(path: &Path) -> Option<u32> {
    type Base = unsafe extern "system" fn() -> *const ort::sys::OrtApiBase;
    // SAFETY: the library is loaded, so nothing is run; it has this function, of this type, as it has let itself be loaded by `ort`, and
    // gives texts that stay.
    let version = unsafe {
        let library = libloading::Library::new(path).ok()?;
        let base = library.get::<Base>(c"OrtGetApiBase").ok()?();
        CStr::from_ptr(((*base).GetVersionString)()).to_str().ok()?.to_owned()
    };
    version.split('.').nth(1)?.parse().ok()
}

fn find(explicit: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = explicit {
        match path.is_file() {
            true => return Ok(path.to_owned()),
            false => {
                bail!(
                    OnnxRuntimeMissing,
                    "no ONNX Runtime at '{}' (--onnxruntime): there is no such file; {HOW_TO_GET_IT}",
                    path.display()
                )
            }
        }
    }
    if let Some(path) = env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(PathBuf::from) {
        match path.is_file() {
            true => return Ok(path),
            false => {
                bail!(
                    OnnxRuntimeMissing,
                    "no ONNX Runtime at '{}' (ORT_DYLIB_PATH): there is no such file; {HOW_TO_GET_IT}",
                    path.display()
                )
            }
        }
    }
    let found = folders().into_iter().find_map(|folder| library_in(&folder));
    // Last, the system's own search: the loader knows more folders than we do.
    Ok(found.unwrap_or_else(|| format!("{}onnxruntime{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX).into()))
}

/// Where `make runtime` puts ONNX Runtime, below the user's data folder.
pub fn onnxruntime_folder() -> Option<PathBuf> {
    let data = match env::var_os("XDG_DATA_HOME").filter(|folder| !folder.is_empty()) {
        Some(folder) => PathBuf::from(folder),
        None => env::home_dir()?.join(".local").join("share"),
    };
    Some(data.join("datafusion-predict").join("runtime"))
}

/// The folders to look in, in this order.
fn folders() -> Vec<PathBuf> {
    let mut folders = vec![];
    if let Some(beside) = env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned)) {
        folders.push(beside.clone());
        folders.push(beside.join("lib"));
    }
    let mut packages = Vec::from_iter(onnxruntime_folder());
    let home = env::home_dir().unwrap_or_default();
    let mut prefixes: Vec<PathBuf> =
        ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(env::var_os).map(PathBuf::from).collect();
    prefixes.push(home.join(".local"));
    prefixes.extend(subfolders(&home.join(".pyenv").join("versions"), ""));
    prefixes.extend(["/usr/local", "/usr", "/opt/homebrew"].map(PathBuf::from));
    for prefix in prefixes {
        for python in subfolders(&prefix.join("lib"), "python3") {
            packages.extend(["site-packages", "dist-packages"].map(|name| python.join(name)));
        }
        packages.push(prefix.join("Lib").join("site-packages")); // Windows
    }
    folders.extend(packages.into_iter().map(|package| package.join("onnxruntime").join("capi")));
    folders
}

fn subfolders(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found.reverse(); // the newest first
    found
}

/// `libonnxruntime.so`, `libonnxruntime.so.1.32.0`, `libonnxruntime.1.32.0.dylib` or `onnxruntime.dll` in `folder`.
fn library_in(folder: &Path) -> Option<PathBuf> {
    let stem = format!("{}onnxruntime.", env::consts::DLL_PREFIX);
    let suffix = env::consts::DLL_EXTENSION;
    let mut found: Vec<_> = fs::read_dir(folder)
        .ok()?
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with(&stem) && name.split('.').any(|part| part == suffix)
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found.pop()
}
