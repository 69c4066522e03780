//! Trees as packed nodes that are walked: for deep trees, whose tests are too many to make them all, and for few rows.
//!
//! A node takes 8 bytes, siblings lie side by side, and a leaf is its own left child, so that the walk has no branches:
//! rows (or, of a single row, trees) go down side by side, as deep as the deepest leaf of the tree.

use super::{BLOCK, RankedSplit};

/// Rows that walk side by side: so many loads are under way at once.
const ROWS: usize = 16;

/// Trees that a single row walks at once.
const TREES: usize = 8;

/// Levels between two looks at whether all rows have come to a leaf.
const LEVELS: usize = 4;

/// A branch or a leaf.
#[derive(Debug, Clone, Copy)]
struct PackedNode {
    /// A value above it goes right; none is above a leaf's, infinity.
    threshold: f32,
    /// The feature, and the left child as its distance from the tree's first node; the right one follows it.
    link: u32,
}

/// Trees, one after the other.
#[derive(Debug)]
pub(super) struct PackedTrees {
    nodes: Vec<PackedNode>,
    /// Of each node that is a leaf, its number within the tree.
    leaves: Vec<u32>,
    roots: Vec<Root>,
    features: usize,
    child_bits: u32,
}

#[derive(Debug, Clone, Copy)]
struct Root {
    first: u32,
    depth: u32,
}

impl PackedTrees {
    /// For trees of up to `nodes` nodes that look at `features` features; `None` if a link can't hold both.
    pub(super) fn new(features: usize, nodes: usize) -> Option<Self> {
        let bits = |count: usize| usize::BITS - count.saturating_sub(1).leading_zeros();
        let child_bits = bits(nodes + 1).max(1);
        let fits = child_bits + bits(features.max(1)) <= u32::BITS && child_bits < u32::BITS;
        fits.then_some(Self { nodes: vec![], leaves: vec![], roots: vec![], features, child_bits })
    }

    /// Adds a tree. `threshold(node)` is a branch's, `leaf(node)` a leaf's number.
    pub(super) fn add(
        &mut self,
        splits: &[RankedSplit],
        threshold: impl Fn(usize) -> f32,
        leaf: impl Fn(usize) -> u32,
    ) {
        let first = self.nodes.len();
        // Siblings side by side, and below them the left one's offspring first: a walk stays in few cache lines.
        let mut stack = vec![(0u32, 0usize, 0u32)]; // node, place, depth
        let mut deepest = 0;
        let empty = PackedNode { threshold: f32::INFINITY, link: 0 };
        self.nodes.push(empty);
        self.leaves.push(0);
        while let Some((node, place, depth)) = stack.pop() {
            deepest = deepest.max(depth);
            match splits[node as usize] {
                RankedSplit::Leaf => {
                    self.nodes[first + place].link = place as u32;
                    self.leaves[first + place] = leaf(node as usize);
                }
                RankedSplit::Branch { feature, left, right, .. } => {
                    assert!((feature as usize) < self.features, "a feature within those announced");
                    let child = self.nodes.len() - first;
                    self.nodes.extend([empty; 2]);
                    self.leaves.extend([0; 2]);
                    self.nodes[first + place] = PackedNode {
                        threshold: threshold(node as usize),
                        link: feature << self.child_bits | child as u32,
                    };
                    stack.push((right, child + 1, depth + 1));
                    stack.push((left, child, depth + 1));
                }
            }
        }
        self.roots.push(Root { first: first as u32, depth: deepest });
    }

    /// Bytes in memory.
    pub(super) fn size(&self) -> usize {
        size_of_val(self.nodes.as_slice()) + size_of_val(self.leaves.as_slice()) + size_of_val(self.roots.as_slice())
    }

    pub(super) fn shrink(&mut self) {
        self.nodes.shrink_to_fit();
        self.leaves.shrink_to_fit();
    }

    /// The number of the leaf of tree `tree` that each row comes to; at most a block of rows.
    ///
    /// `values` are those of each feature, a block of them after the other, without NaN.
    pub(super) fn leaves(&self, tree: usize, values: &[f32], rows: usize, leaves: &mut [u32; BLOCK]) {
        let root = self.roots[tree];
        assert!(values.len() >= self.features * BLOCK && rows <= BLOCK, "a block of values for each feature");
        let (mask, shift) = (self.child_bits_mask(), self.child_bits);
        let nodes = &self.nodes[root.first as usize..];
        let numbers = &self.leaves[root.first as usize..];
        for start in (0..rows).step_by(ROWS) {
            let mut at = [0u32; ROWS];
            let mut level = 0;
            while level < root.depth {
                let mut moved = 0;
                for _ in 0..LEVELS {
                    for (i, at) in at.iter_mut().enumerate() {
                        // SAFETY: links are made by `add`: children lie within the tree, features below those for which
                        // the constructor made room, and there is a block of values for each (asserted above).
                        let (node, value) = unsafe {
                            let node = nodes.get_unchecked(*at as usize);
                            (node, *values.get_unchecked((node.link >> shift) as usize * BLOCK + start + i))
                        };
                        let next = (node.link & mask) + u32::from(value > node.threshold);
                        moved |= next ^ *at;
                        *at = next;
                    }
                }
                if moved == 0 {
                    break;
                }
                level += LEVELS as u32;
            }
            for (leaf, at) in leaves[start..].iter_mut().zip(at) {
                *leaf = numbers[at as usize];
            }
        }
    }

    /// Calls `each(tree, leaf)` for all trees, with the leaf that row `row` of the block comes to.
    pub(super) fn leaves_of_row(&self, values: &[f32], row: usize, mut each: impl FnMut(usize, u32)) {
        assert!(values.len() >= self.features * BLOCK && row < BLOCK, "a block of values for each feature");
        let (mask, shift) = (self.child_bits_mask(), self.child_bits);
        for (group, roots) in self.roots.chunks(TREES).enumerate() {
            let mut at = [0u32; TREES];
            let depth = roots.iter().map(|root| root.depth).max().unwrap_or(0);
            for _ in 0..depth {
                for (at, root) in at.iter_mut().zip(roots) {
                    // SAFETY: as in `leaves`.
                    let (node, value) = unsafe {
                        let node = self.nodes.get_unchecked((root.first + *at) as usize);
                        (node, *values.get_unchecked((node.link >> shift) as usize * BLOCK + row))
                    };
                    *at = (node.link & mask) + u32::from(value > node.threshold);
                }
            }
            for (i, (at, root)) in at.iter().zip(roots).enumerate() {
                each(group * TREES + i, self.leaves[(root.first + at) as usize]);
            }
        }
    }

    fn child_bits_mask(&self) -> u32 {
        (1 << self.child_bits) - 1
    }
}
