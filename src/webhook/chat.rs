//! A channel that people read: what the kinds have in common that differ in their messages and answers alone.

use super::escape::Escape;
use super::message::Message;
use super::post::Post;
use super::{BadTarget, DeliveryOutcome, EventBody, Target, Webhook, group_id, template};
use crate::config::WebhookFacts;
use crate::http::call::{Answer, Call};
use crate::http::failure::Failure;
use jiff::Timestamp;

/// Facts of a kind whose template makes text of the channel's own markup.
pub const CHAT: WebhookFacts = WebhookFacts { judge_template: template::judge, ..WebhookFacts::NONE };

/// What differs from one service to another.
#[derive(Clone, Copy, Debug)]
pub struct Channel {
    pub escape: Escape,
    /// The request that posts a message. The id is the event's, or that of a group of them: the same at every attempt.
    /// See [`Webhook::render`] for `plain`.
    pub call: fn(&Post, &Message, id: &str, plain: bool) -> Result<Call, Failure>,
    /// See [`Webhook::outcome`].
    pub outcome: fn(&Answer) -> DeliveryOutcome,
}

/// One channel of one service.
#[derive(Debug)]
pub struct Chat {
    post: Post,
    channel: Channel,
}

impl Chat {
    /// Posts to `target`.
    pub fn build(target: &Target, channel: Channel) -> Result<Box<dyn Webhook>, BadTarget> {
        Ok(Box::new(Self { post: Post::new(target, channel.escape)?, channel }))
    }
}

impl Webhook for Chat {
    fn render(&self, event: &EventBody<'_>, plain: bool, now: Timestamp) -> Result<Call, Failure> {
        let message = self.post.message(event, plain, now)?;
        (self.channel.call)(&self.post, &message, event.id, plain)
    }

    fn groups(&self) -> bool {
        true
    }

    fn render_group(&self, events: &[EventBody<'_>], plain: bool, now: Timestamp) -> Result<Call, Failure> {
        let message = self.post.group(events, plain, now)?;
        (self.channel.call)(&self.post, &message, &group_id(events), plain)
    }

    fn outcome(&self, answer: &Answer) -> DeliveryOutcome {
        (self.channel.outcome)(answer)
    }

    fn concurrency(&self) -> usize {
        1
    }
}
