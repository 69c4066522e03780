//! How much scores change where a model is computed in fewer digits (`OPTIONS (precision 'fp16')`).

use datafusion_predict_native::{Precision, TensorSpec};

use super::agreement::largest_difference;
use super::made_up::Floats;
use super::trial::{LARGE_ROWS, Trial, fixed_rows, is_large, is_of_rows};
use crate::engine::Executable;
use crate::error::{Result, bail};

/// Rows that are compared.
const ROWS: usize = 16;

/// How much outputs may change, relative to the largest, before the model is not the same any more.
const MOST: f64 = 0.1;

/// The largest difference among the outputs of made-up rows, in a sentence, of `rounded` and of the model with all of its digits,
/// `exact`, which both have their rows first; `None` if that does not run on such rows.
///
/// # Errors
/// A model that gives no numbers where it gave numbers, or others by more than a tenth of the largest.
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
    // A label may be another where two scores are close.
    let floats = expected.iter().zip(&found).filter(|(expected, _)| expected.data.element().is_float());
    let differences = floats.filter_map(|(expected, found)| largest_difference(expected, found));
    let relative = |(difference, largest): &(f64, f64)| difference / largest.max(f64::MIN_POSITIVE);
    let worst = differences.max_by(|a, b| relative(a).total_cmp(&relative(b)));
    let Some((difference, largest)) = worst else { return Ok(None) };
    let changes = format!(
        "on made-up rows the outputs differ by at most {} from those with all digits, where the largest is {}",
        short(difference),
        short(largest)
    );
    if relative(&(difference, largest)) > MOST {
        bail!(
            InvalidModel,
            "model '{}' needs more digits than option precision '{precision}' has: {changes}",
            trial.label
        );
    }
    Ok(Some(format!("precision '{precision}': {changes}")))
}

/// Two digits of `value`.
fn short(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        0.01..1000.0 => format!("{value:.2}"),
        value if value.is_finite() => format!("{value:.1e}"),
        _ => "infinite".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0.0, "0"),
            (0.000371, "3.7e-4"),
            (0.8812, "0.88"),
            (12.345, "12.35"),
            (1.5e6, "1.5e6"),
            (f64::INFINITY, "infinite"),
        ];
        cases.into_iter().for_each(|(value, expected)| assert_eq!(short(value), expected));
    }
}
