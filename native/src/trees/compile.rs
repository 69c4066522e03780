//! From an ensemble to the layouts of its trees.

use std::collections::HashMap;

use super::bitvector::{BitTrees, MOST_LEAVES, Rank, lanes_of_an_instruction};
use super::ranks::Thresholds;
use super::walker::PackedTrees;
use super::{Combine, CompiledEnsemble, CompiledTree, Ensemble, Feature, Node, Number, RankedSplit, Split, Tree};
use crate::error::{Result, bail};

/// Thresholds of a column, at most: walks compare their numbers as floats.
const MOST_THRESHOLDS: usize = 1 << 24;

/// Cycles that one test of a plane takes, for as many rows as an instruction serves; measured.
const CYCLES_OF_TEST: f64 = 2.2;

/// Cycles that a row takes for each level of a walk; measured.
const CYCLES_OF_LEVEL: f64 = 2.5;

impl<T: Number> CompiledEnsemble<T> {
    /// Compiles `ensemble`.
    ///
    /// # Errors
    /// A tree that is none: a child, a column or a target that is not there, a node with two parents. Trees of more nodes
    /// and features than a packed node can tell apart.
    pub fn compile(ensemble: &Ensemble<T>, combine: Combine) -> Result<Self> {
        ensemble.check()?;
        let splits: Vec<Vec<Option<Split<T>>>> = ensemble.trees.iter().map(splits).collect();
        let (features, feature_numbers) = number_features(splits.iter().flatten().flatten());
        let mut thresholds = vec![vec![]; ensemble.columns];
        for split in splits.iter().flatten().flatten() {
            if let Feature::Ordered { column, .. } = split.feature {
                thresholds[column as usize].push(split.threshold);
            }
        }
        let walks_by_rank = thresholds.iter().map(|of_column| !of_column.iter().all(|t| t.fits_f32())).collect();
        let thresholds: Vec<_> = thresholds.into_iter().map(Thresholds::new).collect();
        let most = thresholds.iter().map(Thresholds::len).max().unwrap_or(0);
        if most > MOST_THRESHOLDS {
            bail!(InvalidModel, "{most} thresholds of one column are too many");
        }
        let wide = most > <i8 as Rank>::MOST;
        let nodes = ensemble.trees.iter().map(|tree| tree.nodes.len()).max().unwrap_or(0);
        let Some(walks) = PackedTrees::new(features.len(), nodes) else {
            bail!(InvalidModel, "trees of {nodes} nodes on {} features are too large", features.len());
        };
        let mut compiled = Self {
            features,
            thresholds,
            walks_by_rank,
            wide,
            trees: Vec::with_capacity(splits.len()),
            bits: BitTrees::default(),
            walks,
            values: vec![],
            outputs: ensemble.targets,
            combine,
        };
        let dense: usize = ensemble.trees.iter().map(values_of).sum();
        let weights: usize = ensemble.trees.iter().map(|tree| tree.weights.len()).sum();
        if dense > 4 * weights + (1 << 16) || u32::try_from(dense).is_err() {
            bail!(InvalidModel, "leaves of {} targets, of which each names few", ensemble.targets);
        }
        let ranks_fit = most <= <i16 as Rank>::MOST && compiled.features.len() <= usize::from(u16::MAX);
        for (tree, splits) in ensemble.trees.iter().zip(splits) {
            let ranked: Vec<_> = splits.iter().map(|split| compiled.ranked(split.as_ref(), &feature_numbers)).collect();
            compiled.add_tree(tree, &splits, &ranked, ranks_fit);
        }
        compiled.bits.shrink();
        compiled.walks.shrink();
        compiled.values.shrink_to_fit();
        Ok(compiled)
    }

    fn ranked(&self, split: Option<&Split<T>>, features: &HashMap<FeatureKey, u32>) -> RankedSplit {
        let Some(split) = split else { return RankedSplit::Leaf };
        let position = match &split.feature {
            Feature::Ordered { column, .. } => self.thresholds[*column as usize].position(split.threshold),
            Feature::Member { .. } => 0,
        };
        RankedSplit::Branch {
            feature: features[&key(&split.feature)],
            position: position as u32,
            left: split.left,
            right: split.right,
        }
    }

    fn add_tree(&mut self, tree: &Tree<T>, splits: &[Option<Split<T>>], ranked: &[RankedSplit], ranks_fit: bool) {
        let leaves = splits.iter().filter(|split| split.is_none()).count();
        let fits = ranks_fit && leaves <= MOST_LEAVES;
        let cheap = |tests: usize, levels: usize| {
            let width = if self.wide { 2.0 } else { 1.0 };
            let tests = CYCLES_OF_TEST * width * tests as f64 / lanes_of_an_instruction() as f64;
            tests <= CYCLES_OF_LEVEL * levels as f64
        };
        let levels = depth(ranked).next_multiple_of(4);
        let (bits, order) = match fits && cheap(BitTrees::tests(ranked), levels) {
            true => {
                let (bits, order) = match self.wide {
                    false => self.bits.add::<i8>(ranked),
                    true => self.bits.add::<i16>(ranked),
                };
                (Some(bits), order)
            }
            false => (None, (0..ranked.len() as u32).filter(|i| splits[*i as usize].is_none()).collect()),
        };
        let mut number_of = vec![0; ranked.len()];
        order.iter().enumerate().for_each(|(number, node)| number_of[*node as usize] = number as u32);
        let threshold = |node: usize| match &splits[node] {
            Some(Split { feature: Feature::Ordered { column, .. }, threshold, .. }) => {
                match (self.walks_by_rank[*column as usize], ranked[node]) {
                    (true, RankedSplit::Branch { position, .. }) => position as f32,
                    _ => threshold.to_f32(),
                }
            }
            _ => 0.0,
        };
        self.walks.add(ranked, threshold, |node| number_of[node]);
        let outputs = self.add_values(tree, &order);
        self.trees.push(CompiledTree { bits, leaves: order.len() as u32, outputs });
    }

    /// Lays down the leaves' values in `order`, for each output that any of them has a value for.
    fn add_values(&mut self, tree: &Tree<T>, order: &[u32]) -> Box<[(u32, u32)]> {
        let weights = |node: &u32| match tree.nodes[*node as usize] {
            Node::Leaf(start, end) => &tree.weights[start as usize..end as usize],
            Node::Branch(_) => &[],
        };
        let mut outputs: Vec<u32> = order.iter().flat_map(weights).map(|(target, _)| *target).collect();
        outputs.sort_unstable();
        outputs.dedup();
        let place = |output| {
            let start = self.values.len() as u32;
            self.values.extend(order.iter().map(|node| {
                let of_output = weights(node).iter().filter(|(target, _)| *target == output).map(|(_, value)| *value);
                match self.combine {
                    Combine::Sum => of_output.fold(T::ZERO, |sum, value| sum + value),
                    Combine::Min => of_output.fold(T::NAN, |least, value| if value >= least { least } else { value }),
                    Combine::Max => of_output.fold(T::NAN, |most, value| if value <= most { most } else { value }),
                }
            }));
            (output, start)
        };
        outputs.into_iter().map(place).collect()
    }
}

fn splits<T: Number>(tree: &Tree<T>) -> Vec<Option<Split<T>>> {
    let split = |node: &Node<T>| match node {
        Node::Branch(branch) => Some(branch.split()),
        Node::Leaf(..) => None,
    };
    tree.nodes.iter().map(split).collect()
}

/// The values of a tree, if each leaf has one for each target that any of them names.
fn values_of<T>(tree: &Tree<T>) -> usize {
    let mut targets: Vec<u32> = tree.weights.iter().map(|(target, _)| *target).collect();
    targets.sort_unstable();
    targets.dedup();
    let leaves = tree.nodes.iter().filter(|node| matches!(node, Node::Leaf(..))).count();
    leaves * targets.len()
}

fn depth(splits: &[RankedSplit]) -> usize {
    let mut deepest = 0;
    let mut stack = vec![(0u32, 0)];
    while let Some((node, depth)) = stack.pop() {
        deepest = deepest.max(depth);
        if let Some(RankedSplit::Branch { left, right, .. }) = splits.get(node as usize) {
            stack.extend([(*left, depth + 1), (*right, depth + 1)]);
        }
    }
    deepest
}

/// What tells features apart: column, kind, the bits of the values.
type FeatureKey = (u32, u8, Vec<u64>);

fn key<T: Number>(feature: &Feature<T>) -> FeatureKey {
    match feature {
        Feature::Ordered { column, nan_high } => (*column, u8::from(*nan_high), vec![]),
        Feature::Member { column, values, nan } => {
            (*column, 2 + u8::from(*nan), values.iter().map(|value| value.bits()).collect())
        }
    }
}

/// The features of `splits`, each once, sorted by column; and their numbers.
fn number_features<'a, T: Number>(
    splits: impl Iterator<Item = &'a Split<T>>,
) -> (Vec<Feature<T>>, HashMap<FeatureKey, u32>) {
    let mut features: HashMap<FeatureKey, Feature<T>> = HashMap::new();
    for split in splits {
        features.entry(key(&split.feature)).or_insert_with(|| split.feature.clone());
    }
    let mut features: Vec<_> = features.into_iter().collect();
    features.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    let numbers = features.iter().enumerate().map(|(number, (key, _))| (key.clone(), number as u32)).collect();
    (features.into_iter().map(|(_, feature)| feature).collect(), numbers)
}
