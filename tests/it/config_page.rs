//! The reference of the configuration's keys in `docs/configuration.md`, compared with their declarations.

use batchd::config::keys::{Key, Section, Usual};
use batchd::config::{KindFacts, SECTIONS, WebhookFacts};
use batchd::{provider, webhook};
use std::fmt::Write;
use std::fs;

const PAGE: &str = "docs/configuration.md";

/// What stands before it is written by hand.
const MARK: &str = "<!-- Generated from";

/// Set to rewrite the page.
const BLESS: &str = "BATCHD_BLESS";

#[test]
fn the_reference_says_what_is_declared() {
    let page = fs::read_to_string(PAGE).unwrap();
    let generated = page.find(MARK).unwrap();
    let start = generated + page[generated..].find('\n').unwrap() + 1;
    let reference = reference();
    if std::env::var_os(BLESS).is_some() {
        fs::write(PAGE, format!("{}{reference}", &page[..start])).unwrap();
    } else {
        assert_eq!(page[start..], reference, "run this test with {BLESS}=1 to rewrite {PAGE}");
    }
}

#[test]
fn the_severity_that_the_reference_names_is_the_default() {
    let warning: Vec<&str> = webhooks()
        .filter(|facts| facts.severity != batchd::domain::outcome::Severity::Info)
        .map(|facts| facts.name)
        .collect();
    assert_eq!(warning, ["pagerduty"]);
}

fn reference() -> String {
    let mut page = String::new();
    for section in SECTIONS.0 {
        let heading = section.pattern.replace('*', "NAME");
        write!(page, "\n## `[{heading}]`\n\n{}\n\n", section.about.trim()).unwrap();
        let by_kind = section.pattern == "providers.*" || section.pattern == "webhooks.*";
        let kinds = if by_kind { (" kinds |", "---|") } else { ("", "") };
        write!(page, "| key | type | default |{} what it does |\n|---|---|---|{}---|\n", kinds.0, kinds.1)
            .unwrap();
        for key in section.keys() {
            let kinds = if by_kind { format!(" {} |", kinds_of(section, key)) } else { String::new() };
            let (form, default) = ((key.form)(), default(section, key));
            writeln!(page, "| `{}` | {form} | {default} |{kinds} {} |", key.name, key.doc.trim()).unwrap();
        }
        if section.pattern == "providers.*" {
            page.push_str(&kinds_of_providers());
        }
    }
    page
}

fn default(section: &Section, key: &Key) -> String {
    if section.pattern == "providers.*" && SECTIONS.keys_of("polling").contains(&key.name) {
        return "that of `[polling]`".to_owned();
    }
    let variables: Vec<String> = providers()
        .flat_map(|facts| facts.option_env.iter().map(move |(option, variables)| (facts, option, variables)))
        .filter(|(_, option, _)| **option == key.name)
        .map(|(facts, _, variables)| format!("{} for `{}`", in_order(variables), facts.name))
        .collect();
    match (key.usual)() {
        Some(Usual::Value(value)) => format!("`{value}`"),
        Some(Usual::Said(words)) => words,
        None if variables.is_empty() => "none".to_owned(),
        None => variables.join("; "),
    }
}

/// The kinds that take a key, in words.
fn kinds_of(section: &Section, key: &Key) -> String {
    let kinds: Vec<String> = if section.pattern == "providers.*" {
        providers()
            .filter(|facts| match key.name {
                "webhook_secret" => {
                    provider::registry::kind(facts.name).is_some_and(|kind| kind.hook.is_some())
                }
                "auth_token" => !facts.token_env.is_empty(),
                name => facts.options.contains(&name),
            })
            .map(|facts| named(facts.name, facts.required.contains(&key.name)))
            .collect()
    } else {
        webhooks()
            .filter(|facts| match key.name {
                "secret" => facts.signs,
                name => facts.needs.contains(&name) || facts.options.contains(&name),
            })
            .map(|facts| named(facts.name, facts.needs.contains(&key.name)))
            .collect()
    };
    if kinds.is_empty() { "all".to_owned() } else { kinds.join(", ") }
}

fn named(kind: &str, needed: bool) -> String {
    if needed { format!("`{kind}` (needed)") } else { format!("`{kind}`") }
}

fn kinds_of_providers() -> String {
    let mut page =
        "\n### Kinds of providers\n\nThe standard variables of each kind, the first that is set being used, \
                    and its address.\n\n| kind | `api_key` | `base_url` |\n|---|---|---|\n"
            .to_owned();
    for facts in providers() {
        let key = match (facts.key_env, facts.key_optional) {
            ([], true) => "not needed".to_owned(),
            ([], false) => "needed".to_owned(),
            (variables, optional) => {
                format!("{}{}", in_order(variables), if optional { "; not needed" } else { "" })
            }
        };
        let key = match facts.token_env {
            [] => key,
            tokens => format!("{key}; `auth_token`: {}", in_order(tokens)),
        };
        let variable = facts.base_url_env.map(|variable| format!("`${variable}`"));
        let address = facts.base_url.map(|address| format!("`{address}`"));
        let signed = facts.signed_place.map(|place| format!("`{}` with `{}`", place.base_url, place.option));
        let address: Vec<String> = signed.into_iter().chain(variable).chain(address).collect();
        let address = if address.is_empty() { "needed".to_owned() } else { address.join(", else ") };
        writeln!(page, "| `{}` | {key} | {address} |", facts.name).unwrap();
    }
    page
}

/// Environment variables, the first that is set being used.
fn in_order(variables: &[&str]) -> String {
    variables.iter().map(|variable| format!("`${variable}`")).collect::<Vec<_>>().join(", else ")
}

fn providers() -> impl Iterator<Item = &'static KindFacts> {
    provider::registry::KINDS.iter().map(|kind| &kind.facts)
}

fn webhooks() -> impl Iterator<Item = &'static WebhookFacts> {
    webhook::registry::KINDS.iter().map(|kind| &kind.facts)
}
