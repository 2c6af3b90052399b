//! What Gemini's models take of a request, by family.

/// What the models of a family take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    /// How they think.
    pub thinking: Thinking,
    /// Whether `temperature`, `topP` and `topK` change anything.
    pub sampling: bool,
}

/// How a model thinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thinking {
    No,
    /// For as many tokens as it is told (`thinkingBudget`).
    Budget {
        /// The fewest tokens.
        least: u64,
        /// The most tokens.
        most: u64,
        /// Whether a budget of 0 switches thinking off.
        off: bool,
    },
    /// As much as it finds right, which one of these words guides (`thinkingLevel`). It cannot be switched off.
    Levels(&'static [&'static str]),
}

const ALL_LEVELS: &[&str] = &["minimal", "low", "medium", "high"];
const UPPER_LEVELS: &[&str] = &["low", "medium", "high"];

const fn levels(levels: &'static [&'static str], sampling: bool) -> Rules {
    Rules { thinking: Thinking::Levels(levels), sampling }
}

const fn budget(least: u64, most: u64, off: bool) -> Rules {
    Rules { thinking: Thinking::Budget { least, most, off }, sampling: true }
}

const UNTHINKING: Rules = Rules { thinking: Thinking::No, sampling: true };

/// How the names of the families begin, behind `gemini-`, as of 2026-11-27; a longer beginning stands before a shorter
/// one. Levels and budgets: <https://ai.google.dev/gemini-api/docs/generate-content/thinking#thinking-levels>,
/// <https://docs.cloud.google.com/gemini-enterprise-agent-platform/models/thinking>, any-llm 1.40.2, LiteLLM 1.110.2.
/// Sampling: <https://ai.google.dev/gemini-api/docs/whats-new-gemini-3.6>.
const FAMILIES: [(&str, Rules); 22] = [
    ("1.0", UNTHINKING),
    ("1.5", UNTHINKING),
    ("2.0", UNTHINKING),
    ("2.5-pro", budget(128, 32_768, false)),
    ("2.5-flash-lite", budget(512, 24_576, true)),
    ("2.5-flash", budget(1, 24_576, true)),
    ("3-pro", levels(&["low", "high"], true)),
    ("3-flash", levels(ALL_LEVELS, true)),
    ("3.1-pro", levels(UPPER_LEVELS, true)),
    ("3.1-flash-image", levels(&["minimal", "high"], true)),
    ("3.1-flash-lite-image", levels(&["minimal", "high"], true)),
    ("3.1-flash-lite", levels(ALL_LEVELS, true)),
    ("3.5-flash-lite", levels(ALL_LEVELS, false)),
    ("3.5-flash", levels(ALL_LEVELS, true)),
    ("3.6-flash", levels(ALL_LEVELS, false)),
    ("3.7-flash", levels(UPPER_LEVELS, false)),
    ("3.8-flash", levels(UPPER_LEVELS, false)),
    ("4-argon", NEWEST),
    ("4-hydrogen", levels(&["low", "medium", "high", "xhigh"], false)),
    // Whatever these stand for, it has these levels.
    ("flash-latest", NEWEST),
    ("flash-lite-latest", NEWEST),
    ("pro-latest", levels(UPPER_LEVELS, true)),
];

/// What a model is taken for that is not in the table.
const NEWEST: Rules = levels(UPPER_LEVELS, false);

/// What `model` takes, and whether it is in the table; if not, the rules are those of the newest models.
pub(super) fn rules(model: &str) -> (Rules, bool) {
    let name = model.rsplit('/').next().unwrap_or(model);
    let name = name.strip_prefix("gemini-").unwrap_or("");
    let family = FAMILIES.iter().find(|(beginning, _)| {
        name.strip_prefix(beginning).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '@', ':']))
    });
    family.map_or((NEWEST, false), |(_, rules)| (*rules, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_found_by_the_longest_beginning() {
        for (model, expected) in [
            ("gemini-2.0-flash-001", UNTHINKING),
            ("models/gemini-2.5-pro", budget(128, 32_768, false)),
            ("gemini-2.5-flash-lite-preview-09-2025", budget(512, 24_576, true)),
            ("publishers/google/models/gemini-2.5-flash", budget(1, 24_576, true)),
            ("gemini-3-flash-preview", levels(ALL_LEVELS, true)),
            ("gemini-3.1-pro-preview-customtools", levels(UPPER_LEVELS, true)),
            ("gemini-3.1-flash-lite-image", levels(&["minimal", "high"], true)),
            ("gemini-3.5-flash-lite", levels(ALL_LEVELS, false)),
            ("gemini-3.5-flash", levels(ALL_LEVELS, true)),
            ("gemini-4-argon", NEWEST),
            ("gemini-flash-latest", NEWEST),
        ] {
            assert_eq!(rules(model), (expected, true), "{model}");
        }
        for model in ["gemini-5-neon", "gemini-3.9-flash", "tunedModels/mine", ""] {
            assert_eq!(rules(model), (NEWEST, false), "{model}");
        }
    }
}
