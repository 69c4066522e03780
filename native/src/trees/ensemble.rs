//! A tree ensemble as data, and the one form to which all its tests are brought.
//!
//! It is not ONNX's form: whoever reads another format fills it in the same way.

use super::number::Number;
use crate::error::{Result, bail, error};

/// Columns and targets, at most.
const MOST_COLUMNS: usize = 1 << 16;

/// Nodes of all trees, at most: their numbers take 32 bits.
const MOST_NODES: usize = 1 << 31;

/// Decision trees whose leaves add to targets: a regressor's outputs, or a classifier's classes.
///
/// `T` is `f32`, or `f64` where the columns and thresholds are doubles.
#[derive(Debug, Clone, Default)]
pub struct Ensemble<T> {
    /// The trees; sums are made in their order.
    pub trees: Vec<Tree<T>>,
    /// Columns of the input.
    pub columns: usize,
    /// Numbers that a row gets.
    pub targets: usize,
}

/// A tree; its root is the first node, and each node but the root is the child of one other.
#[derive(Debug, Clone, Default)]
pub struct Tree<T> {
    /// The nodes, which name each other by their positions here.
    pub nodes: Vec<Node<T>>,
    /// Target and weight of the leaves, which name ranges of them.
    pub weights: Vec<(u32, T)>,
}

/// A node of a tree.
#[derive(Debug, Clone)]
pub enum Node<T> {
    /// A test, and two ways on.
    Branch(Branch<T>),
    /// The end of the way: the start and the end of its weights among [`Tree::weights`].
    Leaf(u32, u32),
}

/// A test of one column, and where it leads.
#[derive(Debug, Clone)]
pub struct Branch<T> {
    /// The column that is tested.
    pub column: u32,
    /// The test of its value.
    pub test: Test<T>,
    /// Whether NaN goes where a test that is passed goes.
    pub missing_passes: bool,
    /// The node where a value that passes the test goes.
    pub pass: u32,
    /// The node where another value goes.
    pub fail: u32,
}

/// What a branch asks of a value. NaN passes none but [`Differs`](Test::Differs).
#[derive(Debug, Clone)]
pub enum Test<T> {
    /// `value <= threshold`
    AtMost(T),
    /// `value < threshold`
    Below(T),
    /// `value >= threshold`
    AtLeast(T),
    /// `value > threshold`
    Above(T),
    /// `value == other`
    Equals(T),
    /// `value != other`
    Differs(T),
    /// Whether the value is one of these.
    Member(Vec<T>),
}

/// What a test looks at: a column, with a place for NaN, or whether the column is one of some values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Feature<T> {
    /// The column itself; NaN is above all (`nan_high`) or below all of its values.
    Ordered { column: u32, nan_high: bool },
    /// 1 if the column is one of the sorted `values`, or NaN where `nan` holds; else 0.
    Member { column: u32, values: Vec<T>, nan: bool },
}

impl<T> Feature<T> {
    pub(crate) fn column(&self) -> usize {
        match self {
            Self::Ordered { column, .. } | Self::Member { column, .. } => *column as usize,
        }
    }
}

/// A branch in the one form: above the threshold it goes right, else left.
#[derive(Debug, Clone)]
pub(crate) struct Split<T> {
    pub feature: Feature<T>,
    /// Never NaN, nor positive infinity.
    pub threshold: T,
    pub left: u32,
    pub right: u32,
}

impl<T: Number> Branch<T> {
    /// The branch in the one form. It takes the same way for every value, NaN and the infinities too.
    pub(crate) fn split(&self) -> Split<T> {
        let (column, missing) = (self.column, self.missing_passes);
        let (pass, fail) = (self.pass, self.fail);
        // NaN passes no comparison but `!=`, so without the track it fails.
        let ordered = |threshold, nan_high, left, right| Split {
            feature: Feature::Ordered { column, nan_high },
            threshold,
            left,
            right,
        };
        let member = |values: Vec<T>, nan, left, right| Split {
            feature: Feature::Member { column, values, nan },
            threshold: T::ZERO,
            left,
            right,
        };
        let only_if_missing = |left, right, nan| member(vec![], nan, left, right);
        match &self.test {
            Test::AtMost(t) if t.is_nan() => only_if_missing(fail, pass, missing),
            Test::AtMost(t) if *t == T::INFINITY => only_if_missing(pass, fail, !missing),
            Test::AtMost(t) => ordered(*t, !missing, pass, fail),
            Test::Below(t) if t.is_nan() || *t == T::NEG_INFINITY => only_if_missing(fail, pass, missing),
            Test::Below(t) => ordered(t.below(), !missing, pass, fail),
            Test::AtLeast(t) if t.is_nan() => only_if_missing(fail, pass, missing),
            Test::AtLeast(t) if *t == T::NEG_INFINITY => only_if_missing(pass, fail, !missing),
            Test::AtLeast(t) => ordered(t.below(), missing, fail, pass),
            Test::Above(t) if t.is_nan() || *t == T::INFINITY => only_if_missing(fail, pass, missing),
            Test::Above(t) => ordered(*t, missing, fail, pass),
            Test::Equals(t) => member(set(std::slice::from_ref(t)), missing, fail, pass),
            Test::Differs(t) => member(set(std::slice::from_ref(t)), false, pass, fail),
            Test::Member(values) => member(set(values), missing, fail, pass),
        }
    }
}

impl<T> Ensemble<T> {
    /// Whether the ensemble is one: each node but the roots is the child of one other, and what is named is there.
    ///
    /// # Errors
    /// What is wrong, in a few words.
    pub(super) fn check(&self) -> Result<()> {
        let (Self { trees, columns, targets }, most) = (self, MOST_COLUMNS);
        if *columns > most || *targets > most {
            bail!(
                InvalidModel,
                "trees of {columns} columns and {targets} targets are too large: {most} of each at most"
            );
        }
        let nodes: usize = trees.iter().map(|tree| tree.nodes.len()).sum();
        if nodes > MOST_NODES {
            bail!(InvalidModel, "trees of {nodes} nodes are too large: {MOST_NODES} in all at most");
        }
        for (number, tree) in trees.iter().enumerate() {
            tree.check(self).map_err(|problem| error!(InvalidModel, "tree {number}: {problem}"))?;
        }
        Ok(())
    }

    /// Leaves out the columns that no tree looks at; those that stay, by their old numbers.
    pub(crate) fn keep_used_columns(&mut self) -> Vec<usize> {
        let mut new_number = vec![None; self.columns];
        let branches = |tree: &Tree<T>| tree.nodes.iter().filter_map(Node::column).collect::<Vec<_>>();
        self.trees.iter().flat_map(branches).for_each(|column| new_number[column as usize] = Some(0));
        let used: Vec<_> = (0..self.columns).filter(|column| new_number[*column].is_some()).collect();
        used.iter().enumerate().for_each(|(number, column)| new_number[*column] = Some(number as u32));
        for node in self.trees.iter_mut().flat_map(|tree| &mut tree.nodes) {
            if let Node::Branch(branch) = node {
                branch.column = new_number[branch.column as usize].unwrap_or(0);
            }
        }
        self.columns = used.len();
        used
    }
}

impl<T> Tree<T> {
    fn check(&self, ensemble: &Ensemble<T>) -> Result<(), String> {
        let mut seen = vec![false; self.nodes.len()];
        let mut open = vec![0];
        while let Some(number) = open.pop() {
            let place = number as usize;
            match seen.get_mut(place) {
                Some(seen) if !*seen => *seen = true,
                Some(_) => return Err(format!("node {number} has two parents, or is its own ancestor")),
                None => return Err(format!("there is no node {number}")),
            }
            match &self.nodes[place] {
                Node::Branch(branch) if branch.column as usize >= ensemble.columns => {
                    return Err(format!("node {number} tests column {} of {}", branch.column, ensemble.columns));
                }
                Node::Branch(branch) => open.extend([branch.pass, branch.fail]),
                Node::Leaf(start, end) if start > end || *end as usize > self.weights.len() => {
                    return Err(format!("node {number} names weights {start} to {end} of {}", self.weights.len()));
                }
                Node::Leaf(..) => {}
            }
        }
        if let Some(number) = seen.iter().position(|seen| !seen) {
            return Err(format!("no way leads to node {number}"));
        }
        match self.weights.iter().find(|(target, _)| *target as usize >= ensemble.targets) {
            Some((target, _)) => Err(format!("a weight is for target {target} of {}", ensemble.targets)),
            None => Ok(()),
        }
    }
}

impl<T> Node<T> {
    fn column(&self) -> Option<u32> {
        match self {
            Self::Branch(branch) => Some(branch.column),
            Self::Leaf(..) => None,
        }
    }
}

/// Sorted, each once, without NaN, which equals nothing.
fn set<T: Number>(values: &[T]) -> Vec<T> {
    let mut set: Vec<T> = values.iter().copied().filter(|value| !value.is_nan()).map(|value| value + T::ZERO).collect();
    set.sort_by(|a, b| a.total_cmp(b));
    set.dedup();
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the split sends `x`: to the pass or to the fail branch.
    fn passes(split: &Split<f32>, x: f32) -> bool {
        let value = match &split.feature {
            Feature::Ordered { nan_high, .. } if x.is_nan() => {
                if *nan_high {
                    f32::INFINITY
                } else {
                    f32::NEG_INFINITY
                }
            }
            Feature::Ordered { .. } => x,
            Feature::Member { values, nan, .. } => {
                f32::from(u8::from(if x.is_nan() { *nan } else { values.contains(&x) }))
            }
        };
        (if value > split.threshold { split.right } else { split.left }) == 1
    }

    #[test]
    fn malformed_trees_are_refused() {
        let branch = |pass, fail| {
            Node::Branch(Branch { column: 0, test: Test::AtMost(1.0f32), missing_passes: false, pass, fail })
        };
        let check = |nodes, weights, columns| {
            let tree = Tree { nodes, weights };
            Ensemble { trees: vec![tree], columns, targets: 1 }.check()
        };
        let leaf = || Node::Leaf(0, 1);
        assert!(check(vec![branch(1, 2), leaf(), leaf()], vec![(0, 1.0)], 1).is_ok());
        for (nodes, weights, columns, expected) in [
            (vec![], vec![], 1, "there is no node 0"),
            (vec![branch(1, 2), leaf()], vec![(0, 1.0)], 1, "there is no node 2"),
            (vec![branch(1, 1), leaf()], vec![(0, 1.0)], 1, "node 1 has two parents"),
            (vec![branch(0, 1), leaf()], vec![(0, 1.0)], 1, "its own ancestor"),
            (vec![leaf(), leaf()], vec![(0, 1.0)], 1, "no way leads to node 1"),
            (vec![branch(1, 2), leaf(), leaf()], vec![(0, 1.0)], 0, "tests column 0 of 0"),
            (vec![leaf()], vec![], 1, "names weights 0 to 1 of 0"),
            (vec![leaf()], vec![(1, 1.0)], 1, "target 1 of 1"),
        ] {
            let problem = check(nodes, weights, columns).expect_err(expected).to_string();
            assert!(problem.contains(expected), "{problem}");
        }
    }

    #[test]
    fn splits_take_the_way_of_their_tests() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let values = [nan, inf, -inf, 0.0, -0.0, 1.0, 1.0f32.next_up(), 1.0f32.next_down(), f32::MAX, f32::MIN, 1e-45];
        for t in values {
            let tests = [
                Test::AtMost(t),
                Test::Below(t),
                Test::AtLeast(t),
                Test::Above(t),
                Test::Equals(t),
                Test::Differs(t),
                Test::Member(vec![t, 7.0]),
            ];
            for test in tests {
                for missing_passes in [false, true] {
                    let branch = Branch { column: 0, test: test.clone(), missing_passes, pass: 1, fail: 2 };
                    for x in values {
                        let compared = match test {
                            Test::AtMost(t) => x <= t,
                            Test::Below(t) => x < t,
                            Test::AtLeast(t) => x >= t,
                            Test::Above(t) => x > t,
                            Test::Equals(t) => x == t,
                            Test::Differs(t) => x != t,
                            Test::Member(_) => x == t || x == 7.0,
                        };
                        let expected = compared || (missing_passes && x.is_nan());
                        assert_eq!(passes(&branch.split(), x), expected, "{test:?}, {x}, missing {missing_passes}");
                    }
                }
            }
        }
    }
}
