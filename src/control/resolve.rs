//! Which batch an id means (contract §3): pure rules over what is configured and what is known.

use super::api::ErrorCode;
use super::refusal::Refusal;
use crate::domain::tracked::BatchKey;
use crate::provider;

/// A configured provider, as far as ids go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
}

/// Splits `PROVIDER:ID` where the prefix names a provider; ids themselves may hold colons.
pub fn split(text: &str, is_provider: impl Fn(&str) -> bool) -> (Option<&str>, &str) {
    match text.split_once(':') {
        Some((prefix, id)) if is_provider(prefix) => (Some(prefix), id),
        _ => (None, text),
    }
}

/// The batch that is already known under `id`, at the `providers` that have it; `None` if none has.
pub fn known(id: &str, providers: &[String]) -> Result<Option<BatchKey>, Refusal> {
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

/// The provider that a new, bare `id` goes to.
pub fn place(id: &str, configured: &[Candidate]) -> Result<BatchKey, Refusal> {
    let key = |candidate: &Candidate| BatchKey { provider: candidate.name.clone(), id: id.to_owned() };
    match configured {
        [] => {
            return Err(Refusal::new(ErrorCode::UnknownProvider, "no provider is configured").hint(
                "set a key such as OPENAI_API_KEY in the daemon's environment, or write a [providers.NAME] table",
            ));
        }
        [only] => return Ok(key(only)),
        _ => {}
    }
    let claiming: Vec<&str> =
        provider::KINDS.iter().filter(|kind| (kind.claims)(id)).map(|kind| kind.facts.name).collect();
    let fitting: Vec<&Candidate> =
        configured.iter().filter(|candidate| claiming.contains(&candidate.kind.as_str())).collect();
    match fitting.as_slice() {
        [one] => Ok(key(one)),
        [] => {
            let what = match claiming.first() {
                Some(kind) => {
                    format!("`{id}` looks like a batch of kind {kind}, and no such provider is configured")
                }
                None => format!("the id `{id}` does not tell which provider has it"),
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

fn ambiguous<'a>(what: String, id: &str, names: impl Iterator<Item = &'a str>) -> Refusal {
    let choices: Vec<String> = names.map(|name| format!("{name}:{id}")).collect();
    Refusal::new(ErrorCode::AmbiguousId, what)
        .param("id")
        .hint(format!("say which one: {}", choices.join(" or ")))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(provider("batches/ab12").unwrap_err().code, ErrorCode::AmbiguousId);
        let refusal = place("opnai:batch_1", &configured).unwrap_err();
        assert!(refusal.hints[1].contains("no provider `opnai`"), "{refusal:?}");
        let two = candidates(&[("a", "anthropic"), ("b", "anthropic")]);
        let refusal = place("msgbatch_01Q2w3E4r5T6y7U8i9O0pAsD", &two).unwrap_err();
        assert!(refusal.hints[0].contains("a:msgbatch_01Q2w3E4r5T6y7U8i9O0pAsD or b:"), "{refusal:?}");
    }
}
