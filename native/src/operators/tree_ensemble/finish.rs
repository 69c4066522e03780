//! From the sums of the leaves to scores and labels.

use std::ops::Range;

use super::ColumnNumber;
use crate::operators::post_transform::{PostTransform, logistic};
use crate::program::Buffer;
use crate::trees::{BLOCK, Combine, Ensemble, Node};

/// Whether the leaves that a row comes to have a value for a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Always,
    Never,
    /// Counted in this output of the ensemble.
    Counted(usize),
    /// Told by a sum that is not NaN.
    NotNan,
}

impl Presence {
    fn holds<T: ColumnNumber>(self, sums: &[T], target: usize, row: usize) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Counted(output) => sums[output * BLOCK + row] > T::ZERO,
            Self::NotNan => !sums[target * BLOCK + row].is_nan(),
        }
    }
}

/// The presence of each target. Where it differs from row to row, outputs are added that count.
pub(super) fn presences<T: ColumnNumber>(ensemble: &mut Ensemble<T>, combine: Combine) -> Vec<Presence> {
    let targets = ensemble.targets;
    if targets == 1 {
        return vec![if combine == Combine::Sum { Presence::Always } else { Presence::NotNan }];
    }
    if combine != Combine::Sum {
        return vec![Presence::NotNan; targets];
    }
    let (mut ever, mut always) = (vec![false; targets], vec![false; targets]);
    for tree in &ensemble.trees {
        let mut leaves = 0;
        let mut mentions = vec![0; targets];
        for node in &tree.nodes {
            if let Node::Leaf(start, end) = node {
                leaves += 1;
                let mut of_leaf: Vec<u32> =
                    tree.weights[*start as usize..*end as usize].iter().map(|(target, _)| *target).collect();
                of_leaf.sort_unstable();
                of_leaf.dedup();
                of_leaf.iter().for_each(|target| mentions[*target as usize] += 1);
            }
        }
        for target in 0..targets {
            ever[target] |= mentions[target] > 0;
            always[target] |= mentions[target] == leaves;
        }
    }
    let mut presences = vec![];
    let mut counted = vec![];
    for target in 0..targets {
        presences.push(match (always[target], ever[target]) {
            (true, _) => Presence::Always,
            (false, false) => Presence::Never,
            (false, true) => {
                counted.push(target as u32);
                Presence::Counted(targets + counted.len() - 1)
            }
        });
    }
    if !counted.is_empty() {
        ensemble.targets += counted.len();
        for tree in &mut ensemble.trees {
            let old = std::mem::take(&mut tree.weights);
            for node in &mut tree.nodes {
                let Node::Leaf(start, end) = node else { continue };
                let own = &old[*start as usize..*end as usize];
                let first = tree.weights.len() as u32;
                tree.weights.extend_from_slice(own);
                for (number, target) in counted.iter().enumerate() {
                    if own.iter().any(|(of, _)| of == target) {
                        tree.weights.push(((targets + number) as u32, T::of_f32(1.0)));
                    }
                }
                (*start, *end) = (first, tree.weights.len() as u32);
            }
        }
    }
    presences
}

/// Scores of several targets.
#[derive(Debug)]
pub(super) struct Regressor<T> {
    pub base_values: Vec<T>,
    /// The number of trees, by which sums are divided.
    pub average: Option<usize>,
    pub presences: Vec<Presence>,
    pub transform: PostTransform,
}

impl<T: ColumnNumber> Regressor<T> {
    /// Scores in single precision, or in double where the outputs are: as transforms are, by way of single precision.
    pub(super) fn finish(&self, rows: usize, sums: &[T], outputs: &mut [Buffer]) {
        if outputs.iter().all(|output| matches!(output, Buffer::F32(_))) {
            return self.finish_singles(rows, sums, outputs);
        }
        let plain = self.transform == PostTransform::None || outputs.len() == 1;
        if plain && self.transform != PostTransform::Probit {
            for (target, output) in outputs.iter_mut().enumerate() {
                let scores = output.f64s_mut()[..rows].iter_mut().enumerate();
                scores.for_each(|(row, score)| *score = self.score(sums, target, row).to_f64());
            }
            return;
        }
        let mut singles: Vec<_> = outputs.iter().map(|_| Buffer::F32(vec![0.0; rows])).collect();
        self.finish_singles(rows, sums, &mut singles);
        for (output, single) in outputs.iter_mut().zip(&singles) {
            let values = single.slice(rows).f32s();
            output.f64s_mut()[..rows].iter_mut().zip(values).for_each(|(to, from)| *to = (*from).into());
        }
    }

    /// The score before the transform.
    fn score(&self, sums: &[T], target: usize, row: usize) -> T {
        let base = self.base_values.get(target).copied().unwrap_or(T::ZERO);
        let sum = sums[target * BLOCK + row];
        match self.average {
            // Without any value there is no base value either, but for a single target.
            _ if !self.presences[target].holds(sums, target, row) => match self.presences.len() {
                1 => base,
                _ => T::ZERO,
            },
            Some(trees) => sum.divide(trees) + base,
            None => sum + base,
        }
    }

    fn finish_singles(&self, rows: usize, sums: &[T], outputs: &mut [Buffer]) {
        let targets = self.presences.len();
        for (target, output) in outputs.iter_mut().enumerate() {
            let scores = output.f32s_mut()[..rows].iter_mut().enumerate();
            scores.for_each(|(row, score)| *score = self.score(sums, target, row).to_f32());
        }
        // Of a single score only the probit is taken.
        if targets > 1 || self.transform == PostTransform::Probit {
            let mut scores: Vec<_> = outputs.iter_mut().map(|output| &mut output.f32s_mut()[..rows]).collect();
            self.transform.apply(&mut scores);
        }
    }
}

/// The label and the scores of classes.
#[derive(Debug)]
pub(super) struct Classifier<T> {
    pub classes: usize,
    pub base_values: Vec<T>,
    pub presences: Vec<Presence>,
    pub transform: PostTransform,
    pub codes: Vec<i64>,
    /// Whether one score stands for two classes.
    pub binary: bool,
    pub all_positive: bool,
}

impl<T: ColumnNumber> Classifier<T> {
    pub(super) fn finish(&self, rows: usize, sums: &[T], outputs: &mut [Buffer]) {
        let (label, scores) = outputs.split_at_mut(1);
        let label = &mut label[0].i64s_mut()[..rows];
        match self.classes {
            1 => self.one(sums, label, scores),
            2 => match self.presences[..] {
                [first @ (Presence::Always | Presence::Never), second @ (Presence::Always | Presence::Never)] => {
                    let present = [first, second].map(|presence| presence == Presence::Always);
                    self.two(0..rows, present, sums, label, scores);
                }
                _ => {
                    for row in 0..rows {
                        let present = [0, 1].map(|class| self.presences[class].holds(sums, class, row));
                        self.two(row..row + 1, present, sums, label, scores);
                    }
                }
            },
            _ => self.several(sums, label, scores),
        }
    }

    fn one(&self, sums: &[T], label: &mut [i64], scores: &mut [Buffer]) {
        let base = self.base_values.first().copied().unwrap_or(T::ZERO);
        let scores = &mut scores[0].f32s_mut()[..label.len()];
        for ((label, score), sum) in label.iter_mut().zip(scores.iter_mut()).zip(sums) {
            let sum = *sum + base;
            *label = self.codes[usize::from(sum > T::ZERO)];
            *score = sum.to_f32();
        }
        if self.transform == PostTransform::Probit {
            self.transform.apply(&mut [scores]);
        }
    }

    /// Two classes, for rows all or none of which have a value for the first and for the second.
    fn two(
        &self,
        rows: Range<usize>,
        [first, second]: [bool; 2],
        sums: &[T],
        label: &mut [i64],
        scores: &mut [Buffer],
    ) {
        let [first_scores, second_scores] = scores else { return };
        let (a, b) = (&mut first_scores.f32s_mut()[rows.clone()], &mut second_scores.f32s_mut()[rows.clone()]);
        let threshold = if self.binary && self.all_positive { T::of_f32(0.5) } else { T::ZERO };
        let first_sums = &sums[rows.clone()];
        let second_sums = &sums[BLOCK + rows.start..BLOCK + rows.end];
        let labels = &mut label[rows];
        for (i, label) in labels.iter_mut().enumerate() {
            let (x, y) = (first_sums[i], second_sums[i]);
            let (x, y) = match (self.base_values.as_slice(), second) {
                // The sum of the second class is lost, as it is in ONNX Runtime.
                ([_, base], true) => {
                    let y = *base + x;
                    (T::ZERO.minus(y), y)
                }
                ([base, _], false) | ([base], _) => (x + *base, y),
                _ => (x, y),
            };
            // What has no value is read as zero, whatever was added to it.
            let x = if first { x } else { T::ZERO };
            let positive = if second { y } else { x };
            *label = self.codes[usize::from(positive > threshold)];
            (a[i], b[i]) = (x.to_f32(), if second { y.to_f32() } else { 0.0 });
        }
        if second || self.base_values.len() == 2 {
            self.transform.apply(&mut [a, b]);
            return;
        }
        // One score for both.
        b.copy_from_slice(a);
        match self.transform {
            PostTransform::Logistic => {
                a.iter_mut().for_each(|a| *a = -*a);
                logistic(a);
                logistic(b);
            }
            _ if self.binary && self.all_positive => a.iter_mut().for_each(|a| *a = 1.0 - *a),
            _ => a.iter_mut().for_each(|a| *a = -*a),
        }
    }

    fn several(&self, sums: &[T], label: &mut [i64], scores: &mut [Buffer]) {
        let rows = label.len();
        let mut best = [T::ZERO; BLOCK];
        let mut chosen = [usize::MAX; BLOCK];
        for (class, (scores, presence)) in scores.iter_mut().zip(&self.presences).enumerate() {
            let base = self.base_values.get(class).copied();
            for (row, score) in scores.f32s_mut()[..rows].iter_mut().enumerate() {
                let present = presence.holds(sums, class, row);
                let sum = if present { sums[class * BLOCK + row] } else { T::ZERO };
                *score = 0.0;
                if present || base.is_some() {
                    let value = sum + base.unwrap_or(T::ZERO);
                    *score = value.to_f32();
                    if chosen[row] == usize::MAX || value > best[row] {
                        (chosen[row], best[row]) = (class, value);
                    }
                }
            }
        }
        for (label, class) in label.iter_mut().zip(chosen) {
            *label = self.codes.get(class).or(self.codes.first()).copied().unwrap_or(0);
        }
        let mut scores: Vec<_> = scores.iter_mut().map(|scores| &mut scores.f32s_mut()[..rows]).collect();
        self.transform.apply(&mut scores);
    }
}
