//! What has become of each request of a batch, by its id; and which lines of an input hold the requests of some fate.

use super::line::{Head, Text};
use super::submit::LineForm;
use serde::Deserialize;
use serde::de::IgnoredAny;
use sha2::{Digest as _, Sha256};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What has become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    Succeeded,
    Failed,
    Expired,
    Cancelled,
    /// There is no result of it.
    Missing,
}

/// A request's id in 16 bytes: of many ids only these are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestKey(u128);

impl RequestKey {
    pub fn of(id: &str) -> Self {
        let digest = Sha256::digest(id);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self(u128::from_be_bytes(bytes))
    }
}

/// A line of results in OpenAI's form: whose it is, where it says that, and what it tells.
pub fn fate_in(line: &[u8]) -> (Option<RequestKey>, Fate) {
    #[derive(Deserialize)]
    struct Line<'a> {
        #[serde(default, borrow)]
        custom_id: Option<Cow<'a, str>>,
        #[serde(default)]
        response: Option<Response>,
        #[serde(default, borrow)]
        error: Option<Told<'a>>,
    }
    #[derive(Deserialize)]
    struct Response {
        #[serde(default)]
        status_code: Option<u16>,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Told<'a> {
        Coded {
            #[serde(default, borrow)]
            code: Option<Cow<'a, str>>,
        },
        Other(IgnoredAny),
    }
    let Ok(line) = serde_json::from_slice::<Line<'_>>(line) else { return (None, Fate::Failed) };
    let fate = match (&line.error, &line.response) {
        (Some(Told::Coded { code: Some(code) }), _) if code.contains("expired") => Fate::Expired,
        (Some(Told::Coded { code: Some(code) }), _) if code.contains("cancel") => Fate::Cancelled,
        (None, Some(Response { status_code: Some(200..300) })) => Fate::Succeeded,
        _ => Fate::Failed,
    };
    (line.custom_id.map(|id| RequestKey::of(&id)), fate)
}

/// What has become of the requests of a batch that have results.
#[derive(Clone, Debug, Default)]
pub struct Fates {
    known: BTreeMap<RequestKey, Fate>,
    /// Lines that do not say whose they are.
    pub without_id: u64,
}

impl Fates {
    /// Takes in a line of results; of two of one request a success counts.
    pub fn note(&mut self, line: &[u8]) {
        match fate_in(line) {
            (Some(key), fate) => {
                let known = self.known.entry(key).or_insert(fate);
                *known = (*known).min(fate);
            }
            (None, _) => self.without_id += 1,
        }
    }

    fn of(&self, id: &str) -> Fate {
        self.known.get(&RequestKey::of(id)).copied().unwrap_or(Fate::Missing)
    }
}

/// Which requests are wanted of those that did not succeed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Only {
    /// All of them.
    #[default]
    Unsuccessful,
    Failed,
    Expired,
    Cancelled,
    Missing,
}

impl Only {
    /// The one that `word` names.
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "failed" => Self::Failed,
            "expired" => Self::Expired,
            "cancelled" => Self::Cancelled,
            "missing" => Self::Missing,
            _ => return None,
        })
    }

    fn takes(self, fate: Fate) -> bool {
        match self {
            Self::Unsuccessful => fate != Fate::Succeeded,
            Self::Failed => fate == Fate::Failed,
            Self::Expired => fate == Fate::Expired,
            Self::Cancelled => fate == Fate::Cancelled,
            Self::Missing => fate == Fate::Missing,
        }
    }
}

/// How many requests were selected, of which fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selected {
    pub failed: u64,
    pub expired: u64,
    pub cancelled: u64,
    pub missing: u64,
    /// Requests of the input that succeeded.
    pub succeeded: u64,
    /// Requests of the input that have a result, of whatever fate.
    pub known: u64,
    /// Lines of the input that name no request.
    pub without_id: u64,
}

impl Selected {
    /// All that were selected.
    pub const fn requests(&self) -> u64 {
        self.failed + self.expired + self.cancelled + self.missing
    }
}

/// Selects lines of an input by what has become of their requests. It holds one line at most.
#[derive(Debug)]
pub struct Selection {
    fates: Fates,
    only: Only,
    form: LineForm,
    open: Vec<u8>,
    pub selected: Selected,
}

impl Selection {
    pub fn new(fates: Fates, only: Only, form: LineForm) -> Self {
        Self { fates, only, form, open: Vec::new(), selected: Selected::default() }
    }

    /// Takes the next bytes of the input, and adds the lines that are selected to `output`.
    pub fn push(&mut self, piece: &[u8], output: &mut Vec<u8>) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            if part.ends_with(b"\n") && self.open.is_empty() {
                self.line(part, output);
            } else {
                self.open.extend_from_slice(part);
                if part.ends_with(b"\n") {
                    self.last(output);
                }
            }
        }
    }

    /// The input has ended: what came after the last end of a line is a line too.
    pub fn finish(&mut self, output: &mut Vec<u8>) {
        if !self.open.is_empty() {
            self.last(output);
        }
    }

    /// How many requests have results and are not in the input: of the right one there are none.
    pub fn foreign(&self) -> u64 {
        (self.fates.known.len() as u64).saturating_sub(self.selected.known)
    }

    fn last(&mut self, output: &mut Vec<u8>) {
        let line = std::mem::take(&mut self.open);
        self.line(&line, output);
    }

    fn line(&mut self, line: &[u8], output: &mut Vec<u8>) {
        let bare = line.trim_ascii();
        if bare.is_empty() {
            return;
        }
        let head = std::str::from_utf8(bare).ok().and_then(|text| Head::read(text, &self.form).ok());
        let id = head.and_then(|head| match head.id.or(head.own_id) {
            Some(Text::Text(id)) => Some(id.into_owned()),
            _ => None,
        });
        let selected = &mut self.selected;
        let Some(id) = id else {
            selected.without_id += 1;
            return;
        };
        let fate = self.fates.of(&id);
        selected.known += u64::from(fate != Fate::Missing);
        if fate == Fate::Succeeded {
            selected.succeeded += 1;
        }
        if !self.only.takes(fate) {
            return;
        }
        match fate {
            Fate::Failed => selected.failed += 1,
            Fate::Expired => selected.expired += 1,
            Fate::Cancelled => selected.cancelled += 1,
            Fate::Missing => selected.missing += 1,
            Fate::Succeeded => {}
        }
        output.extend_from_slice(bare);
        output.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::super::submit::OPENAI_LINE;
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn result(id: &str, fate: Fate) -> String {
        let (response, error) = match fate {
            Fate::Succeeded => (json!({"status_code": 200, "body": {}}), json!(null)),
            Fate::Failed => (json!({"status_code": 500, "body": {}}), json!(null)),
            Fate::Expired => (json!(null), json!({"code": "batch_expired", "message": "too late"})),
            Fate::Cancelled | Fate::Missing => {
                (json!(null), json!({"code": "batch_cancelled", "message": "x"}))
            }
        };
        json!({"id": null, "custom_id": id, "response": response, "error": error}).to_string()
    }

    #[test]
    fn a_line_tells_its_fate() {
        for fate in [Fate::Succeeded, Fate::Failed, Fate::Expired, Fate::Cancelled] {
            assert_eq!(fate_in(result("a", fate).as_bytes()), (Some(RequestKey::of("a")), fate));
        }
        assert_eq!(fate_in(b"{\"custom_id\":null,\"error\":\"text\"}"), (None, Fate::Failed));
        assert_eq!(fate_in(b"no json"), (None, Fate::Failed));
    }

    proptest! {
        #[test]
        fn just_what_did_not_succeed_is_selected_whatever_the_pieces(
            fates in prop::collection::vec(0..5_usize, 1..40),
            cut in 1_usize..60,
        ) {
            const ALL: [Fate; 5] =
                [Fate::Succeeded, Fate::Failed, Fate::Expired, Fate::Cancelled, Fate::Missing];
            let fates: Vec<Fate> = fates.into_iter().map(|place| ALL[place]).collect();
            let mut known = Fates::default();
            let mut input = String::new();
            let mut wanted = String::new();
            for (number, fate) in fates.iter().enumerate() {
                let id = format!("r{number}");
                let line = format!("{{\"custom_id\":\"{id}\",\"body\":{{\"é\":{number}}}}}\n");
                input.push_str(&line);
                if *fate != Fate::Succeeded {
                    wanted.push_str(&line);
                }
                if *fate != Fate::Missing {
                    known.note(result(&id, *fate).as_bytes());
                }
            }
            let mut selection = Selection::new(known, Only::Unsuccessful, OPENAI_LINE);
            let mut output = Vec::new();
            for piece in input.trim_end().as_bytes().chunks(cut) {
                selection.push(piece, &mut output);
            }
            selection.finish(&mut output);
            prop_assert_eq!(String::from_utf8(output).unwrap(), wanted);
            let selected = selection.selected;
            prop_assert_eq!(selected.requests() + selected.succeeded, fates.len() as u64);
            prop_assert_eq!(selected.missing, fates.iter().filter(|fate| **fate == Fate::Missing).count() as u64);
            prop_assert_eq!(selection.foreign(), 0);
        }
    }
}
