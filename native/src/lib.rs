//! ONNX models of tables, as programs over Arrow columns: trees, linear models and their preprocessing.
//!
//! ```text
//!  model.onnx ──read──► Model: graph, weights, signature
//!                         │ compile: each node becomes steps over columns, or nothing but other names for them
//!                         ▼
//!  Arrow columns, ──► CompiledModel: blocks of rows ► step ► step ► … ──► Tensors
//!  read where they lie
//! ```
//!
//! It needs no runtime and no library but Arrow. What it can't compile, such as convolutions, it says so, and leaves to a
//! runtime that can. Ensembles of trees are laid out tree by tree, in the way that this machine walks fastest.
//!
//! Modules, each of which knows only those after it: [`CompiledModel`], the compiler, the operators, the builder of programs,
//! programs, [`trees`], [`model`], tensors, errors.

mod builder;
mod compile;
mod compiled;
mod error;
pub mod model;
mod operators;
mod program;
mod tensor;
pub mod trees;

pub use compiled::{CompileOptions, Compiled, CompiledModel};
pub use error::{Error, ErrorKind, Result};
pub use model::{
    ClassLabels, Dimension, Labels, Metadata, Model, ModelFiles, Precision, SequenceOutput, Signature, TensorSpec,
    TokenTable, Weight, WeightData,
};
pub use tensor::{ElementType, Tensor, TensorData};
