//! The table of element types: ONNX, Arrow, and the sizes.

use std::fmt;

use arrow::datatypes::DataType;

/// Element type of a tensor: those of ONNX that have an Arrow counterpart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum ElementType {
    Float32,
    UInt8,
    Int8,
    UInt16,
    Int16,
    Int32,
    Int64,
    String,
    Bool,
    Float16,
    Float64,
    UInt32,
    UInt64,
    /// Stands as Float32 in Arrow, which has no bfloat16.
    BFloat16,
    /// Values of any number of bytes, such as the content of files. ONNX has no such type: they are made numbers before a graph is run.
    Bytes,
}

impl ElementType {
    /// The type with the number that `TensorProto.DataType` gives it.
    pub fn from_onnx(number: i32) -> Option<Self> {
        Some(match number {
            1 => Self::Float32,
            2 => Self::UInt8,
            3 => Self::Int8,
            4 => Self::UInt16,
            5 => Self::Int16,
            6 => Self::Int32,
            7 => Self::Int64,
            8 => Self::String,
            9 => Self::Bool,
            10 => Self::Float16,
            11 => Self::Float64,
            12 => Self::UInt32,
            13 => Self::UInt64,
            16 => Self::BFloat16,
            _ => return None,
        })
    }

    /// The type that ONNX calls `name`, as [`Display`](fmt::Display) writes it.
    pub fn from_name(name: &str) -> Option<Self> {
        (1..=16).filter_map(Self::from_onnx).chain([Self::Bytes]).find(|element| element.to_string() == name)
    }

    /// The Arrow type of a column of such elements.
    pub fn arrow(self) -> DataType {
        match self {
            Self::Float32 | Self::BFloat16 => DataType::Float32,
            Self::UInt8 => DataType::UInt8,
            Self::Int8 => DataType::Int8,
            Self::UInt16 => DataType::UInt16,
            Self::Int16 => DataType::Int16,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::String => DataType::Utf8,
            Self::Bool => DataType::Boolean,
            Self::Float16 => DataType::Float16,
            Self::Float64 => DataType::Float64,
            Self::UInt32 => DataType::UInt32,
            Self::UInt64 => DataType::UInt64,
            Self::Bytes => DataType::Binary,
        }
    }

    /// Bytes of an element in a tensor; `None` for strings and bytes.
    pub fn size(self) -> Option<usize> {
        match self {
            Self::UInt8 | Self::Int8 | Self::Bool => Some(1),
            Self::UInt16 | Self::Int16 | Self::Float16 | Self::BFloat16 => Some(2),
            Self::Float32 | Self::Int32 | Self::UInt32 => Some(4),
            Self::Float64 | Self::Int64 | Self::UInt64 => Some(8),
            Self::String | Self::Bytes => None,
        }
    }

    /// Whether NaN is among the elements.
    pub fn is_float(self) -> bool {
        matches!(self, Self::Float16 | Self::BFloat16 | Self::Float32 | Self::Float64)
    }

    /// Whether an argument of type `from` is taken for such an element without an explicit cast.
    ///
    /// Numbers may become floats, and integers other integers (checked for each value). Decimals, dates and times are
    /// no numbers here, and a float becomes no integer: what such a cast should mean is the user's to say.
    pub fn accepts(self, from: &DataType) -> bool {
        match from {
            DataType::Null => true,
            DataType::Dictionary(_, values) => self.accepts(values),
            DataType::RunEndEncoded(_, values) => self.accepts(values.data_type()),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => self == Self::String,
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                self == Self::Bytes
            }
            DataType::Boolean => !matches!(self, Self::String | Self::Bytes),
            from if from.is_integer() => !matches!(self, Self::String | Self::Bool | Self::Bytes),
            from if from.is_floating() => self.is_float(),
            _ => false,
        }
    }
}

/// ONNX's name of the type.
impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Float32 => "float",
            Self::UInt8 => "uint8",
            Self::Int8 => "int8",
            Self::UInt16 => "uint16",
            Self::Int16 => "int16",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::String => "string",
            Self::Bool => "bool",
            Self::Float16 => "float16",
            Self::Float64 => "double",
            Self::UInt32 => "uint32",
            Self::UInt64 => "uint64",
            Self::BFloat16 => "bfloat16",
            Self::Bytes => "bytes",
        })
    }
}
