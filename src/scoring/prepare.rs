//! From a model and its options to a predictor.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion_predict_native::{Dimension, ElementType, Model, Signature, TensorSpec};

use super::axes::{self, RowsFirst};
use super::health::Health;
use super::trial::{Dependence, Trial, fixed_rows};
use super::{BatchSize, Predictor, Runner, batch_size};
use crate::call::{CallSignature, DependentRows, ModelOptions, NullPolicy};
use crate::cancel::CancelToken;
use crate::encode::{InputEncoder, OutputColumn, struct_fields};
use crate::engine::{self, Device, Engine, PrepareRequest, Prepared};
use crate::error::{Result, bail, error};

/// What a predictor is made from.
#[derive(Debug, Clone)]
pub(crate) struct PredictorRequest {
    /// Name and version: `churn/3`.
    pub label: String,
    pub model: Arc<Model>,
    /// Names for the features, in order; empty if the model's own will do.
    pub features: Vec<String>,
    pub options: ModelOptions,
    /// The engine that is to run it; `auto` is the first that can.
    pub engine: String,
    /// Whether a model that fails on made-up rows is refused, as it is when it is created.
    pub must_run: bool,
}

impl Predictor {
    /// Prepares the model with the first of `engines` that accepts it, and runs it on made-up rows to learn its outputs,
    /// unless `cancel` ends that.
    ///
    /// # Errors
    /// Options that do not fit the model, a model that no engine can run, outputs that are not one for each row.
    pub(crate) fn prepare(
        request: PredictorRequest,
        engines: &[Arc<dyn Engine>],
        cancel: &CancelToken,
    ) -> Result<Arc<Self>> {
        let PredictorRequest { label, model, features, options, engine: choice, must_run } = &request;
        let declared = &model.signature().inputs;
        let assignments = axes::assignments(label, declared)?;
        let mut inputs = move_axes(axes::with_axis_first, declared, &assignments[0]);
        let feature_names = name_features(label, &mut inputs, features)?;
        // As the graph has them, with the sizes that the names have settled.
        let of_graph = move_axes(axes::with_first_axis_at, &inputs, &assignments[0]);
        let selected = select_outputs(label, model, options)?;
        if options.missing_text.is_some() && !inputs.iter().any(|input| input.element == ElementType::String) {
            bail!(InvalidOption, "model '{label}' takes no texts (option 'missing_text')");
        }

        let of_engine = PrepareRequest {
            // Without the version, which is not known yet when a model is created: its errors are the same then and later.
            label: label.split_once('/').map_or(label.as_str(), |(name, _)| name).to_owned(),
            inputs: of_graph.clone(),
            rows_elsewhere: assignments != [vec![0; declared.len()]],
            features: feature_names.clone().unwrap_or_default(),
            outputs: selected.iter().map(|output| output.name.clone()).collect(),
            device: options.device.unwrap_or_default(),
            chosen: choice != engine::AUTO,
        };
        let runner = choose_engine(label, model, &of_engine, engines, choice)?;

        let mut trial = Trial::new(label, &runner.executable, cancel, options.max_run);
        // What CREATE MODEL has said of the rows is in the catalog: a later load tries no more than it needs.
        let on_dependent = options.on_dependent_rows.unwrap_or_default();
        let compare = *must_run || on_dependent == DependentRows::OneByOne;
        let (axes, dependence) = trial.find_rows(&assignments, &of_graph, &selected, compare)?;
        let inputs = move_axes(axes::with_axis_first, &of_graph, &axes.inputs);
        let observed = trial.observe(&inputs, &axes, &selected)?;
        let health = Health::new(observed.as_ref().ok().map(|observed| observed.size));
        let mut untried = None;
        let outputs = match observed {
            Ok(observed) => observed.outputs,
            // A lookup may know none of the values.
            Err(reason) if *must_run && model.takes_floats_as_they_are() => bail!(
                InvalidModel,
                "model '{label}' fails on made-up rows, and perhaps on others: {reason}; OPTIONS (validate false) creates it without trying it"
            ),
            Err(reason) => {
                untried =
                    Some(format!("it failed on made-up rows, so its types are those that the file declares: {reason}"));
                let first =
                    |(output, axis): (&TensorSpec, &Option<usize>)| axes::with_axis_first(output, axis.unwrap_or(0));
                selected.iter().zip(&axes.outputs).map(first).collect()
            }
        };
        let guessed = assignments.len() > 1 && dependence == Dependence::Unknown;
        let guessed = guessed.then(|| {
            "which dimension is that of the rows can't be told from made-up rows: the most usual one is taken"
                .to_owned()
        });
        let notes = [axes.note(&of_graph, &selected), guessed, untried].into_iter().flatten().collect();
        let fixed_batch = match on_dependent {
            DependentRows::Refuse if dependence == Dependence::Dependent => bail!(
                InvalidModel,
                "model '{label}': the score of a row depends on the rows that are scored with it (option on_dependent_rows 'refuse')"
            ),
            DependentRows::OneByOne if dependence != Dependence::Independent => match fixed_rows(&inputs) {
                Some(rows) if rows > 1 => bail!(
                    InvalidOption,
                    "model '{label}' takes {rows} rows at a time, so they can't be scored one by one (option on_dependent_rows)"
                ),
                _ => Some(1),
            },
            _ => fixed_rows(&inputs),
        };
        let runner = Runner { executable: RowsFirst::around(runner.executable.clone(), &axes), ..runner };
        let columns = output_columns(label, model, options, &outputs)?;
        let return_type = match columns.as_slice() {
            [only] => only.data_type().clone(),
            several => DataType::Struct(struct_fields(several)),
        };
        let of_model = if model.handles_missing_values() { NullPolicy::Nan } else { NullPolicy::Null };
        let null_policy = options.on_null.unwrap_or(of_model);
        let on_cpu = runner.executable.device() == Device::Cpu.to_string(); // where `auto` has chosen, too
        let batch_size = options.batch_size.map_or_else(|| batch_size::choose(model, on_cpu), BatchSize::new);
        Ok(Arc::new(Self {
            call: CallSignature::new(inputs.clone(), feature_names, return_type),
            signature: Signature { inputs, outputs },
            runner,
            fixed_batch,
            health,
            columns,
            null_policy,
            batch_size,
            dependence,
            notes,
            request,
        }))
    }
}

/// The specs with dimensions moved, each by its own axis.
fn move_axes(by: fn(&TensorSpec, usize) -> TensorSpec, specs: &[TensorSpec], axes: &[usize]) -> Vec<TensorSpec> {
    specs.iter().zip(axes).map(|(spec, axis)| by(spec, *axis)).collect()
}

/// The first engine that runs the model, of all or of the one that was chosen; and why those before it do not.
fn choose_engine(
    label: &str,
    model: &Arc<Model>,
    request: &PrepareRequest,
    engines: &[Arc<dyn Engine>],
    choice: &str,
) -> Result<Runner> {
    let candidates = engines.iter().filter(|engine| !request.chosen || engine.name() == choice);
    let mut refusals = vec![];
    for engine in candidates {
        match engine.prepare(model, request).map_err(|error| error.after(&refusals))? {
            Prepared::Ready(executable) => return Ok(Runner { engine: engine.clone(), executable, refusals }),
            Prepared::Refused(reason) => refusals.push(format!("{}: {reason}", engine.name())),
        }
    }
    if refusals.is_empty() {
        let names: Vec<_> = engines.iter().map(|engine| engine.name()).collect();
        bail!(InvalidOption, "predict.engine is '{choice}': expected auto, {}", names.join(", "));
    }
    let refusals = refusals.join("; ");
    match request.chosen {
        true => bail!(InvalidModel, "model '{label}': the engine that predict.engine names can't run it: {refusals}"),
        false => {
            let built = if cfg!(feature = "onnxruntime") {
                ""
            } else {
                "; onnxruntime: this program was built without that feature of datafusion-predict"
            };
            bail!(InvalidModel, "model '{label}': no engine can run it: {refusals}{built}")
        }
    }
}

/// The features' names: those given, or those of the inputs if each is a feature. Names for a matrix of unknown width
/// settle its width.
fn name_features(label: &str, inputs: &mut [TensorSpec], given: &[String]) -> Result<Option<Vec<String>>> {
    let encoder = InputEncoder::new(inputs.to_vec());
    if given.is_empty() {
        let each = encoder.matrix().is_none() || encoder.width() == Some(1);
        return Ok(each.then(|| inputs.iter().map(|input| input.name.clone()).collect()));
    }
    if let Some(twice) = given.iter().enumerate().find(|(i, name)| given[..*i].contains(name)) {
        bail!(InvalidStatement, "model '{label}': feature '{}' is named twice", twice.1);
    }
    match encoder.width() {
        Some(width) if width != given.len() => {
            bail!(InvalidStatement, "model '{label}' takes {width} features, FEATURES names {}", given.len())
        }
        Some(_) => {}
        None => inputs[0].shape[1] = Dimension::Fixed(given.len()),
    }
    Ok(Some(given.to_vec()))
}

/// The outputs that calls give: the one that the options name, or that holds the classes' probabilities, else all.
fn select_outputs(label: &str, model: &Model, options: &ModelOptions) -> Result<Vec<TensorSpec>> {
    let outputs = &model.signature().outputs;
    let names = || outputs.iter().map(|output| output.name.as_str());
    if let Some(wanted) = &options.output {
        let found = outputs.iter().find(|output| output.name == *wanted);
        let found = found.or_else(|| outputs.iter().find(|output| output.name.eq_ignore_ascii_case(wanted)));
        let refused = model.refused_outputs().iter().find(|output| output.name.eq_ignore_ascii_case(wanted));
        return match (found, refused) {
            (Some(output), _) => Ok(vec![output.clone()]),
            (None, Some(refused)) => bail!(InvalidModel, "model '{label}': {}", refused.reason),
            (None, None) => bail!(
                InvalidOption,
                "model '{label}' has no output '{wanted}' (option 'output'): there are {}",
                names().collect::<Vec<_>>().join(", ")
            ),
        };
    }
    let Some(class) = &options.class else {
        if let Some(refused) = model.refused_outputs().first() {
            let names = names().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(" or ");
            bail!(
                InvalidModel,
                "model '{label}': {}; it can be called for another: OPTIONS (output {names})",
                refused.reason
            );
        }
        return Ok(outputs.clone());
    };
    let of_classes = |output: &&TensorSpec| {
        model.zip_map(&output.name).is_some() || (output.element.is_float() && output.shape.len() == 2)
    };
    match outputs.iter().filter(of_classes).collect::<Vec<_>>().as_slice() {
        [only] => Ok(vec![(*only).clone()]),
        _ => bail!(
            InvalidOption,
            "model '{label}': class '{class}' of which output? Name it with the option 'output': {}",
            names().collect::<Vec<_>>().join(", ")
        ),
    }
}

fn output_columns(
    label: &str,
    model: &Model,
    options: &ModelOptions,
    outputs: &[TensorSpec],
) -> Result<Vec<OutputColumn>> {
    let Some(class) = &options.class else {
        return Ok(outputs.iter().map(|output| OutputColumn::new(output, model.zip_map(&output.name))).collect());
    };
    let output = &outputs[0]; // a class selects one output
    let Some(width) = output.row_elements().filter(|_| output.shape.len() == 2) else {
        bail!(InvalidOption, "model '{label}': output '{}' has no classes (option 'class')", output.name);
    };
    let labels = model.class_labels(&output.name).filter(|labels| labels.len() == width);
    let position = match &labels {
        Some(labels) => labels.position(class),
        None => class.parse().ok().filter(|position| *position < width),
    };
    let position = position.ok_or_else(|| {
        let classes = labels.map_or_else(|| format!("0 to {}", width - 1), |labels| labels.to_string());
        error!(InvalidOption, "model '{label}' has no class '{class}' (option 'class'): there are {classes}")
    })?;
    Ok(vec![OutputColumn::class(output, position)])
}
