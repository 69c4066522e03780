//! What a statement asks of a catalog, checked against what is there.

use std::sync::Arc;

use super::commit::Action;
use super::{
    CatalogSnapshot, DEFAULT_ALIAS, Interface, ModelEntry, ModelVersion, Traffic, VersionRecord, VersionReference,
};
use crate::error::{Result, bail};

/// A change of a catalog. It is checked against the state that it is committed on, whoever else writes meanwhile.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Change {
    /// A new version of a model.
    Create {
        /// The folded name.
        model: String,
        /// The version.
        record: Box<VersionRecord>,
        /// What a call of it sees.
        interface: Box<Interface>,
        /// Whether the model may be there already.
        replace: bool,
        /// Whether the name stands for this version from now on; the first version's always does.
        activate: bool,
        /// Whether callers may notice another signature than that of the version that the name stands for.
        allow_signature_change: bool,
    },
    /// A model goes, with all its versions.
    DropModel {
        /// The folded name.
        model: String,
    },
    /// One version goes. No alias and no traffic may point to it.
    DropVersion {
        /// The folded name.
        model: String,
        /// Its number.
        version: u64,
    },
    /// Aliases point to versions from now on, all at once.
    SetAliases {
        /// The folded name.
        model: String,
        /// Each alias, and what it is to stand for.
        aliases: Vec<(String, VersionReference)>,
    },
    /// An alias goes.
    DropAlias {
        /// The folded name.
        model: String,
        /// The alias.
        alias: String,
    },
    /// The name stands for an earlier version again.
    Rollback {
        /// The folded name.
        model: String,
        /// The version, or the one that the name stood for before.
        to: Option<VersionReference>,
    },
    /// What is said of a model or of a version.
    SetComment {
        /// The folded name.
        model: String,
        /// The version, if it is about one.
        version: Option<VersionReference>,
        /// The comment, or none.
        comment: Option<String>,
    },
    /// Notes on a model or on a version.
    SetTags {
        /// The folded name.
        model: String,
        /// The version, if it is about one.
        version: Option<VersionReference>,
        /// Each tag, and its value, or none.
        tags: Vec<(String, Option<String>)>,
    },
    /// Calls by the bare name are split.
    SetTraffic {
        /// The folded name.
        model: String,
        /// Between which versions; `None` ends it.
        traffic: Option<Traffic>,
    },
}

impl Change {
    /// The model that it is about.
    pub fn model(&self) -> &str {
        match self {
            Self::Create { model, .. }
            | Self::DropModel { model }
            | Self::DropVersion { model, .. }
            | Self::SetAliases { model, .. }
            | Self::DropAlias { model, .. }
            | Self::Rollback { model, .. }
            | Self::SetComment { model, .. }
            | Self::SetTags { model, .. }
            | Self::SetTraffic { model, .. } => model,
        }
    }

    /// Whether `state` allows it; it may not any more when it is committed.
    ///
    /// # Errors
    /// A change that does not fit.
    pub fn check(&self, state: &CatalogSnapshot) -> Result<()> {
        self.actions(state).map(drop)
    }

    /// The steps of this change on `state`; none if it changes nothing.
    ///
    /// # Errors
    /// A change that `state` does not allow.
    pub(super) fn actions(&self, state: &CatalogSnapshot) -> Result<Vec<Action>> {
        match self {
            Self::Create { model, record, interface, replace, activate, allow_signature_change } => {
                let existing = state.get(model);
                if existing.is_some() && !replace {
                    bail!(ModelExists, "model '{model}' exists already: CREATE OR REPLACE MODEL makes a new version");
                }
                let current = existing.and_then(|entry| entry.default_version());
                if let Some(current) = current.filter(|_| !allow_signature_change)
                    && let Some(difference) = current.interface.difference(interface)
                {
                    bail!(
                        InvalidModel,
                        "model '{model}': the new version does not fit in the place of version {}: {difference}; OPTIONS (allow_signature_change true) makes it all the same",
                        current.version
                    );
                }
                let version = state.models.get(model).map_or(0, |entry| entry.last_version) + 1;
                let (record, interface) = (record.clone(), interface.clone());
                let mut actions = vec![Action::CreateVersion { model: model.clone(), version, record, interface }];
                let from = current.map(|current| current.version);
                if *activate || from.is_none() {
                    actions.push(set_alias(model, DEFAULT_ALIAS, from, version));
                    actions.extend(existing.iter().flat_map(|entry| end_traffic(model, entry)));
                }
                Ok(actions)
            }
            Self::DropModel { model } => {
                state.model(model)?;
                Ok(vec![Action::DropModel { model: model.clone() }])
            }
            Self::DropVersion { model, version } => {
                let found = state.version(model, &VersionReference::Number(*version))?.version;
                let entry = state.model(model)?;
                let aliases: Vec<_> = entry.aliases_of(found).map(|alias| format!("'{alias}'")).collect();
                if !aliases.is_empty() {
                    let s = if aliases.len() == 1 { "alias" } else { "aliases" };
                    let points = if aliases.len() == 1 { "points" } else { "point" };
                    bail!(
                        InvalidStatement,
                        "model '{model}': version {version} can't be dropped: the {s} {} {points} to it",
                        aliases.join(", ")
                    );
                }
                if let Some(traffic) = entry.traffic.as_ref().filter(|t| t.shares.iter().any(|(v, _)| v == version)) {
                    bail!(
                        InvalidStatement,
                        "model '{model}': version {version} can't be dropped: it has a share of the traffic ({traffic})"
                    );
                }
                Ok(vec![Action::DropVersion { model: model.clone(), version: *version }])
            }
            Self::SetAliases { model, aliases } => {
                let entry = state.model(model)?;
                let mut actions = vec![];
                for (i, (alias, target)) in aliases.iter().enumerate() {
                    if aliases[..i].iter().any(|(before, _)| before == alias) {
                        bail!(InvalidStatement, "model '{model}': alias '{alias}' is set twice");
                    }
                    let to = state.version(model, target)?.version;
                    let from = entry.aliases.get(alias).copied();
                    if from != Some(to) {
                        actions.push(set_alias(model, alias, from, to));
                    }
                    if alias == DEFAULT_ALIAS {
                        actions.extend(end_traffic(model, entry));
                    }
                }
                Ok(actions)
            }
            Self::DropAlias { model, alias } => {
                let version = state.version(model, &VersionReference::Alias(alias.clone()))?;
                if alias == DEFAULT_ALIAS {
                    bail!(
                        InvalidStatement,
                        "model '{model}': the alias 'default' is what the bare name stands for, and can only be moved"
                    );
                }
                Ok(vec![Action::DropAlias { model: model.clone(), alias: alias.clone(), from: version.version }])
            }
            Self::Rollback { model, to } => {
                let entry = state.model(model)?;
                let current = state.version(model, &VersionReference::Current)?.version;
                let to = match to {
                    Some(reference) => state.version(model, reference)?.version,
                    None => match entry.served.iter().rev().find(|served| **served != current) {
                        Some(before) => *before,
                        None => bail!(
                            InvalidStatement,
                            "model '{model}' has stood for no version before {current}: name one, as in ROLLBACK MODEL {model} TO {current}"
                        ),
                    },
                };
                let mut actions = end_traffic(model, entry);
                if to != current {
                    actions.push(set_alias(model, DEFAULT_ALIAS, Some(current), to));
                }
                Ok(actions)
            }
            Self::SetComment { model, version, comment } => {
                let (version, from) = match version {
                    None => (None, state.model(model)?.comment.clone()),
                    Some(reference) => {
                        let version = state.version(model, reference)?;
                        (Some(version.version), version.comment.clone())
                    }
                };
                if from == *comment {
                    return Ok(vec![]);
                }
                Ok(vec![Action::SetComment { model: model.clone(), version, from, to: comment.clone() }])
            }
            Self::SetTags { model, version, tags } => {
                let (version, before) = match version {
                    None => (None, &state.model(model)?.tags),
                    Some(reference) => {
                        let version = state.version(model, reference)?;
                        (Some(version.version), &version.tags)
                    }
                };
                let mut actions = vec![];
                for (i, (tag, to)) in tags.iter().enumerate() {
                    if tags[..i].iter().any(|(other, _)| other == tag) {
                        bail!(InvalidStatement, "model '{model}': tag '{tag}' is set twice");
                    }
                    let from = before.get(tag).cloned();
                    if from.is_none() && to.is_none() {
                        let there = before.keys().cloned().collect::<Vec<_>>().join(", ");
                        let there = if there.is_empty() { "none".to_owned() } else { there };
                        bail!(InvalidStatement, "model '{model}' has no tag '{tag}': there are {there}");
                    }
                    if from != *to {
                        let (model, tag, to) = (model.clone(), tag.clone(), to.clone());
                        actions.push(Action::SetTag { model, version, tag, from, to });
                    }
                }
                Ok(actions)
            }
            Self::SetTraffic { model, traffic } => {
                let entry = state.model(model)?;
                let traffic = &traffic.as_ref().map(|traffic| checked_traffic(state, model, traffic)).transpose()?;
                if entry.traffic == *traffic {
                    return Ok(vec![]);
                }
                let from = entry.traffic.clone();
                Ok(vec![Action::SetTraffic { model: model.clone(), from, to: traffic.clone() }])
            }
        }
    }
}

fn set_alias(model: &str, alias: &str, from: Option<u64>, to: u64) -> Action {
    Action::SetAlias { model: model.to_owned(), alias: alias.to_owned(), from, to }
}

/// Who moves the name wants all calls to follow.
fn end_traffic(model: &str, entry: &ModelEntry) -> Vec<Action> {
    let from = entry.traffic.clone();
    from.map(|from| Action::SetTraffic { model: model.to_owned(), from: Some(from), to: None }).into_iter().collect()
}

/// A split needs versions that are there, that give predictions of one type, and that know the feature, by its exact name
/// or by a unique match without case.
fn checked_traffic(state: &CatalogSnapshot, model: &str, traffic: &Traffic) -> Result<Traffic> {
    let Traffic { shares, mut by } = traffic.clone();
    if shares.iter().all(|(_, share)| *share == 0) {
        bail!(InvalidStatement, "model '{model}': no version has a share of the traffic");
    }
    let mut first: Option<&Arc<ModelVersion>> = None;
    for (i, (number, _)) in shares.iter().enumerate() {
        if shares[..i].iter().any(|(before, _)| before == number) {
            bail!(InvalidStatement, "model '{model}': version {number} has two shares of the traffic");
        }
        let version = state.version(model, &VersionReference::Number(*number))?;
        let interface = &version.interface;
        let names = || interface.features.iter().filter_map(|feature| feature.name.as_deref());
        if let (None, Some(wanted)) = (first, &mut by)
            && !names().any(|name| name == wanted)
            && let [name] = names().filter(|name| name.eq_ignore_ascii_case(wanted)).collect::<Vec<_>>().as_slice()
        {
            *wanted = (*name).to_owned();
        }
        let first = first.get_or_insert(version);
        if let (Some(one), Some(other)) = (&first.interface.returns, &interface.returns)
            && one != other
        {
            bail!(
                InvalidStatement,
                "model '{model}': its traffic can't be split: version {} gives {one}, version {number} {other}",
                first.version
            );
        }
        let named = |version: &ModelVersion| version.interface.features.iter().any(|feature| feature.name.is_some());
        if named(first) != named(version) {
            bail!(
                InvalidStatement,
                "model '{model}': its traffic can't be split: of the versions {} and {number}, one names its features, one does not",
                first.version
            );
        }
        if let Some(by) = &by
            && !names().any(|name| name == by)
        {
            let near = datafusion_predict_udfs::nearest(by, names());
            let near = near.map(|near| format!("; did you mean '{near}'?")).unwrap_or_default();
            bail!(InvalidStatement, "model '{model}': version {number} has no feature '{by}'{near}");
        }
    }
    Ok(Traffic { shares, by })
}
