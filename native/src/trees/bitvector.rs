//! Trees as bit vectors: every test of a tree is made for all rows, and clears the leaves that it rules out.
//!
//! The idea is QuickScorer's (Lucchese et al., "QuickScorer: a fast algorithm to rank documents with additive ensembles
//! of regression trees", SIGIR 2015), in the form of RapidScorer (Ye et al., KDD 2018): the vector of a row's remaining
//! leaves stands in planes of one byte for 8 leaves, a byte for each row side by side, so that one instruction serves as
//! many rows as it has bytes; a test names the planes that it touches, mostly one. Other than there, the smaller child of
//! a branch comes first, whichever it is, which leaves the fewest planes to touch; the leaf is the first one that
//! remains.

use multiversion::multiversion;

use super::number::Number;
use super::vector;
use super::{BLOCK, LeafNumber, RankedSplit};

/// A tree with more leaves is walked.
pub(super) const MOST_LEAVES: usize = 1024;

/// Trees, one after the other in shared tables.
#[derive(Debug, Default)]
pub(super) struct BitTrees {
    planes: Vec<Plane>,
    tests: Vec<PlaneTest>,
    /// One more than the highest feature of a test.
    features: usize,
}

/// One tree in the tables.
#[derive(Debug, Clone, Copy)]
pub(super) struct BitTree {
    first_plane: u32,
    planes: u32,
}

/// The tests that touch 8 leaves: up to `above`, those that clear bits of rows above the threshold; then up to `end`,
/// those of the other rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plane {
    pub start: u32,
    pub above: u32,
    pub end: u32,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct PlaneTest {
    pub feature: u16,
    /// Compared with the ranks of the feature, which are as much lower.
    pub position: i16,
    /// The leaves that are cleared.
    pub clears: u8,
}

/// The rows that one instruction serves, on this machine.
pub(super) fn lanes_of_an_instruction() -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512bw") {
            return 64;
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            return 32;
        }
    }
    16
}

/// Finds the leaves of `rows` rows, and of as many more as fill up the vectors, with the widest that this machine has.
fn find_leaves<R: Rank>(planes: &[Plane], tests: &[PlaneTest], ranks: &[R], rows: usize, leaves: &mut [u16; BLOCK]) {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512bw") {
            // SAFETY: the instructions are there.
            return unsafe { vector::avx512(planes, tests, ranks, rows, leaves) };
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the instructions are there.
            return unsafe { vector::avx2(planes, tests, ranks, rows, leaves) };
        }
    }
    // SAFETY: any machine has these.
    unsafe { vector::portable(planes, tests, ranks, rows, leaves) }
}

/// The rank type of an ensemble: one byte where each feature has few thresholds, else two.
pub(super) trait Rank: Copy + PartialOrd + Send + Sync + std::fmt::Debug + Default + 'static {
    /// Bytes of a rank.
    const SIZE: usize = size_of::<Self>();
    /// The highest rank that is none of NaN's.
    const MOST: usize;
    const NAN_HIGH: Self;
    const NAN_LOW: Self;
    fn of(rank: u32) -> Self;
    fn to_i16(self) -> i16;
    fn from_i16(position: i16) -> Self;
}

impl Rank for i8 {
    const MOST: usize = 254;
    const NAN_HIGH: Self = i8::MAX;
    const NAN_LOW: Self = i8::MIN;

    #[inline(always)]
    fn of(rank: u32) -> Self {
        (rank as u8 ^ 0x80) as i8 // as signed numbers, which x86-64 compares
    }

    fn to_i16(self) -> i16 {
        self.into()
    }

    #[inline(always)]
    fn from_i16(position: i16) -> Self {
        position as i8
    }
}

impl Rank for i16 {
    const MOST: usize = 65534;
    const NAN_HIGH: Self = i16::MAX;
    const NAN_LOW: Self = i16::MIN;

    #[inline(always)]
    fn of(rank: u32) -> Self {
        (rank as u16 ^ 0x8000) as i16
    }

    fn to_i16(self) -> i16 {
        self
    }

    #[inline(always)]
    fn from_i16(position: i16) -> Self {
        position
    }
}

impl BitTrees {
    /// The tests of a tree, each as often as it touches a plane, and what else each plane costs; about.
    pub(super) fn tests(splits: &[RankedSplit]) -> usize {
        let sizes = leaf_counts(splits);
        let tests = splits.iter().map(|split| match split {
            RankedSplit::Leaf => 0,
            RankedSplit::Branch { left, right, .. } => 1 + sizes[*left as usize].min(sizes[*right as usize]) / 8,
        });
        tests.sum::<usize>() + 3 * sizes.first().map_or(0, |leaves| leaves.div_ceil(8))
    }

    /// Adds the tree; and its leaf nodes in the order in which `leaves` numbers them.
    pub(super) fn add<R: Rank>(&mut self, splits: &[RankedSplit]) -> (BitTree, Vec<u32>) {
        let sizes = leaf_counts(splits);
        let mut leaves = vec![];
        // Tests as (first leaf, leaves, feature, position, whether it clears above)
        let mut cleared: Vec<(usize, usize, u16, i16, bool)> = vec![];
        let mut stack = vec![0u32];
        while let Some(node) = stack.pop() {
            match &splits[node as usize] {
                RankedSplit::Leaf => leaves.push(node),
                RankedSplit::Branch { feature, position, left, right } => {
                    let (l, r) = (sizes[*left as usize], sizes[*right as usize]);
                    let left_first = l <= r;
                    let (first, second) = if left_first { (*left, *right) } else { (*right, *left) };
                    // Going to the second child rules out the leaves of the first, which come next.
                    cleared.push((leaves.len(), l.min(r), *feature as u16, R::of(*position).to_i16(), left_first));
                    stack.push(second);
                    stack.push(first);
                }
            }
        }
        let features = cleared.iter().map(|(_, _, feature, ..)| usize::from(*feature) + 1).max();
        self.features = self.features.max(features.unwrap_or(0));
        assert!(leaves.len() <= MOST_LEAVES, "a plane's number is a byte");
        let planes = leaves.len().div_ceil(8);
        let mut by_plane: Vec<[Vec<PlaneTest>; 2]> = vec![Default::default(); planes];
        for (first, count, feature, position, above) in cleared {
            for (plane, tests) in by_plane.iter_mut().enumerate().take((first + count).div_ceil(8)).skip(first / 8) {
                let from = first.saturating_sub(plane * 8);
                let to = (first + count - plane * 8).min(8);
                let clears = (0xFFu16 << from) as u8 & ((1u16 << to) - 1) as u8;
                tests[usize::from(!above)].push(PlaneTest { feature, position, clears });
            }
        }
        let tree = BitTree { first_plane: self.planes.len() as u32, planes: planes as u32 };
        for [above, below] in by_plane {
            let start = self.tests.len();
            let end = start + above.len() + below.len();
            self.planes.push(Plane { start: start as u32, above: (start + above.len()) as u32, end: end as u32 });
            self.tests.extend(above.into_iter().chain(below));
        }
        (tree, leaves)
    }

    /// Bytes in memory.
    pub(super) fn size(&self) -> usize {
        size_of_val(self.planes.as_slice()) + size_of_val(self.tests.as_slice())
    }

    pub(super) fn shrink(&mut self) {
        self.planes.shrink_to_fit();
        self.tests.shrink_to_fit();
    }

    /// The position, in the planes' order, of the leaf that each row of a block comes to.
    ///
    /// `ranks` are those of each feature, a block of them after the other.
    pub(super) fn leaves<R: Rank>(&self, tree: BitTree, ranks: &[R], rows: usize, leaves: &mut [u16; BLOCK]) {
        let planes = &self.planes[tree.first_plane as usize..][..tree.planes as usize];
        assert!(rows <= BLOCK && ranks.len() >= self.features * BLOCK, "a block of ranks for each feature");
        find_leaves(planes, &self.tests, ranks, rows, leaves);
    }
}

fn leaf_counts(splits: &[RankedSplit]) -> Vec<usize> {
    let mut order = vec![0u32];
    let mut next = 0;
    while let Some(node) = order.get(next) {
        if let RankedSplit::Branch { left, right, .. } = splits[*node as usize] {
            order.extend([left, right]);
        }
        next += 1;
    }
    let mut sizes = vec![1; splits.len()];
    for node in order.into_iter().rev() {
        if let RankedSplit::Branch { left, right, .. } = splits[node as usize] {
            sizes[node as usize] = sizes[left as usize] + sizes[right as usize];
        }
    }
    sizes
}

/// Adds the leaves' values to the rows' sums.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn add_values<T: Number, L: LeafNumber>(values: &[T], leaves: &[L], sums: &mut [T]) {
    for (sum, leaf) in sums.iter_mut().zip(leaves) {
        *sum += values[leaf.number()];
    }
}
