//! Every kind of webhook there is.

use super::Kind;

pub static KINDS: &[&Kind] = &[
    &super::generic::KIND,
    &super::slack::KIND,
    &super::discord::KIND,
    &super::teams::KIND,
    &super::mattermost::KIND,
    &super::google_chat::KIND,
    &super::pagerduty::KIND,
    &super::ntfy::KIND,
    &super::telegram::KIND,
];

pub fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().copied().find(|kind| kind.facts.name == name)
}
