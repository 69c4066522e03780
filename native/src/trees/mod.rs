//! Tree ensembles, compiled: the layout that is fastest is chosen for each tree.
//!
//! ```text
//!  columns ─┬─► ranks among the thresholds ─► bit vectors ─┐
//!           └─► values without NaN ─────────► walk ────────┴─► leaf ─► sums
//! ```
//!
//! Sums are made tree by tree in the ensemble's order, so that they do not depend on the layout, and are those of ONNX
//! Runtime with one thread.
//!
//! An [`Ensemble`] is data that any reader can fill, and a [`CompiledEnsemble`] scores columns:
//!
//! ```
//! use datafusion_predict_native::trees::{Branch, Combine, CompiledEnsemble, Ensemble, Node, Test, Tree};
//!
//! // age <= 30 ? 1.5 : 2.5
//! let branch = Branch { column: 0, test: Test::AtMost(30.0), missing_passes: false, pass: 1, fail: 2 };
//! let nodes = vec![Node::Branch(branch), Node::Leaf(0, 1), Node::Leaf(1, 2)];
//! let tree = Tree { nodes, weights: vec![(0, 1.5), (0, 2.5)] };
//! let ensemble = Ensemble { trees: vec![tree], columns: 1, targets: 1 };
//!
//! let compiled = CompiledEnsemble::<f32>::compile(&ensemble, Combine::Sum)?;
//! let ages = vec![29.0, 31.0, f32::NAN];
//! assert_eq!(compiled.score_columns(&[&ages])?, [vec![1.5, 2.5, 2.5]]);
//! # Ok::<(), datafusion_predict_native::Error>(())
//! ```

mod bitvector;
mod compile;
mod ensemble;
mod number;
mod ranks;
mod vector;
mod walker;

use crate::error::{Result, bail};
use bitvector::{BitTree, BitTrees, Rank, add_values};
use ranks::Thresholds;
use walker::PackedTrees;

pub use ensemble::{Branch, Ensemble, Node, Test, Tree};
pub(crate) use ensemble::{Feature, Split};
pub use number::Number;

/// Rows that are scored at once: what they need stays in the first-level cache.
pub(crate) const BLOCK: usize = 512;

/// Below this number of rows they are walked one by one, through several trees at once.
const FEW_ROWS: usize = 8;

/// How the values of the leaves that a row comes to become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Combine {
    /// Their sum.
    Sum,
    /// The least; NaN stands for none.
    Min,
    /// The greatest; NaN stands for none.
    Max,
}

/// A branch of a tree whose tests are those of features.
#[derive(Debug, Clone, Copy)]
enum RankedSplit {
    Leaf,
    /// `position` is that of the threshold among those of the feature's column.
    Branch {
        feature: u32,
        position: u32,
        left: u32,
        right: u32,
    },
}

/// An ensemble that is ready to score.
#[derive(Debug)]
pub struct CompiledEnsemble<T> {
    /// What trees look at, sorted by column.
    features: Vec<Feature<T>>,
    /// Of each column, where it changes the ways of rows.
    thresholds: Vec<Thresholds<T>>,
    /// Of each column, whether walks compare ranks instead of values, which single precision can't hold.
    walks_by_rank: Vec<bool>,
    /// Whether ranks take two bytes.
    wide: bool,
    trees: Vec<CompiledTree>,
    bits: BitTrees,
    walks: PackedTrees,
    /// The leaves' values, by tree and output.
    values: Vec<T>,
    outputs: usize,
    combine: Combine,
}

#[derive(Debug)]
struct CompiledTree {
    /// If it is not to be walked, however many rows there are.
    bits: Option<BitTree>,
    leaves: u32,
    /// Each output that the leaves have values for, and where these start.
    outputs: Box<[(u32, u32)]>,
}

/// What scoring a block needs beside the ensemble.
#[derive(Debug, Default)]
pub(crate) struct TreeScratch {
    narrow: Vec<i8>,
    wide: Vec<i16>,
    values: Vec<f32>,
    /// For who scores: the sums.
    pub(crate) sums: Vec<f32>,
    pub(crate) double_sums: Vec<f64>,
}

impl<T: Number> CompiledEnsemble<T> {
    /// The combined values of each target for rows whose features are in `columns`, as many as the ensemble has, of equal
    /// length. A target that no leaf of a row names has the value zero, or NaN unless the values are summed.
    ///
    /// # Errors
    /// Columns that are not as many, or that differ in length.
    pub fn score_columns(&self, columns: &[&[T]]) -> Result<Vec<Vec<T>>> {
        if columns.len() != self.thresholds.len() {
            bail!(RunFailed, "the trees take {} columns, found {}", self.thresholds.len(), columns.len());
        }
        let rows = columns.first().map_or(0, |column| column.len());
        if let Some(other) = columns.iter().find(|column| column.len() != rows) {
            bail!(RunFailed, "columns of {rows} and of {} rows", other.len());
        }
        let mut scores = vec![Vec::with_capacity(rows); self.outputs];
        let (mut scratch, mut sums) = (TreeScratch::default(), vec![T::ZERO; self.outputs * BLOCK]);
        for start in (0..rows).step_by(BLOCK) {
            let count = BLOCK.min(rows - start);
            let block: Vec<_> = columns.iter().map(|column| &column[start..start + count]).collect();
            self.score(&block, count, &mut scratch, &mut sums);
            for (scores, sums) in scores.iter_mut().zip(sums.chunks(BLOCK)) {
                scores.extend_from_slice(&sums[..count]);
            }
        }
        Ok(scores)
    }

    /// Bytes in memory.
    pub fn size(&self) -> usize {
        let trees: usize = self.trees.iter().map(|tree| size_of_val(tree) + size_of_val(&*tree.outputs)).sum();
        let thresholds: usize = self.thresholds.iter().map(Thresholds::size).sum();
        trees + thresholds + self.bits.size() + self.walks.size() + size_of_val(self.values.as_slice())
    }

    /// The outputs: targets, and what counts them.
    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// The combined values of each output, a block of them after the other; of outputs without value zero or NaN.
    ///
    /// `columns` are those of the ensemble's input, of equal length: a block at most.
    pub(crate) fn score(&self, columns: &[&[T]], rows: usize, scratch: &mut TreeScratch, sums: &mut [T]) {
        assert!(rows <= BLOCK && sums.len() == self.outputs * BLOCK, "a block of sums for each output");
        sums.fill(match self.combine {
            Combine::Sum => T::ZERO,
            Combine::Min | Combine::Max => T::NAN,
        });
        let few = rows < FEW_ROWS;
        if few || self.trees.iter().any(|tree| tree.bits.is_none()) {
            scratch.values.resize(self.features.len() * BLOCK, 0.0);
            self.prepare(columns, rows, &mut scratch.values, |value, rank, column| {
                if self.walks_by_rank[column] { rank as f32 } else { value.up_to_f32() }
            });
        }
        if few {
            for row in 0..rows {
                self.walks.leaves_of_row(&scratch.values, row, |tree, leaf| self.add_one(tree, leaf, row, sums));
            }
            return;
        }
        if self.trees.iter().any(|tree| tree.bits.is_some()) {
            match self.wide {
                false => self.rank(columns, rows, &mut scratch.narrow),
                true => self.rank(columns, rows, &mut scratch.wide),
            }
        }
        let mut leaves = [0u16; BLOCK];
        let mut walked = [0u32; BLOCK];
        for (number, tree) in self.trees.iter().enumerate() {
            match (tree.bits, self.wide) {
                (None, _) => {
                    self.walks.leaves(number, &scratch.values, rows, &mut walked);
                    self.add(tree, &walked[..rows], sums);
                    continue;
                }
                (Some(bits), false) => self.bits.leaves(bits, &scratch.narrow, rows, &mut leaves),
                (Some(bits), true) => self.bits.leaves(bits, &scratch.wide, rows, &mut leaves),
            }
            self.add(tree, &leaves[..rows], sums);
        }
    }

    fn rank<R: Rank>(&self, columns: &[&[T]], rows: usize, ranks: &mut Vec<R>) {
        ranks.resize(self.features.len() * BLOCK, R::NAN_LOW);
        self.prepare(columns, rows, ranks, |_, rank, _| R::of(rank));
    }

    /// What each feature is of the columns' values: `of(value, rank, column)` if the order counts.
    fn prepare<F: FeatureValue>(
        &self,
        columns: &[&[T]],
        rows: usize,
        features: &mut [F],
        of: impl Fn(T, u32, usize) -> F,
    ) {
        let mut ranks = [0; BLOCK];
        let mut ranked = None;
        for (feature, out) in self.features.iter().zip(features.chunks_exact_mut(BLOCK)) {
            let column = feature.column();
            let (values, out) = (&columns[column][..rows], &mut out[..rows]);
            match feature {
                Feature::Ordered { nan_high, .. } => {
                    if ranked != Some(column) && (F::IS_RANK || self.walks_by_rank[column]) {
                        self.thresholds[column].ranks(values, &mut ranks);
                        ranked = Some(column);
                    }
                    let nan = if *nan_high { F::HIGH } else { F::LOW };
                    for ((out, value), rank) in out.iter_mut().zip(values).zip(ranks) {
                        *out = if value.is_nan() { nan } else { of(*value, rank, column) };
                    }
                }
                Feature::Member { values: set, nan, .. } => {
                    for (out, value) in out.iter_mut().zip(values) {
                        let is_member = if value.is_nan() { *nan } else { is_member(*value, set) };
                        *out = F::of_bool(is_member);
                    }
                }
            }
        }
    }

    /// Adds what one leaf of tree `tree` gives to the sums of one row.
    fn add_one(&self, tree: usize, leaf: u32, row: usize, sums: &mut [T]) {
        for (output, start) in &self.trees[tree].outputs {
            let value = self.values[(start + leaf) as usize];
            let sum = &mut sums[*output as usize * BLOCK + row];
            match self.combine {
                Combine::Sum => *sum += value,
                Combine::Min if sum.is_nan() || value < *sum => *sum = value,
                Combine::Max if sum.is_nan() || value > *sum => *sum = value,
                Combine::Min | Combine::Max => {}
            }
        }
    }

    /// Adds what the leaves give to the rows' sums.
    fn add<L: LeafNumber>(&self, tree: &CompiledTree, leaves: &[L], sums: &mut [T]) {
        for (output, start) in &tree.outputs {
            let values = &self.values[*start as usize..][..tree.leaves as usize];
            let sums = &mut sums[*output as usize * BLOCK..][..leaves.len()];
            match self.combine {
                Combine::Sum => add_values(values, leaves, sums),
                Combine::Min => combine(values, leaves, sums, |value, least| value < least),
                Combine::Max => combine(values, leaves, sums, |value, most| value > most),
            }
        }
    }
}

fn combine<T: Number, L: LeafNumber>(values: &[T], leaves: &[L], sums: &mut [T], wins: impl Fn(T, T) -> bool) {
    for (sum, leaf) in sums.iter_mut().zip(leaves) {
        let value = values[leaf.number()];
        if sum.is_nan() || wins(value, *sum) {
            *sum = value;
        }
    }
}

/// Few values are compared one by one.
fn is_member<T: Number>(value: T, set: &[T]) -> bool {
    match set.len() {
        0..=8 => set.iter().fold(false, |found, member| found | (*member == value)),
        _ => set.binary_search_by(|member| member.partial_cmp(&value).unwrap_or(std::cmp::Ordering::Less)).is_ok(),
    }
}

/// The number of a leaf within its tree.
trait LeafNumber: Copy {
    fn number(self) -> usize;
}

impl LeafNumber for u16 {
    #[inline(always)]
    fn number(self) -> usize {
        self.into()
    }
}

impl LeafNumber for u32 {
    #[inline(always)]
    fn number(self) -> usize {
        self as usize
    }
}

/// What trees compare.
trait FeatureValue: Copy {
    /// Whether it is the rank of a value.
    const IS_RANK: bool;
    /// Above all thresholds.
    const HIGH: Self;
    /// Below all thresholds.
    const LOW: Self;
    fn of_bool(value: bool) -> Self;
}

impl FeatureValue for f32 {
    const IS_RANK: bool = false;
    const HIGH: Self = f32::INFINITY;
    const LOW: Self = f32::NEG_INFINITY;

    fn of_bool(value: bool) -> Self {
        value.into()
    }
}

impl<R: Rank> FeatureValue for R {
    const IS_RANK: bool = true;
    const HIGH: Self = R::NAN_HIGH;
    const LOW: Self = R::NAN_LOW;

    fn of_bool(value: bool) -> Self {
        R::of(value.into())
    }
}
