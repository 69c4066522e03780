//! Tensors to ONNX Runtime's values and back.

use std::fmt::Debug;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::{Mutex, PoisonError};

use datafusion::arrow::array::{Array, StringArray};
use datafusion_predict_native::{Tensor, TensorData, Weight, WeightData};
use half::{bf16, f16};
use ort::AsPointer;
use ort::memory::{AllocationDevice, Allocator, MemoryInfo};
use ort::session::SessionInputValue;
use ort::value::{
    DynValue, PrimitiveTensorElementType, Tensor as OrtTensor, TensorElementType, TensorRef, TensorValueType,
};

/// Runs `$body` with `$data` bound to the elements of a primitive tensor, else `$other` with `$rest`.
macro_rules! for_primitive {
    ($tensor:expr, $data:ident => $body:expr, $rest:ident => $other:expr) => {
        match $tensor {
            TensorData::Float32($data) => $body,
            TensorData::Float64($data) => $body,
            TensorData::Float16($data) => $body,
            TensorData::Int8($data) => $body,
            TensorData::Int16($data) => $body,
            TensorData::Int32($data) => $body,
            TensorData::Int64($data) => $body,
            TensorData::UInt8($data) => $body,
            TensorData::UInt16($data) => $body,
            TensorData::UInt32($data) => $body,
            TensorData::UInt64($data) => $body,
            $rest => $other,
        }
    };
}

/// An input that borrows the tensor's elements; only strings are copied.
pub(super) fn to_input(tensor: &Tensor) -> ort::Result<SessionInputValue<'_>> {
    let shape = tensor.shape.clone();
    Ok(
        for_primitive!(&tensor.data, data => TensorRef::from_array_view((shape, &data[..]))?.into(), other => match other {
            TensorData::BFloat16(data) => TensorRef::from_array_view((shape, &data[..]))?.into(),
            TensorData::Bool(data) => TensorRef::from_array_view((shape, &data[..]))?.into(),
            TensorData::String(data) => {
                let strings: Vec<String> = (0..data.len()).map(|i| data.value(i).to_owned()).collect();
                OrtTensor::from_string_array((shape, &strings[..]))?.into()
            }
            TensorData::Bytes(_) => return Err(ort::Error::new("ONNX has no bytes")),
            _ => return Err(ort::Error::new("a primitive tensor was not recognized")),
        }),
    )
}

/// The same as a copy in the memory of `allocator`, which must be the host's; `None` for strings, which have no fixed size.
pub(super) fn copied(tensor: &Tensor, allocator: &Mutex<Allocator>) -> ort::Result<Option<SessionInputValue<'static>>> {
    fn copy<T: PrimitiveTensorElementType + Copy + Debug + 'static>(
        shape: &[usize],
        elements: &[T],
        allocator: &Mutex<Allocator>,
    ) -> ort::Result<Option<SessionInputValue<'static>>> {
        let mut copy = {
            let allocator = allocator.lock().unwrap_or_else(PoisonError::into_inner);
            OrtTensor::<T>::new(&allocator, shape.to_vec())?
        };
        if copy.shape().num_elements() != elements.len() {
            return Err(ort::Error::new("a tensor does not fill its shape"));
        }
        // SAFETY: the tensor was just made, with room for as many elements, on the host; nobody else has it.
        unsafe { ptr::copy_nonoverlapping(elements.as_ptr(), copy.data_ptr_mut().cast(), elements.len()) };
        Ok(Some(copy.into()))
    }
    let shape = tensor.shape.as_slice();
    for_primitive!(&tensor.data, data => copy(shape, &data[..], allocator), other => match other {
        TensorData::BFloat16(data) => copy(shape, &data[..], allocator),
        TensorData::Bool(data) => copy(shape, &data[..], allocator),
        _ => Ok(None),
    })
}

/// A copy of an output: ONNX Runtime keeps its own.
pub(super) fn from_output(value: &DynValue) -> ort::Result<Tensor> {
    let Some(element) = value.dtype().tensor_type() else {
        return Err(ort::Error::new(format!("expected a tensor, found {}", value.dtype())));
    };
    macro_rules! copied {
        ($variant:ident, $type:ty) => {
            extract::<$type>(value, |data| TensorData::$variant(data.to_vec().into()))
        };
    }
    match element {
        TensorElementType::Float32 => copied!(Float32, f32),
        TensorElementType::Float64 => copied!(Float64, f64),
        TensorElementType::Float16 => copied!(Float16, f16),
        TensorElementType::Bfloat16 => copied!(BFloat16, bf16),
        TensorElementType::Int8 => copied!(Int8, i8),
        TensorElementType::Int16 => copied!(Int16, i16),
        TensorElementType::Int32 => copied!(Int32, i32),
        TensorElementType::Int64 => copied!(Int64, i64),
        TensorElementType::Uint8 => copied!(UInt8, u8),
        TensorElementType::Uint16 => copied!(UInt16, u16),
        TensorElementType::Uint32 => copied!(UInt32, u32),
        TensorElementType::Uint64 => copied!(UInt64, u64),
        TensorElementType::Bool => copied!(Bool, bool),
        TensorElementType::String => {
            let (shape, strings) = value.try_extract_strings()?;
            let shape = shape.iter().map(|&dim| dim as usize).collect();
            Ok(Tensor { shape, data: TensorData::String(StringArray::from_iter_values(strings)) })
        }
        other => Err(ort::Error::new(format!("element type {other} has no Arrow type"))),
    }
}

fn extract<T: PrimitiveTensorElementType + Debug>(
    value: &DynValue,
    data: impl FnOnce(&[T]) -> TensorData,
) -> ort::Result<Tensor> {
    let tensor = value.view().downcast::<TensorValueType<T>>()?;
    let memory = tensor.memory_info();
    // ort takes page-locked memory for the device's.
    if !memory.is_cpu_accessible() && memory.allocation_device() != AllocationDevice::CUDA_PINNED {
        let device = memory.allocation_device();
        return Err(ort::Error::new(format!("an output is in the memory of {}", device.as_str())));
    }
    let shape: Vec<usize> = tensor.shape().iter().map(|&dim| dim as usize).collect();
    let elements = match tensor.shape().num_elements() {
        0 => &[], // it may have no memory
        // SAFETY: the tensor has so many elements of this type, in memory of the host, and lives on until the end.
        count => unsafe { slice::from_raw_parts(tensor.data_ptr().cast::<T>(), count) },
    };
    Ok(Tensor { shape, data: data(elements) })
}

/// A weight as a value that all sessions share.
///
/// # Safety
/// The value points at the weight's elements, of which it makes no copy: `weight` must outlive it.
pub(super) unsafe fn to_shared(weight: &Weight) -> ort::Result<DynValue> {
    let (data, element) = match &weight.data {
        WeightData::Float32(data) => (data.as_ptr().cast::<u8>(), TensorElementType::Float32),
        WeightData::Float64(data) => (data.as_ptr().cast(), TensorElementType::Float64),
        WeightData::Float16(data) => (data.as_ptr().cast(), TensorElementType::Float16),
        WeightData::BFloat16(data) => (data.as_ptr().cast(), TensorElementType::Bfloat16),
        WeightData::Int8(data) => (data.as_ptr().cast(), TensorElementType::Int8),
        WeightData::UInt8(data) => (data.as_ptr().cast(), TensorElementType::Uint8),
        WeightData::Int32(data) => (data.as_ptr().cast(), TensorElementType::Int32),
        WeightData::Int64(data) => (data.as_ptr().cast(), TensorElementType::Int64),
    };
    let elements = weight.shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(usize::try_from(dim).ok()?));
    if elements != Some(weight.data.len()) {
        return Err(ort::Error::new(format!("weight '{}' does not fill its shape", weight.name)));
    }
    let info = MemoryInfo::default();
    let mut value = ptr::null_mut();
    // ort's own tensors either copy their elements or borrow them for a lifetime that no session can have.
    // SAFETY: the pointer and the size are those of the weight's elements, which live on as the caller promises; ONNX
    // Runtime only reads initializers.
    let status = unsafe {
        (ort::api().CreateTensorWithDataAsOrtValue)(
            info.ptr(),
            data.cast_mut().cast(),
            weight.data.size(),
            weight.shape.as_ptr(),
            weight.shape.len(),
            element.into(),
            &mut value,
        )
    };
    // SAFETY: the status comes from the call above.
    unsafe { ort::Error::result_from_status(status)? };
    let value = NonNull::new(value).ok_or_else(|| ort::Error::new("ONNX Runtime made no tensor of a weight"))?;
    // SAFETY: the value was just made, and nobody else has it. It owns no memory that an allocator would have to free.
    Ok(unsafe { DynValue::from_ptr(value, Some(&Allocator::default())) })
}
