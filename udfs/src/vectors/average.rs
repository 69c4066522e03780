//! `vector_avg`: the mean of the vectors of a group, value by value.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array, Float64Array};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Float32Type, Float64Type, Int64Type};
use datafusion::common::{Result, ScalarValue, not_impl_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::scalar_doc_sections::DOC_SECTION_ARRAY;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, Signature, Volatility};

use super::width;

/// The aggregate function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct VectorAverage {
    signature: Signature,
}

/// `vector_avg` as DataFusion registers it.
pub fn vector_avg() -> Arc<AggregateUDF> {
    let signature = Signature::user_defined(Volatility::Immutable);
    Arc::new(AggregateUDF::new_from_impl(VectorAverage { signature }))
}

fn vector_type(item: DataType, size: usize) -> DataType {
    DataType::FixedSizeList(Arc::new(Field::new_list_field(item, true)), size as i32) // as the argument's
}

impl AggregateUDFImpl for VectorAverage {
    fn name(&self) -> &str {
        "vector_avg"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [only] if width(only).is_some() => Ok(types.to_vec()),
            _ => {
                let types: Vec<_> = types.iter().map(ToString::to_string).collect();
                plan_err!(
                    "vector_avg takes vectors of FLOAT of one size, such as embed gives, found {}",
                    types.join(", ")
                )
            }
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let types = self.coerce_types(types)?;
        Ok(vector_type(DataType::Float32, width(&types[0]).unwrap_or_default()))
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return not_impl_err!("vector_avg(DISTINCT …): take the mean of SELECT DISTINCT");
        }
        let size = args.expr_fields.first().and_then(|field| width(field.data_type())).unwrap_or_default();
        Ok(Box::new(Average { sums: vec![0.0; size], count: 0 }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let size = args.input_fields.first().and_then(|field| width(field.data_type())).unwrap_or_default();
        let sums = Field::new(format!("{}[sums]", args.name), vector_type(DataType::Float64, size), true);
        Ok(vec![Arc::new(sums), Arc::new(Field::new(format!("{}[count]", args.name), DataType::Int64, true))])
    }

    fn documentation(&self) -> Option<&Documentation> {
        static DOCUMENTATION: LazyLock<Documentation> = LazyLock::new(|| {
            let description = "The mean of the vectors of a group, value by value. A vector that is NULL is left out.";
            Documentation::builder(DOC_SECTION_ARRAY, description, "vector_avg(vector)")
                .with_argument("vector", "A list of a fixed size of FLOAT, such as embed gives it.")
                .build()
        });
        Some(&DOCUMENTATION)
    }
}

/// The sums of the vectors of a group.
#[derive(Debug)]
struct Average {
    sums: Vec<f64>,
    count: i64,
}

impl Average {
    fn list(&self, values: ArrayRef) -> Result<ScalarValue> {
        let item = Arc::new(Field::new_list_field(values.data_type().clone(), true));
        let list = FixedSizeListArray::try_new(item, self.sums.len() as i32, values, None)?; // as the argument's
        Ok(ScalarValue::FixedSizeList(Arc::new(list)))
    }
}

impl Accumulator for Average {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let vectors = values[0].as_fixed_size_list();
        let (start, size) = (vectors.value_offset(0) as usize, self.sums.len()); // not below 0
        let numbers = vectors.values().as_primitive::<Float32Type>();
        let has_nulls = numbers.null_count() > 0;
        for row in 0..vectors.len() {
            let first = start + row * size;
            if vectors.is_null(row) || (has_nulls && numbers.slice(first, size).null_count() > 0) {
                continue;
            }
            let vector = &numbers.values()[first..][..size];
            self.sums.iter_mut().zip(vector).for_each(|(sum, value)| *sum += f64::from(*value));
            self.count += 1;
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let (vectors, counts) = (states[0].as_fixed_size_list(), states[1].as_primitive::<Int64Type>());
        for row in (0..vectors.len()).filter(|row| vectors.is_valid(*row) && counts.is_valid(*row)) {
            let vector = vectors.value(row);
            let vector = vector.as_primitive::<Float64Type>().values();
            self.sums.iter_mut().zip(vector).for_each(|(sum, value)| *sum += value);
            self.count += counts.value(row);
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let sums = self.list(Arc::new(Float64Array::from(self.sums.clone())))?;
        Ok(vec![sums, ScalarValue::Int64(Some(self.count))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.count == 0 {
            return ScalarValue::try_from(&vector_type(DataType::Float32, self.sums.len()));
        }
        let means = self.sums.iter().map(|sum| (sum / self.count as f64) as f32);
        self.list(Arc::new(means.collect::<Float32Array>()))
    }

    fn size(&self) -> usize {
        size_of_val(self) + size_of_val(self.sums.as_slice())
    }
}
