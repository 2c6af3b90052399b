//! What a person is told, the same for every kind that people read: title, line, facts, lists, link
//! (`docs/delivery.md#messages`).

use super::text::number;
use jiff::Timestamp;

/// A message before any channel has given it a form. Its texts are clean and short, and not yet escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// How it is meant; never told by colour alone.
    pub tone: Tone,
    /// `nightly-eval — completed`, without the tone's icon.
    pub title: String,
    /// What a telephone shows: it makes sense alone.
    pub line: String,
    /// Names and values, the most important first.
    pub facts: Vec<Fact>,
    /// The most frequent errors of the batch itself, at most three.
    pub errors: Vec<String>,
    /// What is told together: the events of a group, the batches of a digest.
    pub lists: Vec<List>,
    /// What else is worth knowing, one sentence each.
    pub notes: Vec<String>,
    pub link: Option<Link>,
    /// When batchd saw it.
    pub at: Option<Timestamp>,
    /// What it is about, the same for all that is told of it: `openai/batch_abc123`.
    pub topic: Option<String>,
    /// What a template makes of it, in the channel's own markup: it replaces everything else.
    pub text: Option<String>,
}

/// One name with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Such as `Duration`.
    pub name: &'static str,
    /// Such as `3 h 12 m`; `–` where it is not known.
    pub value: String,
}

/// Things of a kind, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// Such as `Running`; empty: it needs no name.
    pub heading: &'static str,
    /// The most important first.
    pub entries: Vec<Entry>,
    /// How many there are besides.
    pub more: usize,
}

/// One line of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub tone: Tone,
    pub text: String,
    pub url: Option<String>,
}

/// A page to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// An `https` or `http` URL.
    pub url: String,
    pub text: String,
}

/// How a message is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// All is well.
    Good,
    /// Good to know.
    Neutral,
    /// Look when there is time.
    Warning,
    /// Something did not work.
    Bad,
    /// The window was too short.
    Expired,
    /// Somebody wished it.
    Cancelled,
}

impl Tone {
    /// An emoji for it.
    pub const fn icon(self) -> &'static str {
        match self {
            Self::Good => "✅",
            Self::Neutral => "ℹ️",
            Self::Warning => "⚠️",
            Self::Bad => "❌",
            Self::Expired => "⛔",
            Self::Cancelled => "🚫",
        }
    }

    /// A colour for it, `0xRRGGBB`.
    pub const fn colour(self) -> u32 {
        match self {
            Self::Good => 0x2E_B6_7D,
            Self::Neutral => 0x36_C5_F0,
            Self::Warning => 0xEC_B2_2E,
            Self::Bad => 0xE0_1E_5A,
            Self::Expired => 0xE8_91_2D,
            Self::Cancelled => 0x8D_8D_8D,
        }
    }

    /// The same as the web writes it: `#RRGGBB`.
    pub fn web_colour(self) -> String {
        format!("#{:06X}", self.colour())
    }
}

impl Message {
    /// The title with the tone's icon before it.
    pub fn headline(&self) -> String {
        format!("{} {}", self.tone.icon(), self.title)
    }

    /// The line where its lists do not say the same and more.
    pub fn lead(&self) -> Option<&str> {
        self.lists.is_empty().then_some(self.line.as_str())
    }

    /// Everything that it says, line by line, for the plainest form.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.headline(), self.line.clone()];
        lines.extend(self.facts.iter().map(|fact| format!("{}: {}", fact.name, fact.value)));
        lines.extend(self.errors.iter().map(|error| format!("• {error}")));
        for list in &self.lists {
            lines.extend(list.title());
            lines.extend(list.entries.iter().map(Entry::line));
            lines.extend(list.rest(list.entries.len()));
        }
        lines.extend(self.notes.iter().cloned());
        lines.extend(self.link.as_ref().map(|link| format!("{}: {}", link.text, link.url)));
        lines
    }
}

impl List {
    /// A list of `entries`, of which the first few are kept: no channel shows more.
    pub fn new(heading: &'static str, mut entries: Vec<Entry>, more: usize) -> Self {
        let cut = entries.len().saturating_sub(MAX_ENTRIES);
        entries.truncate(MAX_ENTRIES);
        Self { heading, entries, more: more.saturating_add(cut) }
    }

    /// Its heading with the number of all there are, if it has one.
    pub fn title(&self) -> Option<String> {
        let all = self.entries.len().saturating_add(self.more);
        (!self.heading.is_empty()).then(|| format!("{} ({})", self.heading, number(all as u64)))
    }

    /// As many entries, each written by `write`, as fit into `room` as `measure` counts, a line break after each;
    /// and how many there are besides.
    pub fn lines(
        &self,
        room: usize,
        measure: fn(&str) -> usize,
        write: impl Fn(&Entry) -> String + Copy,
    ) -> Vec<String> {
        let shown = self.fitting(room, |entry| measure(&write(entry)) + 1);
        self.entries.iter().take(shown).map(write).chain(self.rest(shown)).collect()
    }

    /// How many entries fit into `room`, each as long as `cost` says, with a line about the rest.
    pub fn fitting(&self, room: usize, cost: impl Fn(&Entry) -> usize) -> usize {
        let mut left = room.saturating_sub(REST);
        let fits = self.entries.iter().take_while(|entry| match left.checked_sub(cost(entry)) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        });
        fits.count()
    }

    /// A line about those that are not among the first `shown`, if there are any.
    pub fn rest(&self, shown: usize) -> Option<String> {
        let rest = self.entries.len().saturating_add(self.more).saturating_sub(shown);
        (rest > 0).then(|| format!("… and {} more", number(rest as u64)))
    }
}

impl Entry {
    /// Its icon and what it says.
    pub fn line(&self) -> String {
        format!("{} {}", self.tone.icon(), self.text)
    }
}

/// Entries of a list.
const MAX_ENTRIES: usize = 100;

/// What the line about the rest of a list takes, in any unit.
const REST: usize = 48;
