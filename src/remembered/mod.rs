//! What was scored before, kept on disk: the same input is not given to the same model twice, today or tomorrow.
//!
//! ```text
//!  rows ─► their hashes ─► in the store? ─► yes: as they were │ no: scored, and added
//! ```
//!
//! A store is a folder for each model as it is run: its file, its options, its engine and its device. All processes read all of it;
//! each writes segments of its own. A row is found by the first half of the SHA-256 of its input.

mod recall;
mod segment;
mod store;
mod values;

pub(crate) use recall::Remembered;
