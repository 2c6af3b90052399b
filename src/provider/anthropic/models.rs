//! What Claude's models take of a request, by family.

/// What the models of a family take.
#[derive(Debug)]
pub(in crate::provider) struct Rules {
    /// How they think.
    pub thinking: Thinking,
    /// Which of `temperature`, `top_p` and `top_k` they take.
    pub sampling: Sampling,
    /// Whether the last message may be the assistant's, to be continued.
    pub prefill: bool,
    /// Whether they can be made to call a function.
    pub forced_tools: ForcedTools,
    /// Whether an answer, or the arguments of a call, can be held to a schema.
    pub schemas: bool,
    /// The most tokens of an answer, thinking included.
    pub max_output: u64,
}

/// How a model thinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::provider) enum Thinking {
    No,
    /// For as many tokens as it is told.
    Budget,
    /// As much as it finds right, which an effort guides.
    Adaptive {
        /// The efforts that it takes.
        efforts: &'static [&'static str],
        /// What it does unless it is told.
        unasked: Unasked,
    },
}

/// Whether an adaptive model thinks unless it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::provider) enum Unasked {
    Off,
    /// Yes; it can be switched off.
    On,
    /// Yes; it can be told to think between calls of functions only.
    OrBetweenTools,
    /// Yes, always.
    Always,
}

/// What a model takes of the parameters of sampling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::provider) enum Sampling {
    /// All of them.
    All,
    /// All, but not `temperature` and `top_p` at once.
    OneOfTwo,
    /// None.
    Nothing,
}

/// Whether a model can be made to call a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::provider) enum ForcedTools {
    Yes,
    UnlessThinking,
    No,
}

const ALL_EFFORTS: &[&str] = &["low", "medium", "high", "xhigh", "max"];

const CLAUDE_3: Rules = Rules {
    thinking: Thinking::No,
    sampling: Sampling::All,
    prefill: true,
    forced_tools: ForcedTools::Yes,
    schemas: false,
    max_output: 4096,
};
const CLAUDE_3_5: Rules = Rules { max_output: 8192, ..CLAUDE_3 };
const BUDGET: Rules = Rules {
    thinking: Thinking::Budget,
    forced_tools: ForcedTools::UnlessThinking,
    max_output: 64_000,
    ..CLAUDE_3
};
const OPUS_4: Rules = Rules { max_output: 32_000, ..BUDGET };
const OPUS_4_1: Rules = Rules { sampling: Sampling::OneOfTwo, schemas: true, ..OPUS_4 };
const CLAUDE_4_5: Rules = Rules { sampling: Sampling::OneOfTwo, schemas: true, ..BUDGET };
const CLAUDE_4_6: Rules = Rules {
    thinking: Thinking::Adaptive { efforts: &["low", "medium", "high", "max"], unasked: Unasked::Off },
    prefill: false,
    max_output: 128_000,
    ..CLAUDE_4_5
};
const OPUS_4_7: Rules = Rules {
    thinking: Thinking::Adaptive { efforts: ALL_EFFORTS, unasked: Unasked::Off },
    sampling: Sampling::Nothing,
    ..CLAUDE_4_6
};
const OPUS_4_8: Rules = Rules { forced_tools: ForcedTools::Yes, ..OPUS_4_7 };
const CLAUDE_5: Rules =
    Rules { thinking: Thinking::Adaptive { efforts: ALL_EFFORTS, unasked: Unasked::On }, ..OPUS_4_8 };
const FABLE_5: Rules =
    Rules { thinking: Thinking::Adaptive { efforts: ALL_EFFORTS, unasked: Unasked::Always }, ..OPUS_4_8 };
const SONNET_5_5: Rules = Rules {
    thinking: Thinking::Adaptive { efforts: ALL_EFFORTS, unasked: Unasked::OrBetweenTools },
    forced_tools: ForcedTools::No,
    ..FABLE_5
};
/// What a model is taken for that is not in the table: the strictest.
const NEWEST: Rules = Rules { forced_tools: ForcedTools::No, ..FABLE_5 };

/// The families, as of 2026-11-27: <https://platform.claude.com/docs/en/build-with-claude/thinking>,
/// <https://platform.claude.com/docs/en/build-with-claude/effort>,
/// <https://platform.claude.com/docs/en/about-claude/models/migration-guide>, LiteLLM's list of models (1.110.2) and
/// any-llm's (1.40.2).
const FAMILIES: [(&[&str], &Rules); 12] = [
    (&["instant-1.2", "2.0", "2.1", "3-opus", "3-sonnet", "3-haiku"], &CLAUDE_3),
    (&["3-5-sonnet", "3-5-haiku"], &CLAUDE_3_5),
    (&["3-7-sonnet", "sonnet-4", "sonnet-4-0"], &BUDGET),
    (&["opus-4", "opus-4-0"], &OPUS_4),
    (&["opus-4-1"], &OPUS_4_1),
    (&["opus-4-5", "sonnet-4-5", "haiku-4-5"], &CLAUDE_4_5),
    (&["opus-4-6", "sonnet-4-6"], &CLAUDE_4_6),
    (&["opus-4-7"], &OPUS_4_7),
    (&["opus-4-8"], &OPUS_4_8),
    (&["opus-5", "sonnet-5", "haiku-5-5"], &CLAUDE_5),
    (&["mythos-preview", "fable-5", "mythos-5"], &FABLE_5),
    (&["sonnet-5-5"], &SONNET_5_5),
];

/// The newest models, which are in no other family.
const NEWEST_NAMES: [&str; 5] = ["opus-5-5", "fable-5-1", "mythos-5-1", "fable-5-2", "mythos-5-2"];

/// What `model` takes, and whether it is in the table; if not, the rules are those of the newest models.
pub(in crate::provider) fn rules(model: &str) -> (&'static Rules, bool) {
    // Gateways and clouds put something before the name, and a version behind it.
    let name = model.split_once("claude-").map_or(model, |(_, name)| name);
    let name = name.split(['@', ':', '/']).next().unwrap_or(name);
    let name = undated(name);
    let family = FAMILIES.iter().find(|(names, _)| names.contains(&name)).map(|(_, rules)| *rules);
    match family {
        Some(rules) => (rules, true),
        None => (&NEWEST, NEWEST_NAMES.contains(&name)),
    }
}

/// A name without its date, `-latest`, or a cloud's `-v1`.
fn undated(name: &str) -> &str {
    match name.rsplit_once('-') {
        Some((before, "latest" | "v1" | "v2")) => undated(before),
        Some((before, date)) if date.len() == 8 && date.bytes().all(|c| c.is_ascii_digit()) => before,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_found_by_every_way_to_write_its_name() {
        for (model, expected) in [
            ("claude-3-haiku-20240307", &CLAUDE_3),
            ("claude-3-5-sonnet-latest", &CLAUDE_3_5),
            ("claude-3-7-sonnet-20250219", &BUDGET),
            ("claude-opus-4-20250514", &OPUS_4),
            ("claude-opus-4@20250514", &OPUS_4),
            ("claude-opus-4-1-20250805", &OPUS_4_1),
            ("anthropic/claude-sonnet-4-5", &CLAUDE_4_5),
            ("us.anthropic.claude-haiku-4-5-20251001-v1:0", &CLAUDE_4_5),
            ("claude-opus-4-6", &CLAUDE_4_6),
            ("claude-opus-4-7-20260416", &OPUS_4_7),
            ("claude-sonnet-5", &CLAUDE_5),
            ("claude-mythos-preview", &FABLE_5),
            ("claude-sonnet-5-5", &SONNET_5_5),
        ] {
            let (found, is_known) = rules(model);
            assert_eq!(format!("{found:?}"), format!("{expected:?}"), "{model}");
            assert!(is_known, "{model}");
        }
    }

    #[test]
    fn an_unknown_model_has_the_newest_rules() {
        for model in ["claude-opus-6", "claude-sonnet-5-7", "my-alias", ""] {
            let (found, is_known) = rules(model);
            assert_eq!(found.forced_tools, ForcedTools::No, "{model}");
            assert_eq!(found.sampling, Sampling::Nothing, "{model}");
            assert!(!is_known, "{model}");
        }
        assert!(rules("claude-opus-5-5").1);
    }
}
