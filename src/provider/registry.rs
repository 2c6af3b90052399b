//! Every kind of provider there is.

use super::{Kind, dialects};

/// The kinds with a file of their own, and the rows of `dialects.rs`.
pub const KINDS: &[&Kind] = &all();

const WITH_A_FILE: &[&Kind] = &[
    &super::openai::KIND,
    &super::anthropic::KIND,
    &super::gemini::KIND,
    &super::mistral::KIND,
    &super::azure_openai::KIND,
    &super::together::KIND,
    &super::fireworks::KIND,
    &super::xai::KIND,
    &super::bedrock::KIND,
    &super::vertex::KIND,
    &super::cohere::KIND,
    &super::dashscope::KIND,
    &super::otari::KIND,
    &super::litellm::KIND,
    &super::openrouter::KIND,
    &super::voyage::KIND,
];

const fn all() -> [&'static Kind; WITH_A_FILE.len() + dialects::KINDS.len()] {
    let mut all = [WITH_A_FILE[0]; WITH_A_FILE.len() + dialects::KINDS.len()];
    let mut at = 0;
    while at < all.len() {
        all[at] =
            if at < WITH_A_FILE.len() { WITH_A_FILE[at] } else { dialects::KINDS[at - WITH_A_FILE.len()] };
        at += 1;
    }
    all
}

pub fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().copied().find(|kind| kind.facts.name == name)
}

/// See [`KindFacts::counts_live`](crate::config::KindFacts::counts_live).
pub fn counts_live(name: &str) -> bool {
    kind(name).is_some_and(|kind| kind.facts.counts_live)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// An example of every row of `docs/providers.md#guessing-the-provider-from-an-id`, with the kinds that claim it.
    const EXAMPLES: &[(&str, &[&str])] = &[
        ("batch_6a1f0c2b9d3e4f5a8b7c6d5e4f3a2b1c", &["openai"]),
        ("batch_AbCdEfGhIjKlMnOpQrStUv12", &["openai"]),
        ("batch_0f3a2b1c-9d8e-4f7a-8b6c-5d4e3f2a1b0c", &["azure-openai", "xai", "dashscope"]),
        ("batch_01ka2b3c4d5e6f7g8h9j0k1m2n", &["groq"]),
        ("batch_01KA2B3C4D5E6F7G8H9J0K1M2N", &[]),
        ("batch_01ka2b3c4d5e6f7g8h9j0k1m2u", &[]),
        ("batch_qwertyuiop", &[]),
        ("batch_1", &[]),
        ("batch_6A1F0C2B9D3E4F5A8B7C6D5E4F3A2B1C", &[]),
        ("batch_bGl0ZWxsbTpiYXRjaF8xMj", &["litellm"]),
        ("batch_bGl0ZWxsbTpiYXRjaF8xMjM7bW9kZWwsZ3B0LTRv", &["litellm"]),
        ("bGl0ZWxsbV9wcm94eTttb2RlbF9pZDp4", &["litellm"]),
        ("batch-6a1f0c2b", &[]),
        ("msgbatch_01Q2w3E4r5T6y7U8i9O0pAsD", &["anthropic"]),
        ("msgbatch_", &[]),
        ("msgbatch_01-2", &[]),
        ("batches/9k2m4n6p8q0r1s3t5u7v9w1x3y5z7a9b1c3d", &["gemini"]),
        ("batches/", &[]),
        ("batches/x/y", &[]),
        ("projects/123/locations/us-central1/batchPredictionJobs/456", &["vertex"]),
        ("4567890123", &[]),
        ("arn:aws:bedrock:us-east-1:111122223333:model-invocation-job/ab12cd34ef56", &["bedrock"]),
        ("arn:aws-us-gov:bedrock:us-gov-west-1:111122223333:model-invocation-job/ab12cd34ef56", &["bedrock"]),
        ("arn:aws:bedrock:us-east-1:111122223333:evaluation-job/ab12cd34ef56", &[]),
        ("ab12cd34ef56", &[]),
        ("accounts/acme/batchInferenceJobs/job-1", &["fireworks"]),
        ("3f1e2d4c-5b6a-4978-8899-aabbccddeeff", &["mistral", "together", "doubleword"]),
        ("3f1e2d4c-5b6a-4978-8899-aabbccddeefg", &[]),
        ("3f1e2d4c-5b6a-4978-8899", &[]),
        ("", &[]),
    ];

    #[test]
    fn an_id_is_claimed_by_the_kinds_whose_shape_it_has_and_by_no_other() {
        for (id, expected) in EXAMPLES {
            let claiming: Vec<&str> =
                KINDS.iter().filter(|kind| (kind.claims)(id)).map(|kind| kind.facts.name).collect();
            assert_eq!(claiming, *expected, "{id}");
        }
    }

    #[test]
    fn names_are_unique_and_found() {
        let names: BTreeSet<&str> = KINDS.iter().map(|kind| kind.facts.name).collect();
        assert_eq!(names.len(), KINDS.len());
        assert!(names.iter().all(|name| kind(name).is_some_and(|kind| kind.facts.name == *name)));
        assert!(kind("").is_none());
    }
}
