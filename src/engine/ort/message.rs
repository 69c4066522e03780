//! Error messages of ONNX Runtime, cleaned for users: without the C++ file, line and function that many begin with.

use std::fmt;

/// What follows the node that failed.
const STATUS: &str = "Status Message: ";

/// An error of ONNX Runtime, as a user can read it.
#[derive(Debug)]
pub(super) struct RuntimeError(pub(super) ort::Error);

impl fmt::Display for RuntimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = self.0.message().trim();
        match message.split_once(STATUS) {
            Some((node, status)) => write!(f, "{node}{STATUS}{}", without_place(status))?,
            None => f.write_str(without_place(message))?,
        }
        match message.contains("is smaller than requested bytes") {
            true => {
                f.write_str("; --onnxruntime-memory sets how much all runs may take (OrtEngine::with_memory_limit)")
            }
            false => Ok(()),
        }
    }
}

impl std::error::Error for RuntimeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// `message` without the file, the line and the signature of the C++ function that it starts with, if it does:
/// `/src/graph.cc:46 void check(int, const std::string&) The model is too new`.
pub(super) fn without_place(message: &str) -> &str {
    let has_place = message.split_once(' ').is_some_and(|(place, _)| place.contains(".cc:") || place.contains(".h:"));
    let Some(open) = message.find('(').filter(|_| has_place) else { return message };
    let mut depth = 0;
    for (at, c) in message[open..].char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 1 => {
                let rest = message[open + at + 1..].trim_start_matches(" const").trim();
                return if rest.is_empty() { message } else { rest };
            }
            ')' => depth -= 1,
            _ => {}
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::without_place;

    #[test]
    fn places_in_cpp_sources_are_left_out() {
        let message =
            "/src/core/graph/model.cc:256 Model::Model(onnx::Proto&&, const List<F(int)>*) Unsupported version: 99";
        assert_eq!(without_place(message), "Unsupported version: 99");
        for kept in ["Node (Add) failed", "/src/a.cc:1 no signature", "/src/a.cc:1 f(int)"] {
            assert_eq!(without_place(kept), kept);
        }
    }
}
