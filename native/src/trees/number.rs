//! The two types of numbers in which ensembles are computed.

use std::cmp::Ordering;
use std::fmt::Debug;
use std::ops::{Add, AddAssign};

/// The numbers of columns, thresholds and leaves: `f32`, or `f64` where the input is double.
pub trait Number:
    private::Sealed
    + Copy
    + Debug
    + Default
    + PartialEq
    + PartialOrd
    + Add<Output = Self>
    + AddAssign
    + Send
    + Sync
    + 'static
{
    /// 0
    const ZERO: Self;
    /// Above all numbers.
    const INFINITY: Self;
    /// Below all numbers.
    const NEG_INFINITY: Self;
    /// No number.
    const NAN: Self;

    /// Whether it is no number.
    fn is_nan(self) -> bool;
    /// The next number below.
    fn below(self) -> Self;
    /// The order of all bits: -0 before 0, NaN at the ends.
    fn total_cmp(&self, other: &Self) -> Ordering;
    /// Whether `f32` holds the number.
    fn fits_f32(self) -> bool;
    /// The nearest number of `f32`.
    fn to_f32(self) -> f32;
    /// The number, or the next one above that `f32` holds: it is above the same numbers of `f32`.
    fn up_to_f32(self) -> f32;
    /// `self - other`
    fn minus(self, other: Self) -> Self;
    /// The bits, which tell numbers apart.
    fn bits(self) -> u64;
}

mod private {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

impl Number for f32 {
    const ZERO: Self = 0.0;
    const INFINITY: Self = f32::INFINITY;
    const NEG_INFINITY: Self = f32::NEG_INFINITY;
    const NAN: Self = f32::NAN;

    fn is_nan(self) -> bool {
        f32::is_nan(self)
    }

    fn below(self) -> Self {
        self.next_down()
    }

    fn total_cmp(&self, other: &Self) -> Ordering {
        f32::total_cmp(self, other)
    }

    fn fits_f32(self) -> bool {
        true
    }

    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn up_to_f32(self) -> f32 {
        self
    }

    fn minus(self, other: Self) -> Self {
        self - other
    }

    fn bits(self) -> u64 {
        self.to_bits().into()
    }
}

impl Number for f64 {
    const ZERO: Self = 0.0;
    const INFINITY: Self = f64::INFINITY;
    const NEG_INFINITY: Self = f64::NEG_INFINITY;
    const NAN: Self = f64::NAN;

    fn is_nan(self) -> bool {
        f64::is_nan(self)
    }

    fn below(self) -> Self {
        self.next_down()
    }

    fn total_cmp(&self, other: &Self) -> Ordering {
        f64::total_cmp(self, other)
    }

    fn fits_f32(self) -> bool {
        f64::from(self as f32) == self
    }

    fn to_f32(self) -> f32 {
        self as f32
    }

    #[inline(always)]
    fn up_to_f32(self) -> f32 {
        let near = self as f32;
        if f64::from(near) < self { near.next_up() } else { near }
    }

    fn minus(self, other: Self) -> Self {
        self - other
    }

    fn bits(self) -> u64 {
        self.to_bits()
    }
}
