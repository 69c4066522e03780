//! The labels of a classifier.

use multiversion::multiversion;

use crate::builder::Node;
use crate::builder::{Operand, Value};
use crate::program::Texts;
use crate::tensor::ElementType;

/// The labels of a classifier's classes.
#[derive(Debug, Clone)]
pub(super) struct ClassNames {
    ints: Vec<i64>,
    texts: Option<Texts>,
}

impl ClassNames {
    pub(super) fn of(node: &Node<'_>, ints: &str, texts: &str) -> Self {
        let texts = node.texts(texts);
        if texts.is_empty() {
            Self { ints: node.ints(ints).to_vec(), texts: None }
        } else {
            Self { ints: (0..texts.len() as i64).collect(), texts: Some(texts.into()) }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ints.len()
    }

    pub(super) fn are_texts(&self) -> bool {
        self.texts.is_some()
    }

    /// What stands for each class in a column: its label, or the position of its text.
    pub(super) fn codes(&self) -> &[i64] {
        &self.ints
    }

    /// The column of labels.
    pub(super) fn value(&self, label: Operand) -> Value {
        let element = if self.texts.is_some() { ElementType::String } else { ElementType::Int64 };
        Value { texts: self.texts.clone(), ..Value::of_rows(element, vec![1], vec![label]) }
    }
}

/// The code of the greatest score of each row; the first of equal ones.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub(super) fn greatest(scores: &[&[f32]], codes: &[i64], labels: &mut [i64]) {
    let Some((first, others)) = scores.split_first() else { return };
    labels.fill(codes[0]);
    let mut best = first[..labels.len()].to_vec();
    for (scores, code) in others.iter().zip(&codes[1..]) {
        for ((label, best), score) in labels.iter_mut().zip(&mut best).zip(*scores) {
            // Without a branch, which would go wrong often.
            let wins = -i64::from(*score > *best);
            *label ^= (*label ^ code) & wins;
            *best = if *score > *best { *score } else { *best };
        }
    }
}
