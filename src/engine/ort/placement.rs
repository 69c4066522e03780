//! Reads from ONNX Runtime's log where it puts the nodes of a graph.
//!
//! A provider takes the nodes that it knows and leaves the others to the CPU, without an error. The log of a session that is being made
//! has a line for each provider, and under it one for each node:
//!
//! ```text
//!  Node(s) placed on [WebGpuExecutionProvider]. Number of nodes: 3
//!    Gather (embeddings)
//!    MatMul ()
//!    MemcpyFromHost (Memcpy)
//!  Node(s) placed on [CPUExecutionProvider]. Number of nodes: 1
//!    Shape ()
//! ```
//!
//! or, where one has them all, `All nodes placed on [CPUExecutionProvider]. Number of nodes: 6`, and nothing under it.

use std::sync::{Arc, Mutex, PoisonError};

use ort::logging::LoggerFunction;

use crate::engine::Placement;

/// The place in ONNX Runtime's sources that writes these lines.
const WRITER: &str = "VerifyEachNodeIsAssignedToAnEp";

/// Before the name of the provider.
const PLACED: &str = "odes placed on [";
const PLACED_EACH: &str = "ode(s) placed on [";

const CPU: &str = "CPUExecutionProvider";

/// Nodes that copy tensors from one memory to the other, which no model has.
const COPIES: [&str; 2] = ["MemcpyFromHost", "MemcpyToHost"];

/// What was read until now.
#[derive(Debug, Default)]
struct Read {
    placement: Placement,
    /// Whether the nodes in the lines that follow are on the CPU.
    is_cpu: bool,
    /// Whether the session is made: what it logs from then on is of no matter.
    is_done: bool,
    /// Whether there was any line of this kind.
    has_lines: bool,
}

/// Listens to the log of a session while it is made.
#[derive(Debug, Clone, Default)]
pub(super) struct PlacementLog(Arc<Mutex<Read>>);

impl PlacementLog {
    /// What the session writes its log to.
    pub(super) fn logger(&self) -> LoggerFunction {
        let read = self.0.clone();
        Arc::new(move |_, _, _, place: &str, message: &str| {
            let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
            if !read.is_done {
                read.line(place, message);
            }
        })
    }

    /// Where the nodes are, once the session is made; `None` if this version of ONNX Runtime does not say it. From here on the log is not
    /// listened to any more.
    pub(super) fn finish(&self) -> Option<Placement> {
        let mut read = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        read.is_done = true;
        read.has_lines.then(|| std::mem::take(&mut read.placement))
    }
}

impl Read {
    fn line(&mut self, place: &str, message: &str) {
        let message = message.trim();
        let all = message.split_once(PLACED).map(|(_, rest)| (rest, true));
        let heading = all.or_else(|| message.split_once(PLACED_EACH).map(|(_, rest)| (rest, false)));
        if let Some((rest, all)) = heading {
            let provider = rest.split(']').next().unwrap_or_default();
            self.is_cpu = provider == CPU;
            self.has_lines = true;
            let number = rest.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0);
            match (all, self.is_cpu) {
                // Those of the others follow one by one.
                (true, true) => *self.placement.on_cpu.entry("all".to_owned()).or_default() += number,
                (true, false) => self.placement.on_device += number,
                (false, _) => {}
            }
            return;
        }
        let operator = message.split(' ').next().unwrap_or_default();
        let names_node = place.contains(WRITER) && message.contains('(') && !operator.is_empty();
        if !names_node || COPIES.contains(&operator) {
            return;
        }
        match self.is_cpu {
            true => *self.placement.on_cpu.entry(operator.to_owned()).or_default() += 1,
            false => self.placement.on_device += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Option<Placement> {
        let log = PlacementLog::default();
        let logger = log.logger();
        let place = "session_state.cc:1355 VerifyEachNodeIsAssignedToAnEp";
        lines.iter().for_each(|line| logger(ort::logging::LogLevel::Verbose, "onnxruntime", "", place, line));
        logger(ort::logging::LogLevel::Verbose, "onnxruntime", "", "bfc_arena.cc:1 Alloc", "Extending (1)");
        log.finish()
    }

    #[test]
    fn nodes_are_counted_by_provider_and_copies_are_none() {
        let found = read(&[
            " Node(s) placed on [WebGpuExecutionProvider]. Number of nodes: 3",
            "   Gather (embeddings)",
            "   MatMul ()",
            "   MemcpyFromHost (Memcpy)",
            " Node(s) placed on [CPUExecutionProvider]. Number of nodes: 3",
            "   Shape ()",
            "   Unsqueeze (a)",
            "   Unsqueeze (b)",
        ]);
        let found = found.expect("lines");
        assert_eq!(
            (found.to_string(), found.operators_on_cpu()),
            ("2 of 5".to_owned(), "Shape, Unsqueeze (2)".to_owned())
        );
    }

    #[test]
    fn all_nodes_may_be_in_one_place() {
        let device = read(&["All nodes placed on [CUDAExecutionProvider]. Number of nodes: 6"]).expect("a line");
        assert_eq!(device.to_string(), "6 of 6");
        let cpu = read(&["All nodes placed on [CPUExecutionProvider]. Number of nodes: 6"]).expect("a line");
        assert_eq!(cpu.to_string(), "0 of 6");
        assert_eq!(read(&["nothing of the kind"]), None);
    }
}
