//! `image_info`: what a picture's file says of it.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, StringArray, StructArray};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::scalar_doc_sections::DOC_SECTION_OTHER;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::encode::ImageInfo;

/// `image_info(bytes)`: the format, the size and the kind of the picture in a file, which is not decoded.
///
/// ```sql
/// SELECT path, image_info(content)['width'] AS width FROM files('photos/*.jpg') WHERE image_info(content) IS NOT NULL;
/// ```
#[derive(Debug, PartialEq, Eq, Hash)]
struct ImageInfoFunction {
    signature: Signature,
}

/// The function.
pub(crate) fn image_info() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(ImageInfoFunction { signature: Signature::user_defined(Volatility::Immutable) }))
}

/// The parts of a result, each with what it is taken from.
type Number = fn(&ImageInfo) -> i64;
const NUMBERS: [(&str, Number); 5] = [
    ("width", |info| i64::from(info.width)),
    ("height", |info| i64::from(info.height)),
    ("channels", |info| i64::from(info.channels)),
    ("bits", |info| i64::from(info.bits)),
    ("orientation", |info| i64::from(info.orientation)),
];

fn fields() -> Fields {
    let format = Field::new("format", DataType::Utf8, true);
    let numbers = NUMBERS.iter().map(|(name, _)| Field::new(*name, DataType::Int64, true));
    std::iter::once(format).chain(numbers).collect()
}

impl ScalarUDFImpl for ImageInfoFunction {
    fn name(&self) -> &str {
        "image_info"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn documentation(&self) -> Option<&Documentation> {
        static DOCUMENTATION: LazyLock<Documentation> = LazyLock::new(|| {
            let what = "Tells what the file of a picture says of it: format, width and height in pixels (of the upright picture), \
                        channels and their bits after decoding, and EXIF's number of its orientation. NULL for what is no JPEG, PNG or WebP. \
                        The picture is not decoded.";
            Documentation::builder(DOC_SECTION_OTHER, what, "image_info(bytes)")
                .with_argument("bytes", "What is in the file.")
                .with_sql_example("```sql\nSELECT path, image_info(content)['width'] FROM files('photos/*.jpg');\n```")
                .build()
        });
        Some(&DOCUMENTATION)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [DataType::Null] => Ok(vec![DataType::BinaryView]),
            [bytes @ (DataType::Binary | DataType::LargeBinary | DataType::BinaryView)] => Ok(vec![bytes.clone()]),
            [text] if text.is_string() => {
                plan_err!(
                    "image_info: expected what is in a file, found {text}: read_blob(…) reads the file of that name"
                )
            }
            other => {
                let found = other.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                plan_err!("image_info: expected what is in a file, as BYTEA, found ({found})")
            }
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(fields()))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let files = ColumnarValue::values_to_arrays(&args.args)?;
        let files = files[0].as_ref();
        let infos: Vec<_> = match files.data_type() {
            DataType::Binary => files.as_binary::<i32>().iter().map(|file| ImageInfo::of(file?)).collect(),
            DataType::LargeBinary => files.as_binary::<i64>().iter().map(|file| ImageInfo::of(file?)).collect(),
            _ => files.as_binary_view().iter().map(|file| ImageInfo::of(file?)).collect(),
        };
        let format: StringArray = infos.iter().map(|info| info.as_ref().map(|info| info.format)).collect();
        let numbers = NUMBERS.iter().map(|(_, number)| {
            let numbers: Int64Array = infos.iter().map(|info| info.as_ref().map(number)).collect();
            Arc::new(numbers) as ArrayRef
        });
        let columns = std::iter::once(Arc::new(format) as ArrayRef).chain(numbers).collect();
        let valid: NullBuffer = infos.iter().map(Option::is_some).collect();
        let result = StructArray::try_new(fields(), columns, Some(valid))?;
        match args.args[0] {
            ColumnarValue::Scalar(_) => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?)),
            ColumnarValue::Array(_) => Ok(ColumnarValue::Array(Arc::new(result))),
        }
    }
}
