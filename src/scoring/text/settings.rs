//! What the files beside a model of texts say of it.
//!
//! Sentence Transformers and Transformers write them; a name that they do not have is no error.

use datafusion_predict_native::Model;
use serde_json::Value;

use crate::call::{ModelOptions, Pooling};
use crate::error::{Result, bail};
use crate::scoring::companions::{json, labels, number};

/// What is known of a model of texts beside its graph.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// Tokens of a text that the library which trained it takes.
    pub max_tokens: Option<usize>,
    /// Positions that the graph knows.
    pub positions: Option<usize>,
    /// The place of a text's first token.
    pub first_position: usize,
    /// Tokens that the graph knows.
    pub vocabulary: Option<usize>,
    /// How the vectors of tokens become that of a text.
    pub pooling: Option<Pooling>,
    /// Whether vectors are divided by their length.
    pub normalize: Option<bool>,
    /// A step behind the graph that is not known here.
    pub unknown_step: Option<String>,
    /// The names of a classifier's labels, in the order of its scores.
    pub labels: Option<Vec<String>>,
    /// Whether its scores are numbers of any kind, and no probabilities.
    pub is_regression: bool,
    /// Whether a text may have several labels: each score is a probability of its own.
    pub is_multi_label: bool,
    /// What kind of model it is, as `architectures` says.
    pub architecture: Option<String>,
}

impl Settings {
    /// Reads the files.
    ///
    /// # Errors
    /// A file that is no JSON; a pooling that is not known.
    pub(super) fn of(label: &str, model: &Model, options: &ModelOptions) -> Result<Self> {
        let file = |name: &str| json(label, model, name);
        let mut settings = Self::default();
        settings.of_transformers(&file("config.json")?);
        // What has no limit says so with a huge number.
        let of_tokenizer = number(&file("tokenizer_config.json")?["model_max_length"]).filter(|most| *most < 1 << 20);
        settings.max_tokens = number(&file("sentence_bert_config.json")?["max_seq_length"]).or(of_tokenizer);
        let pooling = file("1_Pooling/config.json")?;
        if let Value::Array(modules) = file("modules.json")? {
            settings.of_modules(&modules);
        }
        if model.token_table().is_some() {
            settings.normalize = Some(file("config.json")?["normalize"] == true);
            settings.pooling = Some(options.texts.pooling.unwrap_or(Pooling::Mean));
            return Ok(settings);
        }
        settings.pooling = match options.texts.pooling {
            None => pooling_of(label, &pooling)?,
            chosen => chosen,
        };
        Ok(settings)
    }

    /// `config.json`
    fn of_transformers(&mut self, config: &Value) {
        let number = |name: &str| number(&config[name]);
        // Positions of these count from behind that of the padding.
        self.first_position = match config["model_type"].as_str() {
            Some("roberta" | "xlm-roberta" | "camembert" | "mpnet") => {
                number("pad_token_id").unwrap_or(1).saturating_add(1)
            }
            _ => 0,
        };
        self.positions =
            number("max_position_embeddings").map(|positions| positions.saturating_sub(self.first_position));
        self.vocabulary = number("vocab_size");
        self.architecture = config["architectures"][0].as_str().map(str::to_owned);
        self.is_regression = config["problem_type"] == "regression";
        self.is_multi_label = config["problem_type"] == "multi_label_classification";
        self.labels = labels(config);
    }

    /// `modules.json`: what is done with what the graph gives.
    fn of_modules(&mut self, modules: &[Value]) {
        let kinds = modules.iter().filter_map(|module| module["type"].as_str()?.rsplit('.').next());
        self.normalize = Some(false);
        for kind in kinds {
            match kind {
                "Transformer" | "Pooling" => {}
                "Normalize" => self.normalize = Some(true),
                other => self.unknown_step = Some(other.to_owned()),
            }
        }
    }
}

/// `1_Pooling/config.json`
fn pooling_of(label: &str, config: &Value) -> Result<Option<Pooling>> {
    let known = [
        ("pooling_mode_mean_tokens", Pooling::Mean),
        ("pooling_mode_cls_token", Pooling::Cls),
        ("pooling_mode_max_tokens", Pooling::Max),
        ("pooling_mode_lasttoken", Pooling::Last),
    ];
    let Value::Object(modes) = config else { return Ok(None) };
    let chosen: Vec<_> = modes.iter().filter(|(name, on)| name.starts_with("pooling_mode_") && **on == true).collect();
    let pooling = match chosen.as_slice() {
        [] => return Ok(None),
        [(name, _)] => known.iter().find(|(known, _)| known == name).map(|(_, pooling)| *pooling),
        _ => None,
    };
    if pooling.is_none() {
        let names: Vec<_> = chosen.iter().map(|(name, _)| name.as_str()).collect();
        bail!(
            InvalidModel,
            "model '{label}': its pooling is {}, which is not known: OPTIONS (pooling '…') chooses mean, cls, max or last",
            names.join(" and ")
        );
    }
    Ok(pooling)
}
