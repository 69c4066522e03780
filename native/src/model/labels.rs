//! The classes of a classifier.

use std::fmt;

use super::proto::NodeProto;

/// The labels of a classifier's classes, in the order of its probabilities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassLabels {
    /// The labels.
    pub labels: Labels,
}

/// Labels are integers or strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Labels {
    /// `classlabels_int64s`
    Ints(Vec<i64>),
    /// `classlabels_strings`
    Strings(Vec<String>),
}

impl ClassLabels {
    /// The labels among a node's attributes, under any of the names that ONNX has for them.
    pub(super) fn of_attributes(node: &NodeProto) -> Option<Self> {
        let ints = ["classlabels_int64s", "classlabels_ints"].into_iter().find_map(|name| node.attribute(name));
        let strings = node.attribute("classlabels_strings");
        let labels = match (ints, strings) {
            (Some(ints), _) if !ints.ints.is_empty() => Labels::Ints(ints.ints.clone()),
            (_, Some(strings)) if !strings.strings.is_empty() => Labels::Strings(
                strings.strings.iter().map(|label| String::from_utf8_lossy(label).into_owned()).collect(),
            ),
            _ => return None,
        };
        Some(Self { labels })
    }

    /// The position of the class that is written `label`.
    pub fn position(&self, label: &str) -> Option<usize> {
        match &self.labels {
            Labels::Ints(ints) => ints.iter().position(|int| label.parse() == Ok(*int)),
            Labels::Strings(strings) => strings.iter().position(|text| text == label),
        }
    }

    /// The number of classes.
    pub fn len(&self) -> usize {
        match &self.labels {
            Labels::Ints(ints) => ints.len(),
            Labels::Strings(strings) => strings.len(),
        }
    }

    /// Whether there is no class.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Vec<String>> for ClassLabels {
    fn from(names: Vec<String>) -> Self {
        Self { labels: Labels::Strings(names) }
    }
}

impl fmt::Display for ClassLabels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.labels {
            Labels::Ints(ints) => write!(f, "{}", ints.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")),
            Labels::Strings(strings) => write!(f, "{}", strings.join(", ")),
        }
    }
}
