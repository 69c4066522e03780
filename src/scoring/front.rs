//! What stands before the graph of a model of texts or of images, and makes its numbers of what calls give.

use std::fmt::Debug;
use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion_predict_native::{Model, Tensor, TensorSpec};
use datafusion_predict_udfs::Tokenizer;

use super::axes::Input;
use super::image::ImageModel;
use super::made_up;
use super::outputs::SelectedOutput;
use super::text::{self, TextModel};
use super::trial::MakeUp;
use super::{BatchSize, batch_size};
use crate::call::ModelOptions;
use crate::encode::OutputColumn;
use crate::engine::{Columnar, Executable, Placement, RunContext};
use crate::error::{Result, bail};

/// A model that takes words or pictures, before an engine has prepared its graph.
pub(super) enum Front {
    Texts(Box<TextModel>),
    Images(Box<ImageModel>),
}

impl Front {
    /// What stands before the graph of `model`; `None` if calls give the graph's own numbers.
    ///
    /// # Errors
    /// Files beside the model that can't be read or do not fit it; options that do not fit it.
    pub(super) fn of(label: &str, model: &Model, options: &ModelOptions) -> Result<Option<Self>> {
        if let Some(images) = ImageModel::of(label, model, options)? {
            return Ok(Some(Self::Images(Box::new(images))));
        }
        Ok(TextModel::of(label, model, options)?.map(|texts| Self::Texts(Box::new(texts))))
    }

    /// What a call gives for each row.
    pub(super) fn inputs(&self) -> &[Input] {
        match self {
            Self::Texts(texts) => &texts.inputs,
            Self::Images(images) => &images.inputs,
        }
    }

    /// What a call gives back.
    pub(super) fn outputs(&self, label: &str, model: &Model) -> Result<Vec<SelectedOutput>> {
        match self {
            Self::Texts(texts) => Ok(texts.outputs.iter().map(SelectedOutput::tensor).collect()),
            Self::Images(images) => images.outputs(label, model),
        }
    }

    /// The columns that `outputs`, as runs have shown them, become.
    pub(super) fn columns(&self, label: &str, model: &Model, outputs: &[SelectedOutput]) -> Result<Vec<OutputColumn>> {
        match self {
            Self::Texts(texts) => Ok(texts.columns(outputs)),
            Self::Images(images) => images.columns(label, model, outputs),
        }
    }

    /// The options, with what the files beside the model say.
    pub(super) fn options(&self) -> &ModelOptions {
        match self {
            Self::Texts(texts) => &texts.options,
            Self::Images(images) => &images.options,
        }
    }

    /// What a user should know of what was chosen.
    pub(super) fn notes(&self) -> &[String] {
        match self {
            Self::Texts(texts) => &texts.notes,
            Self::Images(images) => &images.notes,
        }
    }

    /// The inputs of the graph.
    pub(super) fn graph_inputs(&self) -> Vec<TensorSpec> {
        match self {
            Self::Texts(texts) => texts.graph_inputs.clone(),
            Self::Images(images) => images.graph_inputs.clone(),
        }
    }

    /// The outputs of the graph that are made the call's.
    pub(super) fn graph_outputs(&self) -> Vec<String> {
        match self {
            Self::Texts(texts) => vec![texts.graph_output.name.clone()],
            Self::Images(images) => images.graph_outputs.clone(),
        }
    }

    /// How a made-up row becomes one that such a model takes.
    pub(super) fn make_up(&self) -> MakeUp {
        match self {
            Self::Texts(_) => made_up::with_words,
            Self::Images(_) => made_up::with_images,
        }
    }

    /// The tokens that a model of texts reads.
    pub(super) fn tokenizer(&self) -> Option<Arc<dyn Tokenizer>> {
        match self {
            Self::Texts(texts) => Some(texts.tokenizer()),
            Self::Images(_) => None,
        }
    }

    /// What runs rows through `graph`, which an engine has prepared.
    pub(super) fn runner(&self, graph: Arc<dyn Executable>) -> Arc<dyn Executable> {
        let before = match self {
            Self::Texts(texts) => texts.runner(),
            Self::Images(images) => images.runner(),
        };
        Arc::new(WithFront { before, graph })
    }

    /// How many rows are given to the model at once.
    pub(super) fn batch_size(&self, model: &Model, asked: Option<usize>, on_cpu: bool) -> BatchSize {
        match (self, asked) {
            (Self::Texts(_), rows) => BatchSize::windows(rows.unwrap_or(text::WINDOW)),
            (Self::Images(_), Some(rows)) => BatchSize::asked(rows, on_cpu),
            (Self::Images(images), None) => {
                batch_size::choose(model, on_cpu, images.row_elements()).of_at_most(images.most_rows())
            }
        }
    }
}

/// Makes columns of words or pictures the input of a graph, and its outputs what a call gives.
pub(super) trait BeforeGraph: Debug + Send + Sync {
    /// Runs `graph` for `rows` rows, as often as it takes.
    ///
    /// # Errors
    /// A row that can't be scored, and those of the graph's run.
    fn run_columns(
        &self,
        graph: &dyn Executable,
        inputs: &[Vec<ArrayRef>],
        rows: usize,
        context: &RunContext,
    ) -> Result<Vec<Tensor>>;
}

/// A graph with what stands before it: to all other modules a model that takes words or pictures.
#[derive(Debug)]
struct WithFront {
    before: Arc<dyn BeforeGraph>,
    graph: Arc<dyn Executable>,
}

impl Executable for WithFront {
    fn run(&self, inputs: &[Tensor], context: &RunContext) -> Result<Vec<Tensor>> {
        let columns = inputs.iter().map(|input| vec![input.data.to_array()]).collect::<Vec<_>>();
        self.run_columns(&columns, inputs.first().map_or(0, Tensor::rows), context)
    }

    fn columnar(&self) -> Option<&dyn Columnar> {
        Some(self)
    }

    fn device(&self) -> String {
        self.graph.device()
    }

    fn placement(&self) -> Option<Placement> {
        self.graph.placement()
    }

    fn notes(&self) -> Vec<String> {
        self.graph.notes()
    }

    fn variant(&self) -> String {
        self.graph.variant()
    }

    fn sessions(&self) -> usize {
        self.graph.sessions()
    }

    fn size(&self) -> Option<usize> {
        self.graph.size()
    }
}

impl Columnar for WithFront {
    fn run_columns(&self, inputs: &[Vec<ArrayRef>], rows: usize, context: &RunContext) -> Result<Vec<Tensor>> {
        self.before.run_columns(self.graph.as_ref(), inputs, rows, context)
    }

    fn scores_rows_apart(&self) -> bool {
        false // the graph scores many together
    }
}

/// The error for an option of texts or of images where the model takes neither.
pub(super) fn refuse_options(label: &str, options: &ModelOptions) -> Result<()> {
    if let Some((name, _)) = options.texts.pairs().first() {
        bail!(
            InvalidOption,
            "model '{label}' is no model of texts (option '{name}'): such a model takes 'input_ids', and has a file {} beside it",
            Model::TOKENIZER
        );
    }
    Ok(())
}
