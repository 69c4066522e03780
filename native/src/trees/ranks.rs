//! Values → their ranks among a column's thresholds, which compare as the values do and are one or two bytes small.

use multiversion::multiversion;

use super::BLOCK;
use super::number::Number;

/// The thresholds of one column, sorted, each once.
#[derive(Debug)]
pub(super) struct Thresholds<T> {
    /// Filled up with infinity, above which nothing is, to one less than a power of two.
    padded: Vec<T>,
    count: usize,
}

impl<T: Number> Thresholds<T> {
    pub(super) fn new(mut values: Vec<T>) -> Self {
        values.iter_mut().for_each(|value| *value += T::ZERO); // one zero
        values.sort_by(|a, b| a.total_cmp(b));
        values.dedup();
        let count = values.len();
        values.resize((count + 1).next_power_of_two() - 1, T::INFINITY);
        Self { padded: values, count }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// The position of `threshold`, which is one of them: a value is above it if its rank is above the position.
    pub(super) fn position(&self, threshold: T) -> usize {
        self.padded[..self.count].partition_point(|value| *value < threshold)
    }

    /// Bytes in memory.
    pub(super) fn size(&self) -> usize {
        size_of_val(self.padded.as_slice())
    }

    /// The number of thresholds that each value is above; of NaN, any. `values` are no more than a block.
    pub(super) fn ranks(&self, values: &[T], ranks: &mut [u32; BLOCK]) {
        search(values, &self.padded, ranks);
    }
}

/// A binary search without branches, level by level for all values, so that it becomes vector instructions.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn search<T: Number>(values: &[T], thresholds: &[T], ranks: &mut [u32; BLOCK]) {
    let ranks = &mut ranks[..values.len()];
    ranks.fill(0);
    let mut step = (thresholds.len() as u32).div_ceil(2);
    while step > 0 {
        for (rank, value) in ranks.iter_mut().zip(values) {
            // SAFETY: there are 2^k - 1 thresholds, and before the step s = 2^j the rank is a multiple of 2s, at most
            // 2^k - 2s; so the position is at most 2^k - s - 1.
            let threshold = unsafe { *thresholds.get_unchecked((*rank + step - 1) as usize) };
            *rank += if *value > threshold { step } else { 0 };
        }
        step /= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_is_the_number_of_thresholds_below() {
        for count in [0usize, 1, 2, 3, 4, 7, 8, 100, 254, 255, 256, 1000] {
            let values: Vec<f32> = (0..count).map(|i| (i as f32 * 7.3).sin() * 100.0).collect();
            let thresholds = Thresholds::new(values.clone());
            let mut probes = values;
            probes.extend([f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, f32::MAX, 1.0]);
            for probes in probes.chunks(BLOCK) {
                let mut ranks = [0; BLOCK];
                thresholds.ranks(probes, &mut ranks);
                for (value, rank) in probes.iter().zip(ranks) {
                    let below = thresholds.padded[..thresholds.len()].iter().filter(|t| *value > **t).count();
                    assert_eq!(rank as usize, below, "{value} among {count}");
                }
            }
        }
    }
}
