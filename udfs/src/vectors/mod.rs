//! Functions of vectors and of lists of scores: how alike two are, the mean of many, the best of one.
//!
//! `inner_product`, `cosine_distance`, `array_distance` and `array_normalize` are faster forms of DataFusion's own for lists of a
//! fixed size of `FLOAT`, as models of texts give them; the others are new.
//!
//! DataFusion makes lists of any kind lists of `DOUBLE` first, and reads them row by row. For all other types of lists these
//! functions are its own.

mod average;
mod kernels;
mod normalize;
mod scores;

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, Float64Array};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::datatypes::{DataType, Float32Type};
use datafusion::common::{DataFusionError, Result, ScalarValue, internal_err, plan_err};
use datafusion::functions_nested::{cosine_distance, distance, inner_product};
use datafusion::logical_expr::scalar_doc_sections::DOC_SECTION_ARRAY;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

pub use average::{VectorAverage, vector_avg};
use kernels::{Side, Sum, products_and_squares, sums};
pub use normalize::Normalize;
pub use scores::ScoresFunction;

/// What is computed of two vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Measure {
    /// `cosine_similarity`: from -1 to 1; 1 for vectors of one direction.
    Similarity,
    /// `cosine_distance`: 1 less that.
    CosineDistance,
    /// `inner_product`
    Product,
    /// `array_distance`: Euclid's.
    Distance,
}

/// A measure of two vectors as an SQL function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct VectorFunction {
    measure: Measure,
    /// DataFusion's function, for lists of other types; that of the distance, for the similarity.
    general: Arc<ScalarUDF>,
    signature: Signature,
}

/// The functions of vectors.
pub fn vector_functions() -> Vec<Arc<ScalarUDF>> {
    let measures = [
        (Measure::Similarity, cosine_distance::cosine_distance_udf()),
        (Measure::CosineDistance, cosine_distance::cosine_distance_udf()),
        (Measure::Product, inner_product::inner_product_udf()),
        (Measure::Distance, distance::array_distance_udf()),
    ];
    let function = |(measure, general)| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(VectorFunction { measure, general, signature }))
    };
    let of_one = scores::scores_functions().into_iter().chain([normalize::array_normalize()]);
    measures.into_iter().map(function).chain(of_one).collect()
}

/// The values of a vector of a fixed size of `FLOAT`, if it is one.
fn width(data_type: &DataType) -> Option<usize> {
    match data_type {
        DataType::FixedSizeList(item, size) if *item.data_type() == DataType::Float32 => usize::try_from(*size).ok(),
        _ => None,
    }
}

impl ScalarUDFImpl for VectorFunction {
    fn name(&self) -> &str {
        match self.measure {
            Measure::Similarity => "cosine_similarity",
            _ => self.general.name(),
        }
    }

    fn aliases(&self) -> &[String] {
        match self.measure {
            Measure::Similarity => &[],
            _ => self.general.aliases(),
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [a, b] = types else {
            return plan_err!("{} takes two vectors, found {}", self.name(), types.len());
        };
        match (width(a), width(b)) {
            (Some(a_width), Some(b_width)) if a_width == b_width => Ok(types.to_vec()),
            (Some(a_width), Some(b_width)) => {
                plan_err!("{}: expected vectors of one size, found {a_width} and {b_width} values", self.name())
            }
            _ => self.general.coerce_types(types).map_err(|error| self.named(error)),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let widths: Vec<_> = args.args.iter().map(|arg| width(&arg.data_type())).collect();
        let [Some(width), Some(_)] = widths[..] else {
            let general = self.general.invoke_with_args(args).map_err(|error| self.named(error))?;
            return if self.measure == Measure::Similarity { similarity(general) } else { Ok(general) };
        };
        let is_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_scalar { 1 } else { args.number_rows };
        let vectors = args.args.iter().map(Vectors::of).collect::<Result<Vec<_>>>()?;
        let [a, b] = vectors.as_slice() else { return internal_err!("{} has no two vectors", self.name()) };
        let result: ArrayRef = Arc::new(self.of_vectors(a, b, rows, width));
        if is_scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }

    fn documentation(&self) -> Option<&Documentation> {
        static SIMILARITY: LazyLock<Documentation> = LazyLock::new(|| {
            let description = "The cosine of the angle between two vectors: 1 if they have one direction, 0 if they have nothing in common.";
            Documentation::builder(DOC_SECTION_ARRAY, description, "cosine_similarity(vector, vector)")
                .with_argument("vector", "A list of numbers, such as embed gives it.")
                .with_sql_example("```sql\nSELECT cosine_similarity([1.0, 0.0], [1.0, 1.0]);\n```")
                .with_related_udf("cosine_distance")
                .build()
        });
        if self.measure == Measure::Similarity { Some(&SIMILARITY) } else { self.general.documentation() }
    }
}

impl VectorFunction {
    /// An error of DataFusion's function, with the name that the user has called.
    fn named(&self, error: DataFusionError) -> DataFusionError {
        match error {
            DataFusionError::Execution(text) if self.measure == Measure::Similarity => {
                DataFusionError::Execution(text.replace(self.general.name(), self.name()))
            }
            DataFusionError::Plan(text) if self.measure == Measure::Similarity => {
                DataFusionError::Plan(text.replace(self.general.name(), self.name()))
            }
            other => other,
        }
    }

    fn of_vectors(&self, a: &Vectors, b: &Vectors, rows: usize, width: usize) -> Float64Array {
        let mut nulls = NullBuffer::union(a.nulls(rows, width).as_ref(), b.nulls(rows, width).as_ref());
        let (left, right) = (a.side(width), b.side(width));
        let values = match self.measure {
            Measure::Product => sums(Sum::Products, left, right, rows, width),
            Measure::Distance => {
                let mut squares = sums(Sum::SquaresOfDifferences, left, right, rows, width);
                squares.iter_mut().for_each(|square| *square = square.sqrt());
                squares
            }
            Measure::Similarity | Measure::CosineDistance => {
                // One vector beside a column is squared once.
                let (column, one) = if matches!(left, Side::One(_)) { (right, left) } else { (left, right) };
                let products = products_and_squares(column, one, rows, width);
                // As those of the column are: a vector is exactly like itself.
                let others = products_and_squares(one, one, if matches!(one, Side::One(_)) { 1 } else { rows }, width);
                // A vector without a direction has no angle with any other.
                let others = || others.iter().cycle();
                let has_direction =
                    products.iter().zip(others()).map(|((_, one), (_, other))| *one != 0.0 && *other != 0.0);
                nulls = NullBuffer::union(nulls.as_ref(), Some(&has_direction.collect()));
                let cosine = |((product, square), (_, other)): (&(f64, f64), &(f64, f64))| {
                    product / (square.sqrt() * other.sqrt())
                };
                let cosines = products.iter().zip(others()).map(cosine);
                match self.measure {
                    Measure::Similarity => cosines.collect(),
                    _ => cosines.map(|cosine| 1.0 - cosine).collect(),
                }
            }
        };
        Float64Array::new(values.into(), nulls)
    }
}

/// The similarities of distances.
fn similarity(distances: ColumnarValue) -> Result<ColumnarValue> {
    let similar = |distance: f64| 1.0 - distance;
    Ok(match distances {
        ColumnarValue::Scalar(ScalarValue::Float64(distance)) => {
            ColumnarValue::Scalar(ScalarValue::Float64(distance.map(similar)))
        }
        ColumnarValue::Array(distances) => {
            let distances = distances.as_primitive::<datafusion::arrow::datatypes::Float64Type>();
            ColumnarValue::Array(Arc::new(distances.unary::<_, datafusion::arrow::datatypes::Float64Type>(similar)))
        }
        other => return internal_err!("a distance is a number, found {}", other.data_type()),
    })
}

/// The vectors of one argument.
struct Vectors {
    list: FixedSizeListArray,
    /// Whether its only vector is that of all rows.
    is_one: bool,
}

impl Vectors {
    fn of(argument: &ColumnarValue) -> Result<Self> {
        let (array, is_one) = match argument {
            ColumnarValue::Array(array) => (array.clone(), false),
            ColumnarValue::Scalar(value) => (value.to_array()?, true),
        };
        Ok(Self { list: array.as_fixed_size_list().clone(), is_one })
    }

    fn side(&self, width: usize) -> Side<'_> {
        let start = self.list.value_offset(0) as usize; // not below 0
        let values = &self.list.values().as_primitive::<Float32Type>().values()[start..];
        if self.is_one { Side::One(&values[..width]) } else { Side::Rows(values) }
    }

    /// Rows whose vector is NULL, or has a NULL among its values.
    fn nulls(&self, rows: usize, width: usize) -> Option<NullBuffer> {
        let of_values = self.list.values().nulls().filter(|nulls| nulls.null_count() > 0).map(|nulls| {
            let start = self.list.value_offset(0) as usize; // not below 0
            let whole = |row: usize| nulls.slice(start + row * width, width).null_count() == 0;
            (0..self.list.len()).map(whole).collect::<NullBuffer>()
        });
        let nulls = NullBuffer::union(self.list.nulls(), of_values.as_ref())?;
        if !self.is_one {
            return Some(nulls);
        }
        nulls.is_null(0).then(|| NullBuffer::new_null(rows))
    }
}
