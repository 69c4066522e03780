//! The models of a catalog at one moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::commit::{Action, Commit};
use super::name::{is_a_file, is_name, looks_like_file};
use super::{DEFAULT_ALIAS, Interface, ModelEntry, ModelReference, ModelVersion, Traffic, VersionReference};
use crate::error::{Result, bail, error};

/// What a model's name stands for at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ModelPin {
    pub model: String,
    pub aliases: BTreeMap<String, u64>,
    pub traffic: Option<Traffic>,
}

/// The models of a catalog at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CatalogSnapshot {
    /// How many commits it comes from.
    pub(super) sequence: u64,
    /// All names that there have been: one that was dropped has no versions, but keeps its last number.
    pub(super) models: BTreeMap<String, Arc<ModelEntry>>,
}

impl CatalogSnapshot {
    /// The models, by name.
    pub fn models(&self) -> impl Iterator<Item = &Arc<ModelEntry>> {
        self.models.values().filter(|model| !model.versions.is_empty())
    }

    /// The model `name` (folded).
    pub fn get(&self, name: &str) -> Option<&Arc<ModelEntry>> {
        self.models.get(name).filter(|model| !model.versions.is_empty())
    }

    /// The model `name` (folded).
    ///
    /// # Errors
    /// No such model.
    pub fn model(&self, name: &str) -> Result<&Arc<ModelEntry>> {
        self.get(name).ok_or_else(|| self.unknown(name))
    }

    /// The version that `reference` (`churn`, `churn/3`, `churn@champion`) stands for.
    ///
    /// # Errors
    /// No such name (with the nearest there is), version or alias.
    pub fn lookup(&self, reference: &str) -> Result<&Arc<ModelVersion>> {
        let ModelReference { name, version } = reference.parse()?;
        self.version(&name, &version)
    }

    /// The version of the model `name` (folded) that `reference` stands for.
    ///
    /// # Errors
    /// No such name, version or alias.
    pub fn version(&self, name: &str, reference: &VersionReference) -> Result<&Arc<ModelVersion>> {
        let model = self.model(name)?;
        let number = match reference {
            VersionReference::Number(number) => *number,
            VersionReference::Current => *alias(model, DEFAULT_ALIAS)?,
            VersionReference::Alias(name) => *alias(model, name)?,
        };
        let missing = || match (model.versions.keys().next(), model.versions.keys().next_back()) {
            (Some(first), Some(last)) if first == last => {
                error!(UnknownModel, "model '{name}' has no version {number}: there is {first}")
            }
            (first, last) => error!(
                UnknownModel,
                "model '{name}' has no version {number}: there are {} of them, from {} to {}",
                model.versions.len(),
                first.unwrap_or(&0),
                last.unwrap_or(&0)
            ),
        };
        model.versions.get(&number).ok_or_else(missing)
    }

    /// The versions that calls of `reference` go to, with their shares: several if the bare name's traffic is split.
    ///
    /// # Errors
    /// As [`lookup`](Self::lookup).
    pub fn called(&self, reference: &str) -> Result<Vec<(&Arc<ModelVersion>, u32)>> {
        let ModelReference { name, version } = reference.parse()?;
        let traffic = match version {
            VersionReference::Current => self.model(&name)?.traffic.as_ref(),
            _ => None,
        };
        let Some(traffic) = traffic else {
            return Ok(vec![(self.version(&name, &version)?, 1)]);
        };
        let shares = traffic.shares.iter().filter(|(_, share)| *share > 0);
        shares.map(|(number, share)| Ok((self.version(&name, &VersionReference::Number(*number))?, *share))).collect()
    }

    /// The models as they are here, but for those of `pins`: their names stand for what they stood for then.
    ///
    /// # Errors
    /// A model that is not there any more.
    pub(crate) fn with_pins(&self, pins: &[ModelPin]) -> Result<Self> {
        let mut models = self.models.clone();
        for pin in pins {
            let mut entry = self.model(&pin.model)?.as_ref().clone();
            entry.aliases.clone_from(&pin.aliases);
            entry.traffic.clone_from(&pin.traffic);
            models.insert(pin.model.clone(), Arc::new(entry));
        }
        Ok(Self { sequence: self.sequence, models })
    }

    /// What the name `model` stands for here.
    ///
    /// # Errors
    /// No such model.
    pub(crate) fn pin(&self, model: &str) -> Result<ModelPin> {
        let entry = self.model(model)?;
        Ok(ModelPin { model: model.to_owned(), aliases: entry.aliases.clone(), traffic: entry.traffic.clone() })
    }

    /// The error for a name that is not here.
    pub(crate) fn unknown(&self, name: &str) -> crate::error::Error {
        if looks_like_file(name) {
            return is_a_file(name);
        }
        let near = datafusion_predict_udfs::nearest(name, self.models().map(|model| model.name.as_str()));
        let hint = match near {
            Some(near) => format!("; did you mean '{near}'?"),
            None if self.models().next().is_none() => "; there are no models: make one with CREATE MODEL".to_owned(),
            None => String::new(),
        };
        error!(UnknownModel, "unknown model '{name}'{hint}")
    }

    /// Takes over the next commit. Commits were checked against the state before them when they were made.
    ///
    /// # Errors
    /// A commit that does not fit this state: the log is damaged.
    pub(super) fn apply(&mut self, commit: &Commit) -> Result<()> {
        for (action, entry) in commit.actions.iter().zip(commit.history(self.sequence + 1)) {
            self.take(commit, action).ok_or_else(|| {
                let (sequence, what, model) = (entry.sequence, entry.action, entry.model);
                error!(InvalidCatalog, "commit {sequence} does not fit what was before it: {what} of model '{model}'")
            })?;
        }
        self.sequence += 1;
        Ok(())
    }

    /// `None` if the action is about something that is not there.
    fn take(&mut self, commit: &Commit, action: &Action) -> Option<()> {
        match action {
            Action::CreateVersion { model, version, record, interface } => {
                let last = self.models.get(model).map_or(0, |entry| entry.last_version);
                // What others wrote is not trusted with paths.
                if *version != last + 1 || !record.is_sound() || !is_name(model) {
                    return None;
                }
                let created = ModelVersion {
                    model: model.clone(),
                    version: *version,
                    created_at: commit.at,
                    created_by: commit.by.clone(),
                    record: Arc::new(record.as_ref().clone()),
                    interface: self.shared(model, interface),
                    comment: None,
                    tags: BTreeMap::new(),
                };
                let entry = Arc::make_mut(self.models.entry(model.clone()).or_default());
                entry.name.clone_from(model);
                entry.last_version = *version;
                entry.versions.insert(*version, Arc::new(created));
            }
            Action::DropVersion { model, version } => {
                let entry = self.entry(model)?;
                entry.versions.remove(version)?;
                entry.served.retain(|served| served != version);
            }
            Action::DropModel { model } => {
                let entry = self.entry(model)?;
                *entry =
                    ModelEntry { name: entry.name.clone(), last_version: entry.last_version, ..ModelEntry::default() };
            }
            Action::SetAlias { model, alias, to, .. } => {
                let entry = self.entry(model)?;
                entry.versions.get(to)?;
                entry.aliases.insert(alias.clone(), *to);
                if alias == DEFAULT_ALIAS {
                    entry.serve(*to);
                }
            }
            Action::DropAlias { model, alias, .. } => {
                self.entry(model)?.aliases.remove(alias)?;
            }
            Action::SetComment { model, version, to, .. } => match version {
                None => self.entry(model)?.comment.clone_from(to),
                Some(version) => self.version_mut(model, *version)?.comment.clone_from(to),
            },
            Action::SetTag { model, version, tag, to, .. } => {
                let tags = match version {
                    None => &mut self.entry(model)?.tags,
                    Some(version) => &mut self.version_mut(model, *version)?.tags,
                };
                match to {
                    Some(value) => tags.insert(tag.clone(), value.clone()),
                    None => tags.remove(tag),
                };
            }
            Action::SetTraffic { model, to, .. } => self.entry(model)?.traffic.clone_from(to),
        }
        Some(())
    }

    /// The interface as the model's last version has it, if that is the same.
    fn shared(&self, model: &str, interface: &Interface) -> Arc<Interface> {
        let last = self.models.get(model).and_then(|entry| entry.versions.values().next_back());
        match last.filter(|last| *last.interface == *interface) {
            Some(last) => last.interface.clone(),
            None => Arc::new(interface.clone()),
        }
    }

    fn entry(&mut self, model: &str) -> Option<&mut ModelEntry> {
        let entry = self.models.get_mut(model).filter(|entry| !entry.versions.is_empty())?;
        Some(Arc::make_mut(entry))
    }

    fn version_mut(&mut self, model: &str, version: u64) -> Option<&mut ModelVersion> {
        Some(Arc::make_mut(self.entry(model)?.versions.get_mut(&version)?))
    }
}

fn alias<'a>(model: &'a ModelEntry, alias: &str) -> Result<&'a u64> {
    let Some(number) = model.aliases.get(alias) else {
        let near = datafusion_predict_udfs::nearest(alias, model.aliases.keys().map(String::as_str));
        let hint = match near {
            Some(near) => format!("did you mean '{near}'?"),
            None => format!("there are {}", model.aliases.keys().cloned().collect::<Vec<_>>().join(", ")),
        };
        bail!(UnknownModel, "model '{}' has no alias '{alias}'; {hint}", model.name);
    };
    Ok(number)
}
