//! Whose model it is, as far as its name tells.

/// How the names of a company's models begin, as of 2026-11-27; only what nobody else's names begin with.
const BEGINNINGS: [(&str, &[&str]); 6] = [
    (
        "OpenAI",
        &[
            "gpt-3",
            "gpt-4",
            "gpt-5",
            "gpt-6",
            "o1-",
            "o3-",
            "o4-",
            "chatgpt-",
            "text-embedding-3-",
            "text-embedding-ada-",
        ],
    ),
    ("Anthropic", &["claude-"]),
    ("Google", &["gemini-"]),
    (
        "Mistral",
        &[
            "mistral-",
            "ministral-",
            "magistral-",
            "codestral-",
            "devstral-",
            "pixtral-",
            "voxtral-",
            "open-mistral-",
            "open-mixtral-",
        ],
    ),
    ("xAI", &["grok-"]),
    ("Cohere", &["command-a", "command-r"]),
];

/// Whole names that are too short to be told by their beginning.
const WHOLE: [(&str, &str); 2] = [("o1", "OpenAI"), ("o3", "OpenAI")];

/// The company whose model `name` is; `None`: the name does not tell.
pub(super) fn vendor(name: &str) -> Option<&'static str> {
    let name = name.rsplit('/').next().unwrap_or(name);
    let by_beginning = BEGINNINGS
        .iter()
        .find(|(_, beginnings)| beginnings.iter().any(|beginning| name.starts_with(beginning)))
        .map(|(vendor, _)| *vendor);
    by_beginning.or_else(|| WHOLE.iter().find(|(whole, _)| *whole == name).map(|(_, vendor)| *vendor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_vendor_or_nobody() {
        for (name, of) in [
            ("gpt-5.2-mini", Some("OpenAI")),
            ("o3", Some("OpenAI")),
            ("text-embedding-3-small", Some("OpenAI")),
            ("claude-opus-5-5", Some("Anthropic")),
            ("publishers/google/models/gemini-3.8-flash", Some("Google")),
            ("models/gemini-embedding-001", Some("Google")),
            ("mistral-large-latest", Some("Mistral")),
            ("grok-5", Some("xAI")),
            // OpenAI's open models run at many services.
            ("openai/gpt-oss-120b", None),
            ("o3x", None),
            ("llama-4", None),
            ("m-1", None),
            ("", None),
        ] {
            assert_eq!(vendor(name), of, "{name}");
        }
    }
}
