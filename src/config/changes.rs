//! What differs between two configurations, key by key, in words that hold no secret.

use super::secret::SecretSource;
use super::settings::Config;
use crate::domain::prices;
use secrecy::ExposeSecret;
use std::collections::{BTreeMap, BTreeSet};

impl Config {
    /// What `later` changes of this configuration: `polling.min_interval 15s → 5s`, `webhooks.ops removed`. Values that
    /// are long, or of which nothing may be shown, are only said to have changed.
    pub fn changes_to(&self, later: &Self) -> Vec<String> {
        let (before, after) = (tables(&self.shown_whole()), tables(&later.shown_whole()));
        let mut changes = Vec::new();
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for name in names {
            match (before.get(name), after.get(name)) {
                (Some(_), None) => changes.push(format!("{name} removed")),
                (None, Some(_)) => changes.push(format!("{name} added")),
                (Some(old), Some(new)) => {
                    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
                    let follows = |key: &String| {
                        // What a provider has of `[polling]` changes with it, and that is told once.
                        let general = |tables: &Tables| tables.get("polling")?.get(key).cloned();
                        name.starts_with("providers.")
                            && old.get(key) == general(&before).as_ref()
                            && new.get(key) == general(&after).as_ref()
                    };
                    let differs = |key: &&String| old.get(*key) != new.get(*key) && !follows(key);
                    for key in keys.into_iter().filter(differs) {
                        changes.push(change(&format!("{name}.{key}"), old.get(key), new.get(key)));
                    }
                }
                (None, None) => {}
            }
        }
        if self.prices.list() != later.prices.list() {
            let (before, after) = (self.prices.imported(), later.prices.imported());
            changes.push(format!("{} changed: {before} prices → {after}", prices::FILE_NAME));
        }
        changes.extend(self.hidden_changes(later));
        changes
    }

    /// The keys whose values are not shown and differ: secrets in the file itself, and templates.
    fn hidden_changes(&self, later: &Self) -> Vec<String> {
        let inline = |config: &Self| -> BTreeMap<String, String> {
            let uses = config.secrets().into_iter();
            let text = uses.filter_map(|use_of| match use_of.source {
                SecretSource::Inline(text) => Some((use_of.key, text.expose_secret().to_owned())),
                _ => None,
            });
            text.collect()
        };
        let templates = |config: &Self| -> BTreeMap<String, String> {
            let webhooks = config.webhooks.values();
            let texts = webhooks.filter_map(|webhook| {
                Some((format!("webhooks.{}.template", webhook.name), webhook.template.as_ref()?.text.clone()))
            });
            texts.collect()
        };
        let differing = |old: BTreeMap<String, String>, new: BTreeMap<String, String>| {
            let both = old.into_iter().filter(move |(key, text)| new.get(key).is_some_and(|new| new != text));
            both.map(|(key, _)| format!("{key} changed"))
        };
        let hidden = differing(inline(self), inline(later));
        hidden.chain(differing(templates(self), templates(later))).collect()
    }
}

/// The keys of each table with their values, by the table's name.
type Tables = BTreeMap<String, BTreeMap<String, String>>;

fn tables(page: &str) -> Tables {
    let mut tables = Tables::new();
    let mut table = String::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut table);
            tables.entry(table.clone()).or_default();
        } else if let Some((key, value)) = line.split_once(" = ") {
            tables.entry(table.clone()).or_default().insert(key.to_owned(), value.to_owned());
        }
    }
    tables
}

fn change(key: &str, old: Option<&String>, new: Option<&String>) -> String {
    let bare = |value: &String| {
        let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        inner.filter(|inner| !inner.contains(['"', '\\'])).unwrap_or(value).to_owned()
    };
    let is_short =
        |value: Option<&String>| value.is_none_or(|value| value.chars().count() <= MAX_VALUE_CHARS);
    if !is_short(old) || !is_short(new) {
        return format!("{key} changed");
    }
    match (old.map(bare), new.map(bare)) {
        (Some(old), Some(new)) => format!("{key} {old} → {new}"),
        (None, Some(new)) => format!("{key} set to {new}"),
        (_, None) => format!("{key} removed"),
    }
}

/// A longer value is not repeated.
const MAX_VALUE_CHARS: usize = 60;
