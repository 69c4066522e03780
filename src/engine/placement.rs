//! Where the nodes of a graph run.

use std::collections::BTreeMap;
use std::fmt;

/// Where an engine runs the nodes of a graph that was asked to run on a device: what the device lacks runs on the CPU, and each change
/// between the two copies tensors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// Nodes on the device.
    pub on_device: usize,
    /// Nodes on the CPU, by their operators, where these are known.
    pub on_cpu: BTreeMap<String, usize>,
}

impl Placement {
    /// All nodes.
    pub fn nodes(&self) -> usize {
        self.on_device + self.on_cpu.values().sum::<usize>()
    }

    /// What runs on the CPU: `Cast, Unsqueeze (2)`; nothing if all nodes are on the device.
    pub fn operators_on_cpu(&self) -> String {
        let of_each = self.on_cpu.iter().map(|(operator, count)| match count {
            1 => operator.clone(),
            count => format!("{operator} ({count})"),
        });
        of_each.collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Placement {
    /// `9 of 11`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.on_device, self.nodes())
    }
}
