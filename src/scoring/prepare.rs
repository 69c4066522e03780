//! From a model and its options to a predictor.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion_predict_native::{ElementType, Model, Signature, TensorSpec};

use super::auto;
use super::axes;
use super::features::name_features;
use super::front::Front;
use super::health::Health;
use super::inputs::{graph_inputs, of_calls, shared};
use super::observe::Failure;
use super::outputs::{SelectedOutput, output_columns, select_outputs, with_sizes};
use super::rounding::rounding;
use super::rows_first::RowsFirst;
use super::sizes;
use super::trial::{Dependence, Trial, fixed_rows};
use super::{BatchSize, Predictor, Runner, batch_size};
use crate::call::{CallSignature, DependentRows, FeatureName, ModelOptions, NullPolicy};
use crate::cancel::CancelToken;
use crate::catalog::Interface;
use crate::encode::struct_fields;
use crate::engine::{self, Device, Devices, Engine, Executable, PrepareRequest, Prepared, SeveralDevices};
use crate::error::{Result, bail};

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
    /// The cores that all runs share.
    pub cores: usize,
    /// The device that the options left open and that was chosen when the model was created.
    pub chosen_device: Option<Device>,
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
        if request.options.device == Some(Device::Auto.into()) {
            return auto::prepare(request, engines, cancel);
        }
        let timed = request.must_run;
        Self::prepare_on(request, engines, cancel, timed)
    }

    /// As [`prepare`](Self::prepare), on the first device that an engine chooses if the options name none; learns what a row costs if it
    /// is to be `timed`.
    pub(super) fn prepare_on(
        request: PredictorRequest,
        engines: &[Arc<dyn Engine>],
        cancel: &CancelToken,
        timed: bool,
    ) -> Result<Arc<Self>> {
        let PredictorRequest { label, model, features, options, engine: choice, must_run, .. } = &request;
        let front = Front::of(label, model, options)?;
        let options = front.as_ref().map_or(options, Front::options);
        let mut graph_inputs = match &front {
            Some(front) => front.inputs().to_vec(),
            None => graph_inputs(label, model, options)?,
        };
        let assignments = axes::assignments(label, &graph_inputs)?;
        let (encoder, feature_names) = name_features(label, &mut graph_inputs, &assignments[0], features)?;
        let outputs = match &front {
            Some(front) => front.outputs(label, model)?,
            None => select_outputs(label, model, options)?,
        };
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

        let devices = options.device.clone().unwrap_or_default();
        let of_engine = PrepareRequest {
            // Without the version, which is not known yet when a model is created: its errors are the same then and later.
            label: label.split_once('/').map_or(label.as_str(), |(name, _)| name).to_owned(),
            inputs: graph_inputs.iter().map(|input| input.spec.clone()).collect(),
            rows_elsewhere: assignments != [vec![Some(0); graph_inputs.len()]]
                || graph_inputs.iter().any(|input| input.constant.is_some()),
            features: feature_names.clone().unwrap_or_default(),
            outputs: selected.iter().map(|output| output.name.clone()).collect(),
            device: devices.first(),
            provider_options: options.provider.clone(),
            precision: options.precision,
            max_device_memory: options.max_device_memory.map(|size| size.0),
            chosen: choice != engine::AUTO,
        };
        let of_engine = match &front {
            Some(front) => PrepareRequest {
                inputs: front.graph_inputs(),
                rows_elsewhere: true, // a token is no row
                features: vec![],
                outputs: front.graph_outputs(),
                ..of_engine
            },
            None => of_engine,
        };
        let mut runner = choose_engine(label, model, &of_engine, &devices, engines, choice)?;
        if let Some(front) = &front {
            runner.executable = front.runner(runner.executable);
        }

        // What CREATE MODEL has said of the rows is in the catalog: a later load tries no more than it needs.
        let on_dependent = options.on_dependent_rows.unwrap_or_default();
        let compare = *must_run || on_dependent == DependentRows::OneByOne;
        // Where the rows are, and whether they depend on each other, is told by all of the digits, if there is room for that.
        let exact: Option<Result<Arc<dyn Executable>>> =
            options.precision.filter(|_| compare || assignments.len() > 1).map(|_| {
                let (request, device) = (PrepareRequest { precision: None, ..of_engine }, devices.first().into());
                let exact = choose_engine(label, model, &request, &device, engines, choice)?.executable;
                Ok(front.as_ref().map_or(exact.clone(), |front| front.runner(exact)))
            });
        let no_exact = match &exact {
            Some(Err(error)) => Some(format!("what its option 'precision' changes can't be told: {error}")),
            _ => None,
        };
        let exact: Option<Arc<dyn Executable>> = exact.and_then(Result::ok);
        let trial = Trial::new(label, exact.as_ref().unwrap_or(&runner.executable), cancel, options.max_run);
        let trial = trial.with_digits_of(options.precision.filter(|_| exact.is_none()));
        let mut trial = trial.with(front.as_ref().map(Front::make_up));
        let (axes, dependence) = trial.find_rows(&assignments, &graph_inputs, &selected, compare)?;
        let (inputs, constants) = of_calls(label, &graph_inputs, &axes.inputs)?;
        let exact = exact.clone().map(|exact| RowsFirst::around(exact, &axes, constants.clone()));
        let by_rows = RowsFirst::around(runner.executable.clone(), &axes, constants);
        let observed = trial.observe(by_rows.as_ref(), &inputs, &axes, &selected)?;
        let health = Health::new(observed.as_ref().ok().map(|observed| observed.size));
        let row_cost = match &observed {
            Ok(observed) if timed => trial.cost(by_rows.as_ref(), &inputs, observed.size)?,
            _ => None,
        };
        let rounded = match (&observed, options.precision, exact) {
            (Ok(observed), Some(precision), Some(exact)) => {
                rounding(&trial, precision, by_rows.as_ref(), exact.as_ref(), &inputs, observed.size)?
            }
            _ => None,
        };
        let mut untried = None;
        let tensors: Vec<_> = match observed {
            Ok(observed) => observed.outputs,
            Err(Failure { reason, was_run: true }) if let (true, Some(precision)) = (*must_run, options.precision) => {
                bail!(
                    InvalidModel,
                    "model '{label}' fails on made-up rows with option precision '{precision}', which device '{}' may not have: {reason}",
                    runner.executable.device()
                )
            }
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
        let on_cpu = runner.executable.device() == Device::Cpu.to_string(); // where `auto` has chosen, too
        let no_faster = options.precision.filter(|_| on_cpu).map(|precision| {
            format!("precision '{precision}' makes nothing faster on the CPU, which computes in floats of 32 bits: it rounds the weights, and shows nothing of values that are too large for such floats")
        });
        let hurried = (*must_run && dependence == Dependence::Unknown && trial.is_late()).then(|| {
            "its runs take so long that it was not found out whether the score of a row depends on the rows beside it: nothing of it is remembered"
                .to_owned()
        });
        let guessed = assignments.len() > 1 && dependence == Dependence::Unknown;
        let guessed = guessed.then(|| {
            "which dimension is that of the rows can't be told from made-up rows: the most usual one is taken"
                .to_owned()
        });
        let of_front = front.as_ref().map(|front| front.notes().to_vec()).unwrap_or_default();
        let notes = [axes.note(&graph_inputs, &selected), guessed, hurried, rounded, no_exact, no_faster, untried]
            .into_iter()
            .flatten();
        let notes = notes.chain(of_front).chain(runner.executable.notes()).chain(on_cpu_beside(&runner)).collect();
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
        let columns = match &front {
            Some(front) => front.columns(label, model, &outputs)?,
            None => output_columns(label, model, options, &outputs)?,
        };
        let outputs = outputs.iter().map(SelectedOutput::spec).collect();
        let return_type = match columns.as_slice() {
            [only] => only.data_type().clone(),
            several => DataType::Struct(struct_fields(several)),
        };
        let of_model = if model.handles_missing_values() { NullPolicy::Nan } else { NullPolicy::Null };
        let null_policy = options.on_null.unwrap_or(of_model);
        let row_elements = inputs.iter().chain(&tensors).filter_map(TensorSpec::row_elements).max().unwrap_or(1);
        let batch_size = match (&front, options.batch_size) {
            (Some(front), asked) => front.batch_size(model, asked, on_cpu),
            (None, Some(rows)) => BatchSize::asked(rows, on_cpu),
            (None, None) => batch_size::choose(model, on_cpu, row_elements),
        };
        Ok(Arc::new(Self {
            call: CallSignature::new(encoder, feature_names, return_type),
            shared: shared(&graph_inputs, &axes.inputs),
            signature: Signature { inputs, outputs },
            runner,
            fixed_batch,
            on_cpu,
            remembered: Arc::default(),
            make_up: front.as_ref().map(Front::make_up),
            tokenizer: front.as_ref().and_then(Front::tokenizer),
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

/// The note on nodes that run on the CPU, where others run on a device.
fn on_cpu_beside(runner: &Runner) -> Option<String> {
    let placement = runner.executable.placement().filter(|placement| !placement.on_cpu.is_empty())?;
    let (device, operators) = (runner.executable.device(), placement.operators_on_cpu());
    Some(format!("{placement} nodes run on device '{device}', the others on the CPU: {operators}"))
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
    let front = Front::of(label, model, options)?;
    let mut inputs = match &front {
        Some(front) => front.inputs().to_vec(),
        None => graph_inputs(label, model, options)?,
    };
    // Where the rows are is found out when it runs.
    let first = inputs.iter().map(|input| (!input.spec.shape.is_empty()).then_some(0)).collect();
    let axes = axes::assignments(label, &inputs).map_or(first, |mut assignments| assignments.swap_remove(0));
    let (encoder, names) = name_features(label, &mut inputs, &axes, features)?;
    let outputs = match front {
        Some(front) => front.outputs(label, model)?,
        None => select_outputs(label, model, options)?,
    };
    let outputs = outputs.iter().map(SelectedOutput::spec).collect();
    let signature = Signature { inputs: encoder.inputs().map(|(input, _)| input.clone()).collect(), outputs };
    Ok(Interface::declared(&signature, &encoder, &names.unwrap_or_default()))
}

/// Prepares the model on each of `devices`, where they are several.
fn on_devices(
    engine: &dyn Engine,
    model: &Arc<Model>,
    request: &PrepareRequest,
    devices: &Devices,
) -> Result<Prepared> {
    let mut of_each = vec![];
    for device in devices.iter() {
        match engine.prepare(model, &PrepareRequest { device, ..request.clone() })? {
            Prepared::Ready(executable) => of_each.push(executable),
            refused @ Prepared::Refused(_) => return Ok(refused),
        }
    }
    Ok(Prepared::Ready(match <[_; 1]>::try_from(of_each) {
        Ok([only]) => only,
        Err(of_each) => Arc::new(SeveralDevices::new(&request.label, devices.clone(), of_each)),
    }))
}

/// The first engine that runs the model, of all or of the one that was chosen; and why those before it do not.
fn choose_engine(
    label: &str,
    model: &Arc<Model>,
    request: &PrepareRequest,
    devices: &Devices,
    engines: &[Arc<dyn Engine>],
    choice: &str,
) -> Result<Runner> {
    let candidates = engines.iter().filter(|engine| !request.chosen || engine.name() == choice);
    let mut refusals = vec![];
    for engine in candidates {
        match on_devices(engine.as_ref(), model, request, devices).map_err(|error| error.after(&refusals))? {
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
