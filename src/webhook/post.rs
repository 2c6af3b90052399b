//! One JSON document posted to one address: what every kind but the generic one does.

use super::escape::Escape;
use super::message::Message;
use super::template::Template;
use super::{BadTarget, EventBody, Target};
use crate::http::address::Address;
use crate::http::call::{BodyLimit, Call};
use crate::http::failure::Failure;
use crate::http::limits;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, Uri};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use std::time::Duration;

/// Where messages are posted, and the template that replaces their text.
#[derive(Debug)]
pub struct Post {
    address: Address,
    timeout: Duration,
    template: Option<Template>,
    pages: Option<String>,
}

impl Post {
    /// Posts to `target`'s own address.
    pub fn new(target: &Target, escape: Escape) -> Result<Self, BadTarget> {
        Self::to(&target.url, target, escape)
    }

    /// Posts to `url`, which is `target`'s address made complete.
    pub fn to(url: &SecretString, target: &Target, escape: Escape) -> Result<Self, BadTarget> {
        let template = target.template.as_deref().map(|text| Template::new(&target.name, text, escape));
        Ok(Self {
            address: Address::parse(url)?,
            timeout: target.timeout,
            pages: target.pages.clone(),
            template: template.transpose().map_err(BadTarget::Template)?,
        })
    }

    /// The same with a bearer token.
    pub fn authorized(mut self, key: &'static str, token: &SecretString) -> Result<Self, BadTarget> {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))
            .map_err(|_| BadTarget::Unsendable(key))?;
        value.set_sensitive(true);
        self.address.authorization = Some(value);
        Ok(self)
    }

    /// What `event` says; the template's text with it, unless the receiver has refused that.
    pub fn message(&self, event: &EventBody<'_>, plain: bool, now: Timestamp) -> Result<Message, Failure> {
        let mut message = Message::from_event(event.body, self.pages.as_deref(), now)?;
        if let Some(template) = self.template.as_ref().filter(|_| !plain) {
            message.text = template.render(event.body, &message);
        }
        Ok(message)
    }

    /// What `events` say together; a template makes a line or more of each.
    pub fn group(&self, events: &[EventBody<'_>], plain: bool, now: Timestamp) -> Result<Message, Failure> {
        let mut message = Message::from_group(events, self.pages.as_deref(), now)?;
        if let Some(template) = self.template.as_ref().filter(|_| !plain) {
            let texts = events.iter().map(|event| {
                let message = Message::from_event(event.body, self.pages.as_deref(), now).ok()?;
                template.render(event.body, &message)
            });
            // One that it cannot write is told in the built-in way, and so are all.
            message.text = texts.collect::<Option<Vec<String>>>().map(|texts| texts.join("\n"));
        }
        Ok(message)
    }

    /// The request that posts `payload`.
    pub fn json(&self, payload: &Value) -> Result<Call, Failure> {
        self.json_to(self.address.uri.clone(), payload)
    }

    /// The same with these further pairs in the query; their values need no encoding.
    pub fn json_with(&self, query: &[(&str, &str)], payload: &Value) -> Result<Call, Failure> {
        let mut url = self.address.uri.to_string();
        for (key, value) in query {
            let mark = if url.contains('?') { '&' } else { '?' };
            url = format!("{url}{mark}{key}={value}");
        }
        let uri =
            url.parse().map_err(|_| Failure::BadRequest("the URL cannot be put together".to_owned()))?;
        self.json_to(uri, payload)
    }

    fn json_to(&self, uri: Uri, payload: &Value) -> Result<Call, Failure> {
        let mut request = Request::post(uri)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        if let Some(authorization) = &self.address.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request
            .body(Bytes::from(payload.to_string()))
            .map_err(|_| Failure::BadRequest("the request cannot be put together".to_owned()))?;
        Ok(Call { request, timeout: self.timeout, body_limit: BodyLimit::Beginning(limits::RECEIVER_BODY) })
    }
}
