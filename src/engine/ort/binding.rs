//! What a session on a device takes and gives, bound to memory of the host.
//!
//! ```text
//!  tensors ─► page-locked copies ─► in the line ─► bound: copied to the device ─► run ─► outputs in page-locked memory ─► tensors
//!             (where there are)                    └───────────── the device's time ──────────┘
//! ```

use std::ffi::CString;
use std::sync::{Arc, Mutex};

use datafusion_predict_native::Tensor;
use ort::AsPointer;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, RunOptions, Session, SessionInputValue};
use ort::value::TensorElementType;

use super::convert;
use crate::engine::Device;

/// Memory of the host that a device reads and writes.
#[derive(Debug, Clone)]
pub(super) enum HostMemory {
    /// As any other. A driver copies it once more, into memory of its own that is page-locked.
    Pageable,
    /// Page-locked: the device reads and writes it by itself, without the driver's copy.
    PageLocked(Arc<PageLocked>),
}

/// Page-locked memory of one device.
#[derive(Debug)]
pub(super) struct PageLocked {
    allocator: Mutex<Allocator>,
    info: MemoryInfo<'static>,
}

impl From<Allocator> for PageLocked {
    fn from(allocator: Allocator) -> Self {
        Self { info: allocator.memory_info().to_owned(), allocator: Mutex::new(allocator) }
    }
}

impl HostMemory {
    /// What `session` on `device` has: page-locked memory, where its provider gives some.
    pub(super) fn of(session: &Session, device: Device) -> Self {
        let (Device::Cuda(number) | Device::TensorRt(number)) = device else { return Self::Pageable };
        // Older versions have it under the number 0 for all devices.
        let allocator = [number, 0].into_iter().find_map(|number| {
            let kind = AllocationDevice::CUDA_PINNED;
            let info = MemoryInfo::new(kind, number.into(), AllocatorType::Device, MemoryType::CPUOutput).ok()?;
            Allocator::new(session, info).ok()
        });
        allocator.map_or(Self::Pageable, |allocator| Self::PageLocked(Arc::new(allocator.into())))
    }

    /// `tensor` as an input that the device can read: as it is, or copied into page-locked memory.
    pub(super) fn input<'t>(&self, tensor: &'t Tensor) -> ort::Result<SessionInputValue<'t>> {
        match self {
            Self::PageLocked(memory) => {
                let copy = convert::copied(tensor, &memory.allocator)?;
                copy.map_or_else(|| convert::to_input(tensor), Ok)
            }
            Self::Pageable => convert::to_input(tensor),
        }
    }
}

/// The inputs and outputs of one session.
#[derive(Debug)]
pub(super) struct Binding {
    binding: IoBinding,
    inputs: Vec<CString>,
    /// The names of the outputs, and the memory that they come back in.
    outputs: Vec<(String, MemoryInfo<'static>)>,
}

impl Binding {
    /// Of a session on a device that takes `inputs` and gives `outputs`, by their names.
    pub(super) fn new(
        session: &Session,
        inputs: &[String],
        outputs: &[String],
        host: &HostMemory,
    ) -> ort::Result<Self> {
        let named = |name: &String| CString::new(name.as_str()).map_err(|_| ort::Error::new("a name has a zero byte"));
        let inputs = inputs.iter().map(named).collect::<ort::Result<_>>()?;
        let is_text = |name: &String| {
            let output = session.outputs().iter().find(|output| output.name() == name);
            output.is_some_and(|output| output.dtype().tensor_type() == Some(TensorElementType::String))
        };
        let memory_of = |name: &String| match host {
            HostMemory::PageLocked(memory) if !is_text(name) => memory.info.to_owned(),
            _ => MemoryInfo::default(), // texts are objects, which no device writes
        };
        let outputs = outputs.iter().map(|name| (name.clone(), memory_of(name))).collect();
        Ok(Self { binding: session.create_binding()?, inputs, outputs })
    }

    /// Runs `session`, whose binding this is, and copies what it gives. The inputs are in the order of their names.
    pub(super) fn run(
        &mut self,
        session: &mut Session,
        inputs: &[SessionInputValue],
        options: &RunOptions,
    ) -> ort::Result<Vec<Tensor>> {
        let ran = self.run_bound(session, inputs, options);
        // They point into `inputs` where the session reads them on the host, and the next outputs have other shapes.
        self.binding.clear();
        ran
    }

    fn run_bound(
        &mut self,
        session: &mut Session,
        inputs: &[SessionInputValue],
        options: &RunOptions,
    ) -> ort::Result<Vec<Tensor>> {
        for (name, value) in self.inputs.iter().zip(inputs) {
            // ort's own binding copies what is borrowed once more.
            // SAFETY: all three are alive. ONNX Runtime holds on to the value, whose elements outlive the run: `run` clears the
            // binding before it gives `inputs` back.
            unsafe {
                let status = (ort::api().BindInput)(self.binding.ptr().cast_mut(), name.as_ptr(), value.ptr());
                ort::Error::result_from_status(status)?;
            }
        }
        for (output, memory) in &self.outputs {
            self.binding.bind_output_to_device(output, memory)?;
        }
        self.binding.synchronize_inputs()?;
        let outputs = session.run_binding_with_options(&self.binding, options)?;
        self.binding.synchronize_outputs()?;
        self.outputs.iter().map(|(name, _)| convert::from_output(&outputs[name.as_str()])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ort::library;
    use datafusion_predict_native::TensorData;

    /// The CPU's memory stands for page-locked memory: what is bound and copied is the same.
    #[test]
    fn what_is_bound_gives_what_is_not() {
        let environment = library::environment(None, 0).expect("ONNX Runtime").environment;
        let mut builder = Session::builder(&environment).expect("a builder");
        let mut session = builder.commit_from_file("tests/models/neural/digits_cnn.onnx").expect("a session");
        let input = session.inputs()[0].name().to_owned();
        let outputs: Vec<_> = session.outputs().iter().map(|output| output.name().to_owned()).collect();
        let locked = HostMemory::PageLocked(Arc::new(Allocator::default().into()));
        let options = RunOptions::new().expect("options");
        for host in [HostMemory::Pageable, locked] {
            let mut binding = Binding::new(&session, std::slice::from_ref(&input), &outputs, &host).expect("a binding");
            // Other numbers of rows have outputs of other shapes.
            for rows in [3, 7, 7, 1] {
                let pixels: Vec<f32> = (0..rows * 64).map(|i| (i % 17) as f32).collect();
                let tensor = Tensor { shape: vec![rows, 1, 8, 8], data: TensorData::Float32(pixels.into()) };
                let expected: Vec<_> = {
                    let given = convert::to_input(&tensor).expect("an input");
                    let given = session.run(vec![(input.as_str(), given)]).expect("it runs");
                    outputs.iter().map(|name| convert::from_output(&given[name.as_str()]).expect("a copy")).collect()
                };
                let bound = [host.input(&tensor).expect("an input")];
                assert_eq!(binding.run(&mut session, &bound, &options).expect("it runs"), expected);
            }
            let wrong = Tensor { shape: vec![1, 3], data: TensorData::Float32(vec![0.0; 3].into()) };
            let wrong = [host.input(&wrong).expect("an input")];
            assert!(binding.run(&mut session, &wrong, &options).is_err());
        }
    }

    #[test]
    fn outputs_that_are_texts_stay_out_of_page_locked_memory() {
        let environment = library::environment(None, 0).expect("ONNX Runtime").environment;
        let mut builder = Session::builder(&environment).expect("a builder");
        let session = builder.commit_from_file("tests/models/queries/classes.onnx").expect("a session");
        let names = |outlets: &[ort::value::Outlet]| outlets.iter().map(|it| it.name().to_owned()).collect::<Vec<_>>();
        let (inputs, outputs) = (names(session.inputs()), names(session.outputs()));
        let mut locked = PageLocked::from(Allocator::default());
        locked.info = MemoryInfo::new(AllocationDevice::CUDA_PINNED, 0, AllocatorType::Device, MemoryType::CPUOutput)
            .expect("a kind of memory");
        let binding = Binding::new(&session, &inputs, &outputs, &HostMemory::PageLocked(Arc::new(locked)));
        let binding = binding.expect("a binding");
        for ((name, memory), output) in binding.outputs.iter().zip(session.outputs()) {
            let is_text = output.dtype().tensor_type() == Some(TensorElementType::String);
            assert_eq!(memory.allocation_device() == AllocationDevice::CPU, is_text, "{name}");
        }
        assert!(session.outputs().iter().any(|it| it.dtype().tensor_type() == Some(TensorElementType::String)));
    }

    #[test]
    fn strings_have_no_page_locked_copy() {
        library::environment(None, 0).expect("ONNX Runtime");
        let tensor = Tensor { shape: vec![1], data: TensorData::String(vec!["a"].into()) };
        assert!(convert::copied(&tensor, &Mutex::new(Allocator::default())).expect("no error").is_none());
    }
}
