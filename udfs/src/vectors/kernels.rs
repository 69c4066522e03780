//! Sums over the values of two vectors, for many rows at a time.

use multiversion::multiversion;

/// Sums that run beside each other, so that no addition waits for the one before it.
const LANES: usize = 16;

/// What the functions are made of: the sums of `a·b`, of `a²`, of `b²`, or of `(a − b)²`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sum {
    Products,
    SquaresOfDifferences,
}

/// Where the vectors of one side lie: one for each row, or one for all.
#[derive(Debug, Clone, Copy)]
pub(super) enum Side<'a> {
    /// All vectors, one after the other.
    Rows(&'a [f32]),
    /// One vector.
    One(&'a [f32]),
}

impl<'a> Side<'a> {
    #[inline(always)]
    fn row(self, row: usize, width: usize) -> &'a [f32] {
        match self {
            Self::Rows(values) => &values[row * width..][..width],
            Self::One(values) => values,
        }
    }
}

/// One sum for each of `rows` rows of vectors of `width` values. Numbers are added as doubles.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn sums(sum: Sum, a: Side, b: Side, rows: usize, width: usize) -> Vec<f64> {
    let each = (0..rows).map(|row| {
        let (a, b) = (a.row(row, width), b.row(row, width));
        match sum {
            Sum::Products => folded(a, b, |a, b| a * b),
            Sum::SquaresOfDifferences => folded(a, b, |a, b| (a - b) * (a - b)),
        }
    });
    each.collect()
}

/// Squares of lengths whose sum of floats is right: what is smaller or larger is added as doubles from the beginning.
const OF_FLOATS: std::ops::Range<f64> = 1e-20..1e30;

/// The same for the amount of a product: below, floats have lost digits, or two vectors are at right angles.
const SMALLEST_OF_FLOATS: f64 = 1e-30;

/// Additions of floats, before they are added to doubles: so many lose no digit that matters to a cosine.
const BLOCK: usize = 8 * LANES;

/// The product of `a` and `b`, and the square of `a`, for each row: what a cosine needs of a column beside one vector.
///
/// Numbers are added as floats in blocks, which are added as doubles: twice as many at once. The sums are those of doubles to 7 digits of
/// the vectors' lengths.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn products_and_squares(a: Side, b: Side, rows: usize, width: usize) -> Vec<(f64, f64)> {
    let each = (0..rows).map(|row| {
        let (a, b) = (a.row(row, width), b.row(row, width));
        let (mut products, mut squares) = ([0.0; LANES], [0.0; LANES]);
        let (mut product, mut square) = (0.0, 0.0);
        for (a, b) in a.chunks(BLOCK).zip(b.chunks(BLOCK)) {
            let (mut block_products, mut block_squares) = ([0.0_f32; LANES], [0.0_f32; LANES]);
            let (a_lanes, b_lanes) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
            let (a_rest, b_rest) = (a_lanes.remainder(), b_lanes.remainder());
            for (a, b) in a_lanes.zip(b_lanes) {
                for lane in 0..LANES {
                    block_products[lane] += a[lane] * b[lane];
                    block_squares[lane] += a[lane] * a[lane];
                }
            }
            for lane in 0..LANES {
                products[lane] += f64::from(block_products[lane]);
                squares[lane] += f64::from(block_squares[lane]);
            }
            for (a, b) in a_rest.iter().zip(b_rest) {
                let (a, b) = (f64::from(*a), f64::from(*b));
                product += a * b;
                square += a * a;
            }
        }
        product += products.iter().sum::<f64>();
        square += squares.iter().sum::<f64>();
        if OF_FLOATS.contains(&square) && product.is_finite() && product.abs() > SMALLEST_OF_FLOATS {
            return (product, square);
        }
        (folded(a, b, |a, b| a * b), folded(a, a, |a, b| a * b))
    });
    each.collect()
}

#[inline(always)]
fn folded(a: &[f32], b: &[f32], term: impl Fn(f64, f64) -> f64) -> f64 {
    let mut sums = [0.0; LANES];
    let (a_lanes, b_lanes) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (a_rest, b_rest) = (a_lanes.remainder(), b_lanes.remainder());
    for (a, b) in a_lanes.zip(b_lanes) {
        for lane in 0..LANES {
            sums[lane] += term(f64::from(a[lane]), f64::from(b[lane]));
        }
    }
    let rest = a_rest.iter().zip(b_rest).map(|(a, b)| term(f64::from(*a), f64::from(*b)));
    sums.iter().sum::<f64>() + rest.sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_floats_are_as_good_as_doubles_and_extremes_are_doubles() {
        for width in [7, 384, 1000] {
            for (scale, other) in [(1.0, 1.0), (1e-25, 1.0), (1e25, 1e20), (3e-9, 1e-32), (1e14_f32, 1e25)] {
                let vector = |seed: f32| (0..width).map(move |i| ((i as f32 * 0.7 + seed).sin() + 0.1) * scale);
                let (a, b): (Vec<_>, Vec<_>) =
                    (vector(1.0).collect(), vector(5.0).map(|value| value / scale * other).collect());
                let found = products_and_squares(Side::Rows(&a), Side::One(&b), 1, width)[0];
                let product: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                let square: f64 = a.iter().map(|a| f64::from(*a).powi(2)).sum();
                let length = square.sqrt() * b.iter().map(|b| f64::from(*b).powi(2)).sum::<f64>().sqrt();
                assert!((found.0 - product).abs() <= 1e-6 * length, "{width}, {scale}: {found:?}, {product}");
                assert!((found.1 / square - 1.0).abs() <= 1e-6, "{width}, {scale}: {found:?}, {square}");
            }
        }
    }

    #[test]
    fn sums_of_any_width_are_those_of_plain_loops() {
        for width in [1, 3, 15, 16, 17, 100] {
            let vector =
                |seed: usize| (0..3 * width).map(move |i| ((i * 31 + seed) % 17) as f32 - 8.0).collect::<Vec<_>>();
            let (a, b) = (vector(1), vector(5));
            let plain = |row: usize, term: fn(f64, f64) -> f64| -> f64 {
                let places = row * width..(row + 1) * width;
                places.map(|i| term(f64::from(a[i]), f64::from(b[i]))).sum()
            };
            let products = sums(Sum::Products, Side::Rows(&a), Side::Rows(&b), 3, width);
            let differences = sums(Sum::SquaresOfDifferences, Side::Rows(&a), Side::Rows(&b), 3, width);
            let both = products_and_squares(Side::Rows(&a), Side::Rows(&b), 3, width);
            for row in 0..3 {
                assert_eq!(products[row], plain(row, |a, b| a * b));
                assert_eq!(differences[row], plain(row, |a, b| (a - b) * (a - b)));
                // Whole numbers of this size are exact as floats, too.
                assert_eq!(both[row], (plain(row, |a, b| a * b), plain(row, |a, _| a * a)));
            }
            let one = sums(Sum::Products, Side::Rows(&a), Side::One(&b[..width]), 3, width);
            assert_eq!(one[0], products[0]);
        }
    }
}
