//! The boundary behind which no answer repeats a secret: a transport around another.
//!
//! It stands innermost, where a call is complete, so it also knows the tokens and signatures that are made for one call
//! only. Of a whole body a secret is replaced by `[redacted]`; of one that is read piece by piece, by as many asterisks as
//! it has bytes, so that lengths and ranges stay true.

use super::call::{Answer, Call, Incoming, Outgoing};
use super::escapes;
use super::failure::Failure;
use super::memory::{Share, Turn};
use super::scrub::Scrubber;
use super::transport::Transport;
use crate::tasks::in_place;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use http::{HeaderMap, HeaderValue, Request};
use secrecy::SecretString;
use std::sync::Arc;

/// A transport whose answers repeat no secret.
pub struct Scrubbed {
    inner: Arc<dyn Transport>,
    known: Arc<Scrubber>,
    share: Share,
}

impl std::fmt::Debug for Scrubbed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scrubbed")
    }
}

impl Scrubbed {
    /// Around `inner`, for an account whose secrets `known` knows.
    pub fn new(inner: Arc<dyn Transport>, known: Arc<Scrubber>) -> Self {
        Self { inner, known, share: Share::default() }
    }

    /// What knows the secrets of `call`: those of the account, and those that were made for it alone.
    fn of(&self, call: &Call) -> Scrubbers {
        let made = made_for(&call.request, &self.known);
        let made = (!made.is_empty()).then(|| Arc::new(Scrubber::new(&made)));
        Scrubbers { known: self.known.clone(), made }
    }

    fn finish(scrubbers: &Scrubbers, answer: Answer, turn: &Turn) -> Answer {
        let Answer { status, mut headers, body, cut } = answer;
        let body =
            in_place(body.len(), || scrubbers.all().fold(body, |body, scrubber| scrubber.body(body, cut)));
        scrubbers.headers(&mut headers);
        Answer { status, headers, body: turn.hold(body), cut }
    }
}

impl Transport for Scrubbed {
    fn send(&self, mut call: Call) -> BoxFuture<'_, Result<Answer, Failure>> {
        Box::pin(async move {
            let (scrubbers, turn) = (self.of(&call), Turn::of(&self.share));
            call.request.extensions_mut().insert(turn.clone());
            let answer = self.inner.send(call).await?;
            Ok(Self::finish(&scrubbers, answer, &turn))
        })
    }

    fn upload(&self, mut call: Call, body: Outgoing) -> BoxFuture<'_, Result<Answer, Failure>> {
        Box::pin(async move {
            let (scrubbers, turn) = (self.of(&call), Turn::of(&self.share));
            call.request.extensions_mut().insert(turn.clone());
            let answer = self.inner.upload(call, body).await?;
            Ok(Self::finish(&scrubbers, answer, &turn))
        })
    }

    fn open(&self, call: Call) -> BoxFuture<'_, Result<Incoming, Failure>> {
        Box::pin(async move {
            let scrubbers = self.of(&call);
            let Incoming { status, mut headers, mut pieces } = self.inner.open(call).await?;
            scrubbers.headers(&mut headers);
            for scrubber in [Some(scrubbers.known), scrubbers.made].into_iter().flatten() {
                if !scrubber.is_empty() {
                    pieces = starred(pieces, scrubber);
                }
            }
            Ok(Incoming { status, headers, pieces })
        })
    }
}

struct Scrubbers {
    known: Arc<Scrubber>,
    made: Option<Arc<Scrubber>>,
}

impl Scrubbers {
    fn all(&self) -> impl Iterator<Item = &Scrubber> {
        [Some(&self.known), self.made.as_ref()].into_iter().flatten().map(AsRef::as_ref)
    }

    fn headers(&self, headers: &mut HeaderMap) {
        for (name, value) in headers.iter_mut() {
            // An address to send a file to is used as it is, and never shown.
            if name.as_str().ends_with("upload-url") {
                continue;
            }
            for scrubber in self.all() {
                let scrubbed = scrubber
                    .scrubbed(value.as_bytes())
                    .and_then(|value| HeaderValue::from_bytes(&value).ok());
                if let Some(scrubbed) = scrubbed {
                    *value = scrubbed;
                }
            }
        }
    }
}

/// The secrets of a request that are in none of the account's: what its sensitive headers say, word by word.
fn made_for<B>(request: &Request<B>, known: &Scrubber) -> Vec<SecretString> {
    /// What is shorter is a scheme, a date or a region.
    const SHORTEST: usize = 20;
    let sensitive = request.headers().values().filter(|value| value.is_sensitive());
    let words = sensitive.filter_map(|value| value.to_str().ok()).flat_map(|value| {
        // The fields of a signature are named; one of a session's token has the sign at its end only.
        value.split([' ', ',']).map(|word| match word.split_once('=') {
            Some((_, signature)) if signature.len() >= SHORTEST => signature,
            _ => word,
        })
    });
    words
        .filter(|word| {
            word.len() >= SHORTEST && known.find(word.as_bytes()).is_empty() && !word.contains(';')
        })
        .map(SecretString::from)
        .collect()
}

/// `pieces` with asterisks in place of the secrets that `scrubber` knows, however they are divided among the pieces.
fn starred(
    pieces: BoxStream<'static, Result<Bytes, Failure>>,
    scrubber: Arc<Scrubber>,
) -> BoxStream<'static, Result<Bytes, Failure>> {
    let state = Some((pieces, Stars::new(scrubber)));
    stream::unfold(state, async |state| {
        let (mut pieces, mut stars) = state?;
        loop {
            return match pieces.next().await {
                Some(Ok(piece)) => {
                    let piece = stars.push(&piece);
                    if piece.is_empty() {
                        continue;
                    }
                    Some((Ok(piece), Some((pieces, stars))))
                }
                // What is held back comes again when the answer is taken up where it broke off.
                Some(Err(failure)) => Some((Err(failure), None)),
                None => Some((Ok(stars.finish()), None))
                    .filter(|(last, _)| last.as_ref().is_ok_and(|last| !last.is_empty())),
            };
        }
    })
    .boxed()
}

/// Puts asterisks in the place of secrets, piece by piece; holds back no more than the longest of them.
struct Stars {
    scrubber: Arc<Scrubber>,
    held: BytesMut,
    /// How many bytes of what is held belong to a secret that has been begun.
    begun: usize,
}

impl Stars {
    fn new(scrubber: Arc<Scrubber>) -> Self {
        Self { scrubber, held: BytesMut::new(), begun: 0 }
    }

    /// What is certain with `piece`.
    fn push(&mut self, piece: &[u8]) -> Bytes {
        self.held.extend_from_slice(piece);
        let certain = self.held.len().saturating_sub(self.scrubber.longest());
        let certain = escapes::boundary(&self.held, certain);
        if certain == 0 { Bytes::new() } else { self.give(certain) }
    }

    /// The rest.
    fn finish(&mut self) -> Bytes {
        self.give(self.held.len())
    }

    fn give(&mut self, count: usize) -> Bytes {
        let found = self.scrubber.find(&self.held);
        let mut given = self.held.split_to(count);
        let stars = |given: &mut [u8], from: usize, to: usize| given[from..to.min(count)].fill(b'*');
        stars(&mut given, 0, self.begun);
        self.begun = self.begun.saturating_sub(count);
        for range in found.into_iter().filter(|range| range.start < count) {
            stars(&mut given, range.start, range.end);
            self.begun = self.begun.max(range.end.saturating_sub(count));
        }
        given.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    fn scrubber(secrets: &[&str]) -> Arc<Scrubber> {
        let secrets: Vec<SecretString> = secrets.iter().map(|secret| SecretString::from(*secret)).collect();
        Arc::new(Scrubber::new(&secrets))
    }

    fn starred(scrubber: &Arc<Scrubber>, text: &[u8], cuts: &[usize]) -> Vec<u8> {
        let mut stars = Stars::new(scrubber.clone());
        let mut given = Vec::new();
        let mut from = 0;
        for cut in cuts {
            given.extend_from_slice(&stars.push(&text[from..*cut]));
            from = *cut;
        }
        given.extend_from_slice(&stars.push(&text[from..]));
        given.extend_from_slice(&stars.finish());
        given
    }

    #[test]
    fn what_was_made_for_one_call_is_known() {
        let mut request = Request::new(());
        let mut add = |name: &'static str, value: &str| {
            let mut value = HeaderValue::from_str(value).unwrap();
            value.set_sensitive(name != "x-plain");
            request.headers_mut().append(name, value);
        };
        add(
            "authorization",
            "AWS4-HMAC-SHA256 Credential=AKIAEXAMPLEEXAMPLE/20261118/us-east-1/bedrock/aws4_request, SignedHeaders=host;x-amz-date, Signature=0123456789abcdef0123456789abcdef",
        );
        add("x-amz-security-token", "IQoJb3JpZ2luX2VjEXAMPLETOKEN==");
        add("x-api-key", "sk-known-0123456789abcdef");
        add("x-plain", "nothing-that-is-a-secret-at-all");
        let known = scrubber(&["sk-known-0123456789abcdef"]);
        let made = made_for(&request, &known);
        let made: Vec<&str> = made.iter().map(ExposeSecret::expose_secret).collect();
        assert_eq!(
            made,
            [
                "AKIAEXAMPLEEXAMPLE/20261118/us-east-1/bedrock/aws4_request",
                "0123456789abcdef0123456789abcdef",
                "IQoJb3JpZ2luX2VjEXAMPLETOKEN=="
            ]
        );
    }

    proptest! {
        #[test]
        fn however_a_text_is_divided_it_comes_out_the_same(
            pieces in prop::collection::vec(prop_oneof![
                Just("sk-secret/0".to_owned()), Just("sk-secret\\/0".to_owned()), Just("\\u0073k-sec%72et%2F0".to_owned()),
                Just(base64::engine::general_purpose::STANDARD.encode("xsk-secret/0y")), Just("&#115;k-secret/0".to_owned()),
                "[sk\\\\u0-7%&#;n/e]{0,12}", "sk-se", "cret/0sk-secr", "\\\\{0,12}", " {0,130}",
            ], 0..12),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let scrubber = scrubber(&["sk-secret/0", "secret/0sk"]);
            let text = pieces.concat().into_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.sort_unstable();
            let whole = starred(&scrubber, &text, &[]);
            prop_assert_eq!(starred(&scrubber, &text, &cuts), whole.clone());
            prop_assert_eq!(whole.len(), text.len());
            prop_assert!(scrubber.find(&whole).is_empty());
            let found = scrubber.find(&text);
            for (at, (before, after)) in text.iter().zip(&whole).enumerate() {
                let is_secret = found.iter().any(|range| range.contains(&at));
                prop_assert_eq!(if is_secret { b'*' } else { *before }, *after);
            }
        }

        #[test]
        fn what_holds_no_secret_stays_byte_for_byte(text: Vec<u8>, cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4)) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.sort_unstable();
            prop_assert_eq!(starred(&scrubber(&["sk-0123456789abcdef"]), &text, &cuts), text);
        }
    }
}
