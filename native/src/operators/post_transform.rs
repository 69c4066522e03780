//! What classifiers and regressors of ai.onnx.ml do with their scores at last.

use multiversion::multiversion;

use crate::builder::Node;
use crate::builder::{Result, invalid};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PostTransform {
    None,
    Softmax,
    Logistic,
    SoftmaxZero,
    Probit,
}

impl PostTransform {
    pub(super) fn of(node: &Node<'_>) -> Result<Self> {
        Ok(match node.text_or("post_transform", "NONE").as_str() {
            "NONE" => Self::None,
            "SOFTMAX" => Self::Softmax,
            "LOGISTIC" => Self::Logistic,
            "SOFTMAX_ZERO" => Self::SoftmaxZero,
            "PROBIT" => Self::Probit,
            other => invalid!("post_transform is '{other}'"),
        })
    }

    /// Transforms the scores of each row: one column for each.
    pub(super) fn apply(self, scores: &mut [&mut [f32]]) {
        match self {
            Self::None => {}
            Self::Logistic => scores.iter_mut().for_each(|scores| logistic(scores)),
            Self::Probit => scores.iter_mut().for_each(|scores| scores.iter_mut().for_each(|x| *x = probit(*x))),
            Self::Softmax => softmax(scores, false),
            Self::SoftmaxZero => softmax(scores, true),
        }
    }
}

/// The logistic function of each, by the exponential of the negative amount as ONNX Runtime does.
pub(super) fn logistic(values: &mut [f32]) {
    logistic_of(values);
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn logistic_of(values: &mut [f32]) {
    for x in values.iter_mut() {
        let half = 1.0 / (1.0 + exp(-x.abs()));
        *x = if *x < 0.0 { 1.0 - half } else { half };
    }
}

/// The exponential within 2 units in the last place, without branches so that it becomes vector instructions.
///
/// `2^n · e^r` with `|r| ≤ ln 2 / 2`, the latter by the minimax polynomial of the Cephes library's `expf`. Only for
/// arguments of at most 0; NaN stays NaN.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Below, the result is no normal number: taken for the least, or, further down, for zero.
    let clamped = if x < -87.0 { -87.0 } else { x };
    // Adding 1.5 · 2^23 rounds to an integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5e-1;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    let result = (p * r * r + r + 1.0) * power;
    if x < -103.0 { 0.0 } else { result }
}

/// The inverse of the normal distribution as ONNX Runtime approximates it: S. Winitzki, "A handy approximation for the
/// error function and its inverse", 2008.
fn probit(x: f32) -> f32 {
    let x = 2.0 * x - 1.0;
    let sign = if x < 0.0 { -1.0 } else { 1.0 };
    let log = ((1.0 - x) * (1.0 + x)).ln();
    let v = 2.0 / (std::f32::consts::PI * 0.147) + 0.5 * log;
    let v2 = 1.0 / 0.147 * log;
    let v3 = -v + (v * v - v2).sqrt();
    std::f32::consts::SQRT_2 * (sign * v3.sqrt())
}

/// With `keeps_zero`, scores of about zero don't take part.
fn softmax(scores: &mut [&mut [f32]], keeps_zero: bool) {
    let rows = scores.first().map_or(0, |scores| scores.len());
    for row in 0..rows {
        let most = scores.iter().map(|scores| scores[row]).fold(-f32::MAX, |most, x| if x > most { x } else { most });
        let mut sum = 0.0;
        for scores in scores.iter_mut() {
            let x = &mut scores[row];
            match keeps_zero && x.abs() <= 1e-7 {
                true => *x *= (-most).exp(),
                false => {
                    *x = (*x - most).exp();
                    sum += *x;
                }
            }
        }
        scores.iter_mut().for_each(|scores| scores[row] /= sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logistic_function_is_close() {
        let mut x: Vec<f32> = (-2000..2000).map(|i| i as f32 * 0.06).collect();
        x.extend([f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-30, 88.0, -88.0, -87.3, -104.0, -1e30]);
        let mut found = x.clone();
        logistic(&mut found);
        for (x, found) in x.iter().zip(found) {
            let expected = 1.0 / (1.0 + (-f64::from(*x)).exp());
            assert!((f64::from(found) - expected).abs() < 1.2e-7, "{x}: {found}, expected {expected}");
        }
        let mut nan = [f32::NAN];
        logistic(&mut nan);
        assert!(nan[0].is_nan());
    }
}
