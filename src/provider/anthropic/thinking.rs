//! How much a Claude model is to think, and how many tokens it gets for that.

use super::models::{Rules, Thinking, Unasked};
use crate::provider::effort;
use crate::provider::fields::{Fields, refuse};
use crate::provider::submit::Untranslatable;
use serde_json::{Value, json};

/// What a request asks of the model's thinking.
#[derive(Debug)]
pub(super) struct Thought {
    /// Whether the model thinks before it answers.
    pub is_on: bool,
    /// Whether the request itself switches it on.
    pub is_asked: bool,
    /// `thinking`, where it must be said.
    pub config: Option<Value>,
    /// `output_config.effort`, where it must be said.
    pub effort: Option<&'static str>,
    /// `max_tokens`.
    pub max_tokens: u64,
}

/// `max_tokens` of a request that leaves its answer's length open: what an answer may be long, and what is given in
/// addition, or in all, where the model thinks. The bound itself costs nothing.
const ANSWER_TOKENS: u64 = 8192;
const ADAPTIVE_TOKENS: u64 = 32_000;
const LONG_ADAPTIVE_TOKENS: u64 = 64_000;

/// How many tokens may be thought for each effort (any-llm 1.40.2, 2026-11-27).
const BUDGETS: [(&str, u64); 6] = [
    ("minimal", 1024),
    ("low", 2048),
    ("medium", 8192),
    ("high", 24_576),
    ("xhigh", 32_768),
    ("max", 32_768),
];

/// The least budget that Anthropic takes, and what is kept for the answer itself.
const LEAST_BUDGET: u64 = 1024;

/// Takes `reasoning_effort` and the bound on tokens.
pub(super) fn take(fields: &mut Fields, model: &str, rules: &Rules) -> Result<Thought, Untranslatable> {
    let given = fields.take_max_tokens()?;
    let effort = fields.take_word("reasoning_effort")?;
    let mut thought = match (effort.as_deref().unwrap_or("auto"), rules.thinking) {
        ("auto", Thinking::Adaptive { unasked, .. }) => Thought::unasked(unasked != Unasked::Off),
        ("auto", _) => Thought::unasked(false),
        ("none", how) => none(fields, model, how),
        (word, _) if !effort::is_amount(word) => {
            return refuse(format!("the `reasoning_effort` `{word}` has no counterpart"));
        }
        (word, Thinking::No) => {
            return refuse(format!(
                "the `reasoning_effort` `{word}` has no counterpart: `{model}` does not think"
            ));
        }
        (word, Thinking::Budget) => {
            let budget = budget(fields, word, given, rules)?;
            Thought {
                is_on: true,
                is_asked: true,
                config: Some(json!({ "type": "enabled", "budget_tokens": budget })),
                effort: None,
                max_tokens: (ANSWER_TOKENS + budget).min(rules.max_output),
            }
        }
        (word, Thinking::Adaptive { efforts, .. }) => {
            let taken = effort::nearest(word, efforts);
            if let Some(taken) = taken.filter(|taken| *taken != word) {
                fields.drop_note(format!(
                    "the `reasoning_effort` `{word}` is sent as `{taken}`: `{model}` does not take `{word}`"
                ));
            }
            let is_long = matches!(taken, Some("xhigh" | "max"));
            Thought {
                is_on: true,
                is_asked: true,
                config: Some(json!({ "type": "adaptive" })),
                effort: taken,
                max_tokens: if is_long { LONG_ADAPTIVE_TOKENS } else { ADAPTIVE_TOKENS },
            }
        }
    };
    thought.max_tokens = given.unwrap_or(thought.max_tokens.min(rules.max_output));
    Ok(thought)
}

impl Thought {
    /// Nothing is said of it.
    fn unasked(is_on: bool) -> Self {
        let max_tokens = if is_on { ADAPTIVE_TOKENS } else { ANSWER_TOKENS };
        Self { is_on, is_asked: false, config: None, effort: None, max_tokens }
    }
}

/// As little thought as the model allows.
fn none(fields: &mut Fields, model: &str, how: Thinking) -> Thought {
    let Thinking::Adaptive { unasked, .. } = how else { return Thought::unasked(false) };
    match unasked {
        Unasked::Off => Thought::unasked(false),
        Unasked::On => Thought { config: Some(json!({ "type": "disabled" })), ..Thought::unasked(false) },
        Unasked::OrBetweenTools => {
            fields.drop_note(format!(
                "the `reasoning_effort` `none` is sent as `between_tools`: `{model}` does not stop thinking altogether"
            ));
            Thought { config: Some(json!({ "type": "between_tools" })), ..Thought::unasked(true) }
        }
        Unasked::Always => {
            fields.drop_note(format!(
                "the `reasoning_effort` `none` is sent as `low`: `{model}` always thinks"
            ));
            Thought { effort: Some("low"), ..Thought::unasked(true) }
        }
    }
}

/// The budget for an effort; it is always less than the tokens of the answer.
fn budget(fields: &mut Fields, word: &str, given: Option<u64>, rules: &Rules) -> Result<u64, Untranslatable> {
    let wanted =
        BUDGETS.iter().find(|(effort, _)| *effort == word).map_or(LEAST_BUDGET, |(_, budget)| *budget);
    let Some(most) = given else { return Ok(wanted.min(rules.max_output - ANSWER_TOKENS)) };
    let room = most.saturating_sub(LEAST_BUDGET);
    if room < LEAST_BUDGET {
        return refuse(format!(
            "the `reasoning_effort` `{word}` takes {LEAST_BUDGET} tokens at least and as many for the answer, and no \
             more than {most} are allowed in all"
        ));
    }
    if room < wanted {
        fields.drop_note(format!(
            "the `reasoning_effort` `{word}` is sent with fewer tokens than usual, to stay below the request's own bound"
        ));
    }
    Ok(wanted.min(room))
}
