//! How much scores change where a model is computed in fewer digits (`OPTIONS (precision 'fp16')`).

use datafusion_predict_native::{Precision, TensorSpec};

use super::agreement::largest_difference;
use super::made_up::Floats;
use super::trial::{LARGE_ROWS, Trial, fixed_rows, is_large, is_of_rows};
use crate::engine::Executable;
use crate::error::{Result, bail};

/// Rows that are compared.
const ROWS: usize = 16;

/// The largest difference among the outputs of made-up rows, in a sentence, of `rounded` and of the model with all of its digits,
/// `exact`, which both have their rows first; `None` if that does not run on such rows.
///
/// # Errors
/// A model that gives values which are no numbers, where it gave numbers.
pub(super) fn rounding(
    trial: &Trial,
    precision: Precision,
    rounded: &dyn Executable,
    exact: &dyn Executable,
    inputs: &[TensorSpec],
    size: usize,
) -> Result<Option<String>> {
    let rows = fixed_rows(inputs).unwrap_or(if is_large(inputs, size) { LARGE_ROWS } else { ROWS });
    let run = |executable| {
        let given = trial.rows(inputs, rows, size, Floats::Positive)?;
        trial.run(executable, &given)
    };
    let (found, expected) = match (run(rounded), run(exact)) {
        (Ok(found), Ok(expected)) => (found, expected),
        (Err(error), _) => return Err(error),
        (_, Err(error)) if is_of_rows(&error) => return Ok(None),
        (_, Err(error)) => return Err(error),
    };
    let differences = expected.iter().zip(&found).filter_map(|(expected, found)| largest_difference(expected, found));
    let relative = |(difference, largest): &(f64, f64)| difference / largest.max(f64::MIN_POSITIVE);
    let worst = differences.max_by(|a, b| relative(a).total_cmp(&relative(b)));
    let Some((difference, largest)) = worst else { return Ok(None) };
    if !difference.is_finite() {
        bail!(
            InvalidModel,
            "model '{}': with option precision '{precision}' it gives values that are no numbers: some in between are larger than {}",
            trial.label,
            match precision {
                Precision::Fp16 => "65504; 'bf16' holds them",
                Precision::Bf16 => "such floats hold",
            }
        );
    }
    Ok(Some(format!(
        "precision '{precision}': on made-up rows the outputs differ by at most {difference:.1e} from those with all digits, where the largest is {largest:.1e}"
    )))
}
