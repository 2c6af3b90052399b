//! Every kind of webhook there is.

use super::{Kind, discord, generic, google_chat, mattermost, ntfy, pagerduty, slack, teams, telegram};

pub static KINDS: &[&Kind] = &[
    &generic::KIND,
    &slack::KIND,
    &discord::KIND,
    &teams::KIND,
    &mattermost::KIND,
    &google_chat::KIND,
    &pagerduty::KIND,
    &ntfy::KIND,
    &telegram::KIND,
];

pub fn kind(name: &str) -> Option<&'static Kind> {
    KINDS.iter().copied().find(|kind| kind.facts.name == name)
}
