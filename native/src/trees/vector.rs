//! The inner loop of the bit vectors, for each width of vectors.

use super::BLOCK;
use super::bitvector::{Plane, PlaneTest, Rank};

/// A byte for each of some rows.
trait Vector: Copy {
    /// Rows.
    const LANES: usize;
    /// Which rows.
    type Mask: Copy;

    /// # Safety
    /// The machine has the instructions; so for the other functions.
    unsafe fn splat(byte: u8) -> Self;

    /// The rows whose rank is above `position`.
    ///
    /// # Safety
    /// There are `LANES` ranks at `ranks`.
    unsafe fn above<R: Rank>(ranks: *const R, position: R) -> Self::Mask;

    /// Without the bits of `clears` in the rows of `mask`.
    unsafe fn clear(self, mask: Self::Mask, clears: Self) -> Self;

    /// Without the bits of `clears` in the rows outside `mask`.
    unsafe fn clear_others(self, mask: Self::Mask, clears: Self) -> Self;

    /// The rows that have a bit.
    unsafe fn some(self) -> Self::Mask;

    /// `self` in the rows of `mask`, else `other`.
    unsafe fn select(self, mask: Self::Mask, other: Self) -> Self;

    /// # Safety
    /// There is room for `LANES` bytes at `to`.
    unsafe fn store(self, to: *mut u8);
}

/// Vectors that are carried through a tree together, so that a test's numbers are spread out once for all of them.
const VECTORS: usize = 4;

/// # Safety
/// The machine has the instructions of `V`; there is a block of ranks for each feature of the tests.
#[inline(always)]
unsafe fn find_leaves<V: Vector, R: Rank>(
    planes: &[Plane],
    tests: &[PlaneTest],
    ranks: &[R],
    rows: usize,
    leaves: &mut [u16; BLOCK],
) {
    const { assert!(BLOCK.is_multiple_of(V::LANES * VECTORS)) };
    let step = V::LANES * VECTORS;
    let mut start = 0;
    while start < rows {
        // SAFETY: as the caller promises; `start` is a multiple of `step`, which divides a block.
        unsafe {
            let ranks_of = |test: &PlaneTest| ranks.as_ptr().add(usize::from(test.feature) * BLOCK + start);
            // Of the first plane with a leaf left, its number and its bits; from the last plane to the first.
            let mut plane_of = [V::splat(0); VECTORS];
            let mut bits_of = [V::splat(0); VECTORS];
            for (number, plane) in planes.iter().enumerate().rev() {
                let mut bits = [V::splat(0xFF); VECTORS];
                for test in &tests[plane.start as usize..plane.above as usize] {
                    let (ranks, position) = (ranks_of(test), R::from_i16(test.position));
                    let clears = V::splat(test.clears);
                    for (i, bits) in bits.iter_mut().enumerate() {
                        *bits = bits.clear(V::above(ranks.add(i * V::LANES), position), clears);
                    }
                }
                for test in &tests[plane.above as usize..plane.end as usize] {
                    let (ranks, position) = (ranks_of(test), R::from_i16(test.position));
                    let clears = V::splat(test.clears);
                    for (i, bits) in bits.iter_mut().enumerate() {
                        *bits = bits.clear_others(V::above(ranks.add(i * V::LANES), position), clears);
                    }
                }
                let number = V::splat(number as u8);
                for i in 0..VECTORS {
                    let some = bits[i].some();
                    plane_of[i] = number.select(some, plane_of[i]);
                    bits_of[i] = bits[i].select(some, bits_of[i]);
                }
            }
            let mut planes = [0u8; BLOCK];
            let mut bits = [0u8; BLOCK];
            for i in 0..VECTORS {
                plane_of[i].store(planes.as_mut_ptr().add(i * V::LANES));
                bits_of[i].store(bits.as_mut_ptr().add(i * V::LANES));
            }
            for (leaf, (plane, bits)) in leaves[start..start + step].iter_mut().zip(planes.iter().zip(&bits)) {
                *leaf = u16::from(*plane) * 8 + first_bit(*bits);
            }
        }
        start += step;
    }
}

/// The position of the lowest bit, as arithmetic that becomes vector instructions.
#[inline(always)]
fn first_bit(bits: u8) -> u16 {
    let lowest = bits & bits.wrapping_neg();
    u16::from(u8::from(lowest & 0xF0 != 0) * 4 + u8::from(lowest & 0xCC != 0) * 2 + u8::from(lowest & 0xAA != 0))
}

/// # Safety
/// There is a block of ranks for each feature of the tests.
pub(super) unsafe fn portable<R: Rank>(
    planes: &[Plane],
    tests: &[PlaneTest],
    ranks: &[R],
    rows: usize,
    leaves: &mut [u16; BLOCK],
) {
    // SAFETY: as the caller promises; any machine has these instructions.
    unsafe { find_leaves::<[u8; 16], R>(planes, tests, ranks, rows, leaves) }
}

/// # Safety
/// The machine has AVX2; there is a block of ranks for each feature of the tests.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn avx2<R: Rank>(
    planes: &[Plane],
    tests: &[PlaneTest],
    ranks: &[R],
    rows: usize,
    leaves: &mut [u16; BLOCK],
) {
    // SAFETY: as the caller promises.
    unsafe { find_leaves::<x86::Avx2, R>(planes, tests, ranks, rows, leaves) }
}

/// # Safety
/// The machine has AVX-512 BW; there is a block of ranks for each feature of the tests.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn avx512<R: Rank>(
    planes: &[Plane],
    tests: &[PlaneTest],
    ranks: &[R],
    rows: usize,
    leaves: &mut [u16; BLOCK],
) {
    // SAFETY: as the caller promises.
    unsafe { find_leaves::<x86::Avx512, R>(planes, tests, ranks, rows, leaves) }
}

/// Sixteen rows: what SSE2 and NEON hold, which the compiler makes of these loops.
impl Vector for [u8; 16] {
    const LANES: usize = 16;
    type Mask = [u8; 16];

    #[inline(always)]
    unsafe fn splat(byte: u8) -> Self {
        [byte; 16]
    }

    #[inline(always)]
    unsafe fn above<R: Rank>(ranks: *const R, position: R) -> [u8; 16] {
        // SAFETY: as the caller promises.
        let ranks = unsafe { ranks.cast::<[R; 16]>().read_unaligned() };
        ranks.map(|rank| u8::from(rank > position).wrapping_neg())
    }

    #[inline(always)]
    unsafe fn clear(mut self, mask: [u8; 16], clears: Self) -> Self {
        for i in 0..16 {
            self[i] &= !(mask[i] & clears[i]);
        }
        self
    }

    #[inline(always)]
    unsafe fn clear_others(mut self, mask: [u8; 16], clears: Self) -> Self {
        for i in 0..16 {
            self[i] &= mask[i] | !clears[i];
        }
        self
    }

    #[inline(always)]
    unsafe fn some(self) -> [u8; 16] {
        self.map(|bits| u8::from(bits != 0).wrapping_neg())
    }

    #[inline(always)]
    unsafe fn select(mut self, mask: [u8; 16], other: Self) -> Self {
        for i in 0..16 {
            self[i] = self[i] & mask[i] | other[i] & !mask[i];
        }
        self
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: as the caller promises.
        unsafe { to.cast::<Self>().write_unaligned(self) }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Rank, Vector};

    #[derive(Clone, Copy)]
    pub(super) struct Avx2(__m256i);

    impl Vector for Avx2 {
        const LANES: usize = 32;
        type Mask = __m256i;

        #[inline(always)]
        unsafe fn splat(byte: u8) -> Self {
            // SAFETY: the machine has AVX2; so below.
            Self(unsafe { _mm256_set1_epi8(byte as i8) })
        }

        #[inline(always)]
        unsafe fn above<R: Rank>(ranks: *const R, position: R) -> __m256i {
            let ranks = ranks.cast::<__m256i>();
            // SAFETY: 32 ranks of one byte or of two are one vector or two.
            unsafe {
                if R::SIZE == 1 {
                    let position = _mm256_set1_epi8(position.to_i16() as i8);
                    return _mm256_cmpgt_epi8(_mm256_loadu_si256(ranks), position);
                }
                let position = _mm256_set1_epi16(position.to_i16());
                let low = _mm256_cmpgt_epi16(_mm256_loadu_si256(ranks), position);
                let high = _mm256_cmpgt_epi16(_mm256_loadu_si256(ranks.add(1)), position);
                // Packing interleaves the halves of both.
                _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi16(low, high))
            }
        }

        #[inline(always)]
        unsafe fn clear(self, mask: __m256i, clears: Self) -> Self {
            // SAFETY: AVX2
            Self(unsafe { _mm256_andnot_si256(_mm256_and_si256(mask, clears.0), self.0) })
        }

        #[inline(always)]
        unsafe fn clear_others(self, mask: __m256i, clears: Self) -> Self {
            // SAFETY: AVX2
            Self(unsafe { _mm256_andnot_si256(_mm256_andnot_si256(mask, clears.0), self.0) })
        }

        #[inline(always)]
        unsafe fn some(self) -> __m256i {
            // SAFETY: AVX2
            unsafe {
                let none = _mm256_cmpeq_epi8(self.0, _mm256_setzero_si256());
                _mm256_xor_si256(none, _mm256_set1_epi8(-1))
            }
        }

        #[inline(always)]
        unsafe fn select(self, mask: __m256i, other: Self) -> Self {
            // SAFETY: AVX2
            Self(unsafe { _mm256_blendv_epi8(other.0, self.0, mask) })
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut u8) {
            // SAFETY: as the caller promises.
            unsafe { _mm256_storeu_si256(to.cast(), self.0) }
        }
    }

    #[derive(Clone, Copy)]
    pub(super) struct Avx512(__m512i);

    impl Vector for Avx512 {
        const LANES: usize = 64;
        type Mask = __mmask64;

        #[inline(always)]
        unsafe fn splat(byte: u8) -> Self {
            // SAFETY: the machine has AVX-512 BW; so below.
            Self(unsafe { _mm512_set1_epi8(byte as i8) })
        }

        #[inline(always)]
        unsafe fn above<R: Rank>(ranks: *const R, position: R) -> __mmask64 {
            // SAFETY: 64 ranks of one byte or of two are one vector or two.
            unsafe {
                if R::SIZE == 1 {
                    let position = _mm512_set1_epi8(position.to_i16() as i8);
                    return _mm512_cmpgt_epi8_mask(_mm512_loadu_si512(ranks.cast()), position);
                }
                let position = _mm512_set1_epi16(position.to_i16());
                let low = _mm512_cmpgt_epi16_mask(_mm512_loadu_si512(ranks.cast()), position);
                let high = _mm512_cmpgt_epi16_mask(_mm512_loadu_si512(ranks.add(32).cast()), position);
                _mm512_kunpackd(u64::from(high), u64::from(low))
            }
        }

        #[inline(always)]
        unsafe fn clear(self, mask: __mmask64, clears: Self) -> Self {
            // SAFETY: AVX-512
            Self(unsafe { _mm512_andnot_si512(_mm512_maskz_mov_epi8(mask, clears.0), self.0) })
        }

        #[inline(always)]
        unsafe fn clear_others(self, mask: __mmask64, clears: Self) -> Self {
            // SAFETY: AVX-512
            Self(unsafe { _mm512_andnot_si512(_mm512_maskz_mov_epi8(!mask, clears.0), self.0) })
        }

        #[inline(always)]
        unsafe fn some(self) -> __mmask64 {
            // SAFETY: AVX-512
            unsafe { _mm512_test_epi8_mask(self.0, self.0) }
        }

        #[inline(always)]
        unsafe fn select(self, mask: __mmask64, other: Self) -> Self {
            // SAFETY: AVX-512
            Self(unsafe { _mm512_mask_mov_epi8(other.0, mask, self.0) })
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut u8) {
            // SAFETY: as the caller promises.
            unsafe { _mm512_storeu_si512(to.cast(), self.0) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEATURES: usize = 3;

    /// Planes with tests of either kind over random ranks: all widths of vectors find the same leaves.
    fn widths_agree<R: Rank>() {
        let mut state = 0x2545_f491_4f6c_dd1du64;
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 20) % below
        };
        let most = R::MOST as u64;
        let ranks: Vec<R> = (0..FEATURES * BLOCK).map(|_| R::of(random(most + 2) as u32)).collect();
        let (mut planes, mut tests) = (vec![], vec![]);
        for _ in 0..9 {
            let start = tests.len() as u32;
            for _ in 0..random(12) {
                let position = R::of(random(most) as u32).to_i16();
                // The last leaf always stays, as that which a row comes to does.
                tests.push(PlaneTest { feature: random(3) as u16, position, clears: random(128) as u8 });
            }
            let end = tests.len() as u32;
            planes.push(Plane { start, above: start + random((end - start + 1).into()) as u32, end });
        }
        for rows in [1, 63, 64, 200, BLOCK] {
            let mut expected = [0u16; BLOCK];
            // SAFETY: any machine has the instructions; the tests look at as many features as there are blocks.
            unsafe { portable(&planes, &tests, &ranks, rows, &mut expected) };
            for (row, leaf) in expected.iter().take(rows).enumerate() {
                assert_eq!(*leaf, first_leaf(&planes, &tests, &ranks, row), "row {row}");
            }
            #[cfg(target_arch = "x86_64")]
            {
                let mut found = [0u16; BLOCK];
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: as above, and the instructions are there.
                    unsafe { avx2(&planes, &tests, &ranks, rows, &mut found) };
                    assert_eq!(found[..rows], expected[..rows], "AVX2");
                }
                if std::arch::is_x86_feature_detected!("avx512bw") {
                    // SAFETY: as above, and the instructions are there.
                    unsafe { avx512(&planes, &tests, &ranks, rows, &mut found) };
                    assert_eq!(found[..rows], expected[..rows], "AVX-512");
                }
            }
        }
    }

    /// The same, one test after the other.
    fn first_leaf<R: Rank>(planes: &[Plane], tests: &[PlaneTest], ranks: &[R], row: usize) -> u16 {
        for (number, plane) in planes.iter().enumerate() {
            let mut bits = 0xFFu8;
            for at in plane.start..plane.end {
                let test = tests[at as usize];
                let above = ranks[usize::from(test.feature) * BLOCK + row] > R::from_i16(test.position);
                if above == (at < plane.above) {
                    bits &= !test.clears;
                }
            }
            if bits != 0 {
                return number as u16 * 8 + bits.trailing_zeros() as u16;
            }
        }
        0
    }

    #[test]
    fn all_widths_of_vectors_find_the_same_leaves() {
        widths_agree::<i8>();
        widths_agree::<i16>();
    }
}
