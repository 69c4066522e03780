//! From a model and its options to a predictor.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion_predict_native::{
    ClassLabels, Dimension, ElementType, Labels, Model, SequenceOutput, Signature, Tensor, TensorSpec,
};

use super::axes::{self, Input, RowAxis};
use super::constant::Constant;
use super::health::Health;
use super::rows_first::RowsFirst;
use super::sizes;
use super::trial::{Dependence, Failure, Trial, fixed_rows};
use super::{BatchSize, Predictor, Runner, batch_size};
use crate::call::{CallSignature, DependentRows, FeatureName, ModelOptions, NullPolicy};
use crate::cancel::CancelToken;
use crate::catalog::Interface;
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
    pub features: Vec<FeatureName>,
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
        let mut graph_inputs = graph_inputs(label, model, options)?;
        let assignments = axes::assignments(label, &graph_inputs)?;
        let (encoder, feature_names) = name_features(label, &mut graph_inputs, &assignments[0], features)?;
        let outputs = select_outputs(label, model, options)?;
        let selected: Vec<_> = outputs.iter().flat_map(|output| output.tensors.clone()).collect();
        let takes = |kind: fn(&TensorSpec) -> bool| encoder.inputs().any(|(input, _)| kind(input));
        if options.missing_text.is_some() && !takes(|input| input.element == ElementType::String) {
            bail!(InvalidOption, "model '{label}' takes no texts (option 'missing_text')");
        }
        let pad = options.pad.unwrap_or(0);
        let cannot_hold = |input: &TensorSpec| match input.element {
            ElementType::UInt8 => pad > u8::MAX.into(),
            ElementType::Int8 => pad > i8::MAX as u32,
            ElementType::Int32 => i32::try_from(pad).is_err(),
            _ => false,
        };
        if let Some((input, _)) = encoder.inputs().find(|(input, _)| cannot_hold(input)) {
            bail!(InvalidOption, "model '{label}': option 'pad' is {pad}, which input {input} can't hold");
        }
        if options.pad.is_some() && options.bytes.is_none() {
            bail!(
                InvalidOption,
                "model '{label}': option 'pad' needs the option 'bytes', which says where bytes are missing"
            );
        }
        if options.bytes.is_some() && !takes(|input| input.row_elements().is_some_and(|length| length > 1)) {
            bail!(InvalidOption, "model '{label}' takes no list of a fixed size (option 'bytes')");
        }

        let of_engine = PrepareRequest {
            // Without the version, which is not known yet when a model is created: its errors are the same then and later.
            label: label.split_once('/').map_or(label.as_str(), |(name, _)| name).to_owned(),
            inputs: graph_inputs.iter().map(|input| input.spec.clone()).collect(),
            rows_elsewhere: assignments != [vec![Some(0); graph_inputs.len()]]
                || graph_inputs.iter().any(|input| input.constant.is_some()),
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
        let (axes, dependence) = trial.find_rows(&assignments, &graph_inputs, &selected, compare)?;
        let (inputs, constants) = of_calls(label, &graph_inputs, &axes.inputs)?;
        let by_rows = RowsFirst::around(runner.executable.clone(), &axes, constants);
        let observed = trial.observe(by_rows.as_ref(), &inputs, &axes, &selected)?;
        let health = Health::new(observed.as_ref().ok().map(|observed| observed.size));
        let row_cost = match &observed {
            Ok(observed) if *must_run => trial.cost(by_rows.as_ref(), &inputs, observed.size)?,
            _ => None,
        };
        let mut untried = None;
        let tensors: Vec<_> = match observed {
            Ok(observed) => observed.outputs,
            // A lookup may know none of the values.
            Err(Failure { reason, was_run: true }) if *must_run && model.takes_floats_as_they_are() => bail!(
                InvalidModel,
                "model '{label}' fails on made-up rows, and perhaps on others: {reason}; OPTIONS (validate false) creates it without trying it"
            ),
            Err(Failure { reason, .. }) => {
                let open = inputs.iter().find_map(|input| {
                    let place = input.row_shape().iter().position(|dim| dim.size().is_none())?;
                    Some(format!("; OPTIONS ({} …) tries it in another size", sizes::name(input, place + 1)))
                });
                let remedy = open.unwrap_or_default();
                untried = Some(format!(
                    "it failed on made-up rows, so its types are those that the file declares: {reason}{remedy}"
                ));
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
        let notes = [axes.note(&graph_inputs, &selected), guessed, untried].into_iter().flatten().collect();
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
        let encoder = encoder.for_inputs(inputs.clone());
        if let (Some(width), Some(names)) = (encoder.width(), &feature_names)
            && width != names.len()
            && names.len() != 1
        {
            bail!(InvalidStatement, "model '{label}' takes {width} features, FEATURES names {}", names.len());
        }
        let runner = Runner { executable: by_rows, ..runner };
        let outputs = with_sizes(outputs, &tensors);
        let columns = output_columns(label, model, options, &outputs)?;
        let outputs = outputs.iter().map(SelectedOutput::spec).collect();
        let return_type = match columns.as_slice() {
            [only] => only.data_type().clone(),
            several => DataType::Struct(struct_fields(several)),
        };
        let of_model = if model.handles_missing_values() { NullPolicy::Nan } else { NullPolicy::Null };
        let null_policy = options.on_null.unwrap_or(of_model);
        let on_cpu = runner.executable.device() == Device::Cpu.to_string(); // where `auto` has chosen, too
        let row_elements = inputs.iter().chain(&tensors).filter_map(TensorSpec::row_elements).max().unwrap_or(1);
        let chosen = || batch_size::choose(model, on_cpu, row_elements);
        let batch_size = options.batch_size.map_or_else(chosen, BatchSize::new);
        Ok(Arc::new(Self {
            call: CallSignature::new(encoder, feature_names, return_type),
            shared: shared(&graph_inputs, &axes.inputs),
            signature: Signature { inputs, outputs },
            runner,
            fixed_batch,
            health,
            tensors,
            columns,
            null_policy,
            batch_size,
            dependence,
            row_cost,
            notes,
            request,
        }))
    }
}

/// The inputs of the graph, with the sizes and the constants that the options give.
fn graph_inputs(label: &str, model: &Model, options: &ModelOptions) -> Result<Vec<Input>> {
    let mut specs = model.signature().inputs.clone();
    for name in options.constants.keys() {
        let same = |spec: &&TensorSpec| spec.name.eq_ignore_ascii_case(name);
        let optional = model.optional_inputs();
        if specs.iter().chain(optional).filter(same).count() > 1 {
            bail!(
                InvalidOption,
                "model '{label}': option 'constant.{name}': several inputs have that name but for its case"
            );
        }
        match (specs.iter().find(same), optional.iter().find(same)) {
            (Some(_), _) => {}
            (None, Some(default)) => specs.push(default.clone()),
            (None, None) => {
                let names: Vec<_> = specs.iter().chain(optional).map(|spec| spec.name.as_str()).collect();
                bail!(
                    InvalidOption,
                    "model '{label}' has no input '{name}' (option 'constant.{name}'): there are {}",
                    names.join(", ")
                );
            }
        }
    }
    sizes::settle(label, &mut specs, &options.sizes)?;
    let inputs = specs.into_iter().map(|spec| {
        let value = options.constants.iter().find(|(name, _)| spec.name.eq_ignore_ascii_case(name));
        let constant = value.map(|(_, value)| Constant::parse(label, &spec, value)).transpose()?;
        Ok(Input { spec, constant })
    });
    let inputs = inputs.collect::<Result<Vec<_>>>()?;
    if inputs.iter().all(|input| input.constant.is_some()) {
        bail!(
            InvalidOption,
            "model '{label}': all its inputs are constants (option 'constant.…'), so no row makes a difference"
        );
    }
    Ok(inputs)
}

/// The inputs that calls give, rows first, and the others' constants, each at the place of its input.
fn of_calls(label: &str, inputs: &[Input], axes: &[RowAxis]) -> Result<(Vec<TensorSpec>, Vec<Option<Tensor>>)> {
    let (mut given, mut constants) = (vec![], vec![]);
    let specs = axes::rows_first(inputs, axes);
    let fixed = fixed_rows(&specs);
    for (input, mut spec) in inputs.iter().zip(specs) {
        match &input.constant {
            Some(constant) => constants.push(Some(constant.row(label, &spec)?)),
            None => {
                // A constant may say how many rows a run takes.
                spec.shape[0] = fixed.map_or(spec.shape[0].clone(), Dimension::Fixed);
                given.push(spec);
                constants.push(None);
            }
        }
    }
    Ok((given, constants))
}

/// What calls of a model see that was not run: as its file declares it, with what FEATURES and OPTIONS say.
///
/// # Errors
/// FEATURES and OPTIONS that do not fit the model.
pub(crate) fn declared_interface(
    label: &str,
    model: &Model,
    features: &[FeatureName],
    options: &ModelOptions,
) -> Result<Interface> {
    let mut inputs = graph_inputs(label, model, options)?;
    // Where the rows are is found out when it runs.
    let first = inputs.iter().map(|input| (!input.spec.shape.is_empty()).then_some(0)).collect();
    let axes = axes::assignments(label, &inputs).map_or(first, |mut assignments| assignments.swap_remove(0));
    let (encoder, names) = name_features(label, &mut inputs, &axes, features)?;
    let outputs = select_outputs(label, model, options)?.iter().map(SelectedOutput::spec).collect();
    let signature = Signature { inputs: encoder.inputs().map(|(input, _)| input.clone()).collect(), outputs };
    Ok(Interface::declared(&signature, &encoder, &names.unwrap_or_default()))
}

/// For each input that calls give, whether all rows of a run share its value.
fn shared(inputs: &[Input], axes: &[RowAxis]) -> Vec<bool> {
    // Where no input has rows, a run has one.
    let alone = axes.iter().all(Option::is_none);
    let given = inputs.iter().zip(axes).filter(|(input, _)| input.constant.is_none());
    given.map(|(_, axis)| axis.is_none() && !alone).collect()
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

/// How arguments fill the inputs, and the features' names: those given, or those of the inputs if each is a feature. Names for
/// the columns of a matrix of unknown width settle its width.
fn name_features(
    label: &str,
    inputs: &mut [Input],
    axes: &[RowAxis],
    given: &[FeatureName],
) -> Result<(InputEncoder, Option<Vec<String>>)> {
    let specs = |inputs: &[Input]| -> Vec<TensorSpec> {
        let specs = axes::rows_first(inputs, axes).into_iter().zip(inputs);
        specs.filter(|(_, input)| input.constant.is_none()).map(|(spec, _)| spec).collect()
    };
    let names: Vec<_> = given.iter().map(|feature| feature.name.clone()).collect();
    if let Some(twice) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
        bail!(InvalidStatement, "model '{label}': feature '{}' is named twice", twice.1);
    }
    if let Some(of) = given
        .iter()
        .filter_map(|feature| feature.input.as_ref())
        .find(|of| !inputs.iter().any(|input| input.constant.is_none() && input.spec.name.eq_ignore_ascii_case(of)))
    {
        let there: Vec<_> = specs(inputs).into_iter().map(|spec| spec.name).collect();
        bail!(InvalidStatement, "model '{label}' has no input '{of}' for FEATURES: there are {}", there.join(", "));
    }
    // The matrices whose columns are named, in the graph's order.
    let mut by_column = vec![];
    for (input, axis) in inputs.iter_mut().zip(axes).filter(|(input, _)| input.constant.is_none()) {
        let of =
            |feature: &&FeatureName| feature.input.as_ref().is_some_and(|of| of.eq_ignore_ascii_case(&input.spec.name));
        let columns = given.iter().filter(of).count();
        by_column.push(columns > 0);
        if columns == 0 {
            continue;
        }
        let (name, rank) = (&input.spec.name, input.spec.shape.len());
        let Some(place) = (0..rank).find(|place| Some(*place) != *axis).filter(|_| rank == 2 && axis.is_some()) else {
            bail!(
                InvalidStatement,
                "model '{label}': FEATURES names columns of '{name}', which is no matrix of rows and columns"
            );
        };
        match &mut input.spec.shape[place] {
            Dimension::Fixed(width) if *width != columns => {
                bail!(
                    InvalidStatement,
                    "model '{label}': FEATURES names {columns} columns of '{name}', which has {width}"
                )
            }
            width => *width = Dimension::Fixed(columns),
        }
    }
    let call_inputs = specs(inputs);
    if by_column.contains(&true) {
        let encoder = InputEncoder::with_columns(call_inputs, by_column);
        // Each input's columns together, in the order of the graph.
        let mut expected = vec![];
        for (input, by_column) in encoder.inputs() {
            let width = if by_column { input.row_elements().unwrap_or(1) } else { 1 };
            expected.extend(std::iter::repeat_n(by_column.then_some(&input.name), width));
        }
        let found: Vec<_> = given.iter().map(|feature| feature.input.as_ref()).collect();
        let same = |(found, expected): (&Option<&String>, &Option<&String>)| match (found, expected) {
            (Some(found), Some(expected)) => found.eq_ignore_ascii_case(expected),
            (found, expected) => found.is_none() && expected.is_none(),
        };
        if found.len() != expected.len() || !found.iter().zip(&expected).all(same) {
            let order: Vec<_> = encoder.inputs().map(|(input, _)| input.name.as_str()).collect();
            bail!(
                InvalidStatement,
                "model '{label}': FEATURES must name what its inputs take in their order, which is {}",
                order.join(", ")
            );
        }
        return Ok((encoder, Some(names)));
    }
    let encoder = InputEncoder::new(call_inputs);
    let inputs_of_calls: Vec<_> = encoder.inputs().map(|(input, _)| input.name.clone()).collect();
    let is_swapped = |(name, input): (&String, &String)| name != input && inputs_of_calls.contains(name);
    if inputs_of_calls.len() > 1 && names.iter().zip(&inputs_of_calls).any(is_swapped) {
        bail!(
            InvalidStatement,
            "model '{label}': FEATURES must name its inputs in their order, which is {}",
            inputs_of_calls.join(", ")
        );
    }
    if names.is_empty() {
        let each = encoder.matrix().is_none() || encoder.width() == Some(1);
        let names = each.then(|| encoder.inputs().map(|(input, _)| input.name.clone()).collect());
        return Ok((encoder, names));
    }
    match encoder.width() {
        // One name for a matrix is that of a list column.
        Some(_) if names.len() == 1 && encoder.matrix().is_some() => Ok((encoder, Some(names))),
        Some(width) if width != names.len() => {
            let (matrix, _) = encoder.inputs().max_by_key(|(input, _)| input.row_elements()).unzip();
            let remedy = match matrix.filter(|_| encoder.matrix().is_none()) {
                Some(matrix) => format!("; those of a matrix are named after it: FEATURES ({} (…), …)", matrix.name),
                None => String::new(),
            };
            bail!(InvalidStatement, "model '{label}' takes {width} features, FEATURES names {}{remedy}", names.len())
        }
        None if names.len() > 1 => {
            let matrix = inputs.iter_mut().zip(axes).find(|(input, _)| input.constant.is_none());
            if let Some((input, axis)) = matrix
                && let Some(place) = (0..input.spec.shape.len()).find(|place| Some(*place) != *axis)
            {
                input.spec.shape[place] = Dimension::Fixed(names.len());
            }
            Ok((InputEncoder::new(specs(inputs)), Some(names)))
        }
        _ => Ok((encoder, Some(names))),
    }
}

/// An output that calls give: a tensor, or a sequence of tensors.
struct SelectedOutput {
    name: String,
    is_sequence: bool,
    tensors: Vec<TensorSpec>,
}

impl SelectedOutput {
    fn tensor(spec: &TensorSpec) -> Self {
        Self { name: spec.name.clone(), is_sequence: false, tensors: vec![spec.clone()] }
    }

    fn sequence(model: &Model, sequence: &SequenceOutput) -> Self {
        let outputs = &model.signature().outputs;
        let parts = sequence.parts.iter().filter_map(|part| outputs.iter().find(|output| output.name == *part));
        Self { name: sequence.name.clone(), is_sequence: true, tensors: parts.cloned().collect() }
    }

    /// What a row's value is; of a sequence, a list of its parts.
    fn spec(&self) -> TensorSpec {
        let first = self.tensors[0].clone();
        if !self.is_sequence {
            return first;
        }
        let same = |place: usize, dim: &Dimension| {
            let equal = self.tensors.iter().all(|part| part.shape.get(place) == Some(dim));
            if equal { dim.clone() } else { Dimension::Dynamic(None) }
        };
        let mut shape: Vec<_> = first.shape.iter().enumerate().map(|(place, dim)| same(place, dim)).collect();
        shape.insert(1.min(shape.len()), Dimension::Fixed(self.tensors.len()));
        TensorSpec { name: self.name.clone(), shape, ..first }
    }
}

/// The outputs with the sizes of `tensors`, which are theirs in order.
fn with_sizes(outputs: Vec<SelectedOutput>, mut tensors: &[TensorSpec]) -> Vec<SelectedOutput> {
    let sized = outputs.into_iter().map(|output| {
        let (these, rest) = tensors.split_at(output.tensors.len());
        tensors = rest;
        SelectedOutput { tensors: these.to_vec(), ..output }
    });
    sized.collect()
}

/// The outputs that calls give: the one that the options name, or that holds the classes' probabilities, else all.
fn select_outputs(label: &str, model: &Model, options: &ModelOptions) -> Result<Vec<SelectedOutput>> {
    let (outputs, sequences) = (&model.signature().outputs, model.sequences());
    let is_part = |output: &&TensorSpec| sequences.iter().any(|sequence| sequence.hidden.contains(&output.name));
    let names = || {
        let tensors = outputs.iter().filter(|output| !is_part(output)).map(|output| output.name.as_str());
        tensors.chain(sequences.iter().map(|sequence| sequence.name.as_str()))
    };
    if let Some(wanted) = &options.output {
        let found = outputs.iter().find(|output| output.name == *wanted);
        let found = found.or_else(|| outputs.iter().find(|output| output.name.eq_ignore_ascii_case(wanted)));
        let sequence = sequences.iter().find(|sequence| sequence.name.eq_ignore_ascii_case(wanted));
        let refused = model.refused_outputs().iter().find(|output| output.name.eq_ignore_ascii_case(wanted));
        return match (found, sequence, refused) {
            (Some(output), _, _) => Ok(vec![SelectedOutput::tensor(output)]),
            (None, Some(sequence), _) => Ok(vec![SelectedOutput::sequence(model, sequence)]),
            (None, None, Some(refused)) => bail!(InvalidModel, "model '{label}': {}", refused.reason),
            (None, None, None) => bail!(
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
        let tensors = outputs.iter().filter(|output| !is_part(output)).map(SelectedOutput::tensor);
        return Ok(tensors.chain(sequences.iter().map(|it| SelectedOutput::sequence(model, it))).collect());
    };
    let of_classes = |output: &&TensorSpec| {
        model.zip_map(&output.name).is_some() || (output.element.is_float() && output.shape.len() == 2)
    };
    match outputs.iter().filter(of_classes).collect::<Vec<_>>().as_slice() {
        [only] => Ok(vec![SelectedOutput::tensor(only)]),
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
    outputs: &[SelectedOutput],
) -> Result<Vec<OutputColumn>> {
    let given = options.labels.as_ref().and_then(|labels| labels.names());
    let given = given.map(|names| ClassLabels::from(names.to_vec()));
    let Some(class) = &options.class else {
        if let Some(labels) = &given {
            check_labels(label, labels, outputs)?;
        }
        let columns = outputs.iter().map(|output| {
            if output.is_sequence {
                return OutputColumn::sequence(&output.name, &output.tensors).ok_or_else(|| {
                    error!(
                        InvalidModel,
                        "model '{label}': output '{}' is a sequence of tensors of several types", output.name
                    )
                });
            }
            let spec = &output.tensors[0];
            let labels = given.as_ref().filter(|labels| OutputColumn::takes_labels(spec, labels));
            let column = OutputColumn::new(spec, labels.or_else(|| model.zip_map(&spec.name)));
            // Classes that the model itself numbers are not counted from 0.
            let own = outputs.iter().find_map(|output| model.class_labels(&output.tensors[0].name));
            Ok(match own {
                Some(ClassLabels { labels: Labels::Ints(numbers) }) if labels.is_some() => column.of_classes(numbers),
                _ => column,
            })
        });
        return columns.collect();
    };
    if outputs[0].is_sequence {
        let name = &outputs[0].name;
        bail!(
            InvalidOption,
            "model '{label}': class '{class}' of which part of '{name}'? A call gives a list of all parts: OPTIONS (output '{name}')"
        );
    }
    let output = &outputs[0].tensors[0]; // a class selects one output
    let Some(width) = output.row_elements().filter(|_| output.shape.len() == 2) else {
        bail!(InvalidOption, "model '{label}': output '{}' has no classes (option 'class')", output.name);
    };
    let labels = given.or_else(|| model.class_labels(&output.name)).filter(|labels| labels.len() == width);
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

/// Checks that the names that the option `labels` gives are those of some output's classes.
fn check_labels(label: &str, labels: &ClassLabels, outputs: &[SelectedOutput]) -> Result<()> {
    let takes =
        |output: &&SelectedOutput| !output.is_sequence && OutputColumn::takes_labels(&output.tensors[0], labels);
    let numbers = |output: &&SelectedOutput| takes(output) && !output.tensors[0].element.is_float();
    if outputs.iter().filter(numbers).count() > 1 {
        bail!(
            InvalidOption,
            "model '{label}': option 'labels': which output is the number of a class? OPTIONS (output '…') names it"
        );
    }
    if let Labels::Strings(names) = &labels.labels
        && let Some((_, twice)) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name))
        && outputs.iter().any(|output| takes(&output) && !numbers(&output))
    {
        bail!(
            InvalidOption,
            "model '{label}': option 'labels' names '{twice}' twice, so a map of scores can't have both"
        );
    }
    if outputs.iter().any(|output| takes(&output)) {
        return Ok(());
    }
    let outputs: Vec<_> =
        outputs.iter().map(|output| format!("'{}' {}", output.name, output.spec().row_type_line())).collect();
    bail!(
        InvalidOption,
        "model '{label}': option 'labels' names {} classes, but no output has a score for each, or the number of one: there are {}",
        labels.len(),
        outputs.join(", ")
    )
}
