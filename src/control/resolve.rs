//! Which batch an id means (`docs/contract.md#ids`): pure rules over what is configured and what is known.

use super::api::ErrorCode;
use super::api_error::ApiError;
use crate::config::Config;
use crate::domain::tracked::BatchKey;
use crate::provider;
use percent_encoding::percent_decode_str;

/// A configured provider, as far as ids go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub name: String,
    pub kind: String,
}

/// `id` as it stands in the path of a request, if it may be sent on to a provider as one.
///
/// Services may resolve steps in a path again after they have decoded it, some twice; no service's ids look like that.
pub fn judged(id: &str) -> Result<&str, ApiError> {
    let refused = |why: &str| Err(ApiError::invalid(format!("the id {why}")).param("id"));
    // Files in a storage service have addresses.
    let path = STORES.iter().find_map(|scheme| id.split_once(scheme)).map_or(id, |(_, rest)| rest);
    if path.contains(|c: char| c.is_control() || matches!(c, '\\' | '?' | '#' | '%')) {
        return refused("holds a character that no id has");
    }
    if path.split(['/', ':']).any(|step| matches!(step, "." | "..")) {
        return refused("has a relative path in it");
    }
    if path.split('/').any(str::is_empty) || path.contains(":/") {
        return refused("has an empty step in it");
    }
    Ok(id)
}

/// `text` if it may stand for a batch in a path: a name or the address of a page may hold more than an id.
pub fn judged_text(text: &str) -> Result<&str, ApiError> {
    let again = percent_encoding::percent_decode_str(text).decode_utf8_lossy();
    for form in [text, &again] {
        let leaves = form.split(['/', ':']).any(|step| matches!(step, "." | ".."));
        if leaves || form.contains(|c: char| c.is_control() || c == '\\') {
            return judged(text).and(Err(ApiError::invalid("the id holds what no id has").param("id")));
        }
    }
    Ok(text)
}

/// What the addresses of files begin with, where results are kept in a storage service.
const STORES: &[&str] = &["gs://", "s3://"];

/// Splits `PROVIDER:ID` where the prefix names a provider; ids themselves may hold colons.
pub fn split(text: &str, is_provider: impl Fn(&str) -> bool) -> (Option<&str>, &str) {
    match text.split_once(':') {
        Some((prefix, id)) if is_provider(prefix) => (Some(prefix), id),
        _ => (None, text),
    }
}

/// The batch that is already known under `id`, at the `providers` that have it; `None` if none has.
pub fn known(id: &str, providers: &[String]) -> Result<Option<BatchKey>, ApiError> {
    match providers {
        [] => Ok(None),
        [provider] => Ok(Some(BatchKey { provider: provider.clone(), id: id.to_owned() })),
        several => Err(ambiguous(
            format!("`{id}` is tracked at several providers"),
            id,
            several.iter().map(String::as_str),
        )),
    }
}

/// The one of `found` that a name or the beginning of an id means; `None` if nothing was found.
pub(super) fn only<T>(
    text: &str,
    mut found: Vec<T>,
    about: impl Fn(&T) -> String,
) -> Result<Option<T>, ApiError> {
    if found.len() < 2 {
        return Ok(found.pop());
    }
    let more = if found.len() > MAX_CANDIDATES { ", and more" } else { "" };
    let candidates: Vec<String> = found.iter().take(MAX_CANDIDATES).map(about).collect();
    Err(ApiError::new(ErrorCode::AmbiguousId, format!("`{text}` means several batches"))
        .param("id")
        .hint(format!("write which one: {}{more}", candidates.join(", "))))
}

/// How many candidates an error names.
pub(super) const MAX_CANDIDATES: usize = 10;

/// The beginnings of ids that `text` may be, given how it would be written at each provider (`forms`).
pub(super) fn beginnings(text: &str, forms: impl IntoIterator<Item = String>) -> Vec<String> {
    if text.chars().count() < MIN_BEGINNING {
        return Vec::new();
    }
    std::iter::once(text.to_owned()).chain(forms).collect()
}

/// A shorter text is no beginning of an id: too many ids begin so.
const MIN_BEGINNING: usize = 6;

/// Whether `text` is the address of a web page.
pub fn is_address(text: &str) -> bool {
    text.starts_with("https://") || text.starts_with("http://")
}

/// What in the address of a page may be the id of a batch: the steps of its path and the values behind it.
pub(super) fn ids_in(address: &str) -> Vec<String> {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let pieces = rest.split(['/', '?', '&', '=', '#']).skip(1).filter(|piece| piece.len() >= MIN_BEGINNING);
    let decode = |piece: &str| percent_decode_str(piece).decode_utf8_lossy().into_owned();
    let mut ids: Vec<String> = pieces.take(MAX_PIECES).map(decode).collect();
    // The last that fits is the most special one.
    ids.reverse();
    ids
}

/// So many pieces of an address are looked up.
const MAX_PIECES: usize = 16;

/// `address` as it may have been recorded: with and without what stands behind the path.
pub(super) fn forms_of_address(address: &str) -> Vec<String> {
    let without_fragment = address.split('#').next().unwrap_or(address);
    let without_query = without_fragment.split('?').next().unwrap_or(address);
    let mut forms: Vec<String> = Vec::new();
    for form in [address, without_fragment, without_query] {
        for form in [form, form.trim_end_matches('/')] {
            if !forms.iter().any(|known| known == form) {
                forms.push(form.to_owned());
            }
        }
    }
    forms
}

/// The provider that a new, bare `id` goes to.
pub fn place(id: &str, configured: &[Candidate]) -> Result<BatchKey, ApiError> {
    let key = |candidate: &Candidate| BatchKey { provider: candidate.name.clone(), id: id.to_owned() };
    match configured {
        [] => {
            return Err(ApiError::new(ErrorCode::UnknownProvider, "no provider is configured").hint(
                "set a key such as OPENAI_API_KEY in the daemon's environment, or write a [providers.NAME] table",
            ));
        }
        [only] => return Ok(key(only)),
        _ => {}
    }
    let claiming: Vec<&str> = provider::registry::KINDS
        .iter()
        .filter(|kind| (kind.claims)(id))
        .map(|kind| kind.facts.name)
        .collect();
    let fitting: Vec<&Candidate> =
        configured.iter().filter(|candidate| claiming.contains(&candidate.kind.as_str())).collect();
    match fitting.as_slice() {
        [one] => Ok(key(one)),
        [] => {
            let what = if claiming.is_empty() {
                format!("the id `{id}` does not show which provider has it")
            } else {
                let kinds = claiming.join(" or ");
                format!("`{id}` looks like a batch of kind {kinds}, and no such provider is configured")
            };
            let refusal = ambiguous(what, id, configured.iter().map(|candidate| candidate.name.as_str()));
            Err(match id.split_once(':') {
                Some((prefix, _)) => refusal.hint(format!("no provider `{prefix}` is configured")),
                None => refusal,
            })
        }
        several => Err(ambiguous(
            format!("`{id}` could belong to several providers"),
            id,
            several.iter().map(|candidate| candidate.name.as_str()),
        )),
    }
}

/// The configured providers, as far as ids go.
pub(super) fn candidates(config: &Config) -> Vec<Candidate> {
    config
        .providers
        .values()
        .map(|provider| Candidate { name: provider.name.clone(), kind: provider.kind.clone() })
        .collect()
}

/// Whether some kind's ids have this shape.
pub(super) fn is_claimed(id: &str) -> bool {
    provider::registry::KINDS.iter().any(|kind| (kind.claims)(id))
}

/// Whether `text` can be the id of a batch at all.
pub(super) fn is_an_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_TEXT && !text.chars().any(char::is_control) && !is_address(text)
}

/// The error for a provider that is not configured.
pub(super) fn no_such_provider(name: &str, config: &Config) -> ApiError {
    let known: Vec<&str> = config.providers.keys().map(String::as_str).collect();
    ApiError::new(ErrorCode::UnknownProvider, format!("no provider `{name}` is configured"))
        .param("provider")
        .hint(if known.is_empty() {
            "no providers are configured; set a key such as OPENAI_API_KEY in the daemon's environment"
                .to_owned()
        } else {
            format!("configured: {}", known.join(", "))
        })
}

fn ambiguous<'a>(what: String, id: &str, names: impl Iterator<Item = &'a str>) -> ApiError {
    let choices: Vec<String> = names.map(|name| format!("{name}:{id}")).collect();
    ApiError::new(ErrorCode::AmbiguousId, what)
        .param("id")
        .hint(format!("write which one: {}", choices.join(" or ")))
}

/// Ids, names and labels that are longer are somebody's mistake.
pub(super) const MAX_TEXT: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_in_a_path_leads_nowhere_else() {
        for good in [
            "batch_1",
            "openai:batch_1",
            "batches/a-b",
            "arn:aws:bedrock:eu-west-1:1:model-invocation-job/x",
            "projects/1/locations/l/batchPredictionJobs/2",
            "gs://bucket/a/b.jsonl",
            "results:gem:batches/a",
            "a..b",
            "a b",
        ] {
            assert_eq!(judged(good).unwrap(), good);
        }
        for bad in [
            "",
            "..",
            ".",
            "../models",
            "a/../b",
            "openai:../models",
            "openai:..",
            "a//b",
            "/a",
            "a/",
            "openai:/a",
            "a\\b",
            "a?b",
            "a#b",
            "%2e%2e",
            "..%2Fmodels",
            "a\nb",
            "a\0b",
            "a\u{85}b",
            "gs://bucket/../b",
            "gs://b//c",
        ] {
            assert!(judged(bad).is_err(), "{bad:?}");
        }
    }

    fn candidates(names: &[(&str, &str)]) -> Vec<Candidate> {
        names.iter().map(|(name, kind)| Candidate { name: (*name).into(), kind: (*kind).into() }).collect()
    }

    #[test]
    fn a_prefix_counts_only_if_it_names_a_provider() {
        let is_provider = |name: &str| name == "openai";
        assert_eq!(split("openai:batch_1", is_provider), (Some("openai"), "batch_1"));
        assert_eq!(split("arn:aws:bedrock:x", is_provider), (None, "arn:aws:bedrock:x"));
        // What is missing behind it is said by whoever needs it.
        assert_eq!(split("openai:", is_provider), (Some("openai"), ""));
    }

    #[test]
    fn a_known_id_means_the_batch_that_has_it() {
        assert_eq!(known("b", &[]), Ok(None));
        assert_eq!(known("b", &["openai".into()]).unwrap().unwrap().provider, "openai");
        let refusal = known("b", &["openai".into(), "eu".into()]).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::AmbiguousId);
        assert!(refusal.hints[0].contains("openai:b or eu:b"), "{refusal:?}");
    }

    #[test]
    fn of_several_that_are_called_so_the_error_names_some() {
        let about = |id: &u32| format!("openai:{id}");
        assert_eq!(only("x", Vec::new(), about), Ok(None));
        assert_eq!(only("x", vec![7], about), Ok(Some(7)));
        let refusal = only("nightly", vec![7, 8], about).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::AmbiguousId);
        assert_eq!(refusal.hints, ["write which one: openai:7, openai:8"]);
        let refusal = only("nightly", (0..11).collect(), about).unwrap_err();
        assert!(refusal.hints[0].ends_with("openai:9, and more"), "{refusal:?}");
    }

    #[test]
    fn the_beginning_of_an_id_has_six_characters() {
        assert!(beginnings("batch", []).is_empty());
        assert_eq!(beginnings("batch_", ["batches/batch_".to_owned()]), ["batch_", "batches/batch_"]);
    }

    #[test]
    fn the_address_of_a_page_holds_the_id() {
        let ids = ids_in("https://platform.openai.com/batches/batch_68fd8e2f?project=proj_1#top");
        assert_eq!(ids, ["proj_1", "project", "batch_68fd8e2f", "batches"]);
        let arn = "https://eu-west-1.console.aws.amazon.com/bedrock/home?region=eu-west-1#/batch-inference/arn%3Aaws%3Ax%2Fy";
        assert_eq!(ids_in(arn)[0], "arn:aws:x/y");
        assert_eq!(
            forms_of_address("https://a/b/?x#y"),
            ["https://a/b/?x#y", "https://a/b/?x", "https://a/b/", "https://a/b"]
        );
        assert!(!is_an_id("https://a/b") && is_an_id("gs://a/b"));
    }

    #[test]
    fn the_only_provider_takes_any_id() {
        assert_eq!(place("whatever", &candidates(&[("x", "openai-compatible")])).unwrap().provider, "x");
        assert_eq!(place("b", &[]).unwrap_err().code, ErrorCode::UnknownProvider);
    }

    #[test]
    fn the_shape_of_an_id_decides_between_several() {
        let configured = candidates(&[("openai", "openai"), ("claude", "anthropic"), ("mistral", "mistral")]);
        let provider = |id: &str| place(id, &configured).map(|key| key.provider);
        assert_eq!(provider("batch_6a1f0c2b9d3e4f5a8b7c6d5e4f3a2b1c").unwrap(), "openai");
        assert_eq!(provider("msgbatch_01Q2w3E4r5T6y7U8i9O0pAsD").unwrap(), "claude");
        // Other services have UUIDs too; of those that are configured, one.
        assert_eq!(provider("3f1e2d4c-5b6a-4978-8899-aabbccddeeff").unwrap(), "mistral");
        let refusal = place("batch_0f3a2b1c-9d8e-4f7a-8b6c-5d4e3f2a1b0c", &configured).unwrap_err();
        assert!(refusal.message.contains("of kind azure-openai or "), "{refusal:?}");
        assert_eq!(provider("batches/ab12").unwrap_err().code, ErrorCode::AmbiguousId);
        let refusal = place("opnai:batch_1", &configured).unwrap_err();
        assert!(refusal.hints[1].contains("no provider `opnai`"), "{refusal:?}");
        let two = candidates(&[("a", "anthropic"), ("b", "anthropic")]);
        let refusal = place("msgbatch_01Q2w3E4r5T6y7U8i9O0pAsD", &two).unwrap_err();
        assert!(refusal.hints[0].contains("a:msgbatch_01Q2w3E4r5T6y7U8i9O0pAsD or b:"), "{refusal:?}");
    }

    #[test]
    fn a_shape_that_several_services_have_decides_only_if_one_of_them_is_configured() {
        const UUID: &str = "3f1e2d4c-5b6a-4978-8899-aabbccddeeff";
        const PREFIXED: &str = "batch_0f3a2b1c-9d8e-4f7a-8b6c-5d4e3f2a1b0c";
        let at = |id: &str, kinds: &[&str]| {
            let configured: Vec<_> = kinds.iter().map(|kind| (*kind, *kind)).collect();
            place(id, &candidates(&configured)).map(|key| key.provider).map_err(|refusal| {
                assert_eq!(refusal.code, ErrorCode::AmbiguousId);
                refusal.hints[0].clone()
            })
        };
        assert_eq!(at(UUID, &["openai", "together"]), Ok("together".to_owned()));
        assert_eq!(at(UUID, &["groq", "doubleword"]), Ok("doubleword".to_owned()));
        let hint = at(UUID, &["openai", "mistral", "together", "doubleword"]).unwrap_err();
        assert!(hint.ends_with(&format!("mistral:{UUID} or together:{UUID} or doubleword:{UUID}")), "{hint}");
        assert!(!hint.contains("openai"), "{hint}");
        assert_eq!(at(PREFIXED, &["openai", "groq", "azure-openai"]), Ok("azure-openai".to_owned()));
        let hint = at(PREFIXED, &["openai", "azure-openai", "dashscope"]).unwrap_err();
        assert!(hint.ends_with(&format!("azure-openai:{PREFIXED} or dashscope:{PREFIXED}")), "{hint}");
        // Neither a name without a shape nor a gateway, which may have any id, stands in the way of a shape.
        let ulid = "batch_01ka2b3c4d5e6f7g8h9j0k1m2n";
        assert_eq!(at(ulid, &["openai", "moonshot", "litellm", "groq"]), Ok("groq".to_owned()));
        let routed = "batch_bGl0ZWxsbTpiYXRjaF8xMjM7bW9kZWwsZ3B0LTRv";
        assert_eq!(at(routed, &["openai", "litellm", "otari"]), Ok("litellm".to_owned()));
        let hint = at("batch_1", &["moonshot", "zai"]).unwrap_err();
        assert!(hint.ends_with("moonshot:batch_1 or zai:batch_1"), "{hint}");
    }
}
