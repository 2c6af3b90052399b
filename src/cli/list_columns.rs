//! What a list of batches can show of each, and sort by: one key a column.

use super::style::Tone;
use super::table::{Cell, Column, Table};
use super::view::{BatchView, local, time, tone};
use crate::domain::cost::Usd;
use crate::domain::duration::human;
use crate::domain::time::since;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;
use std::cmp::Ordering;
use std::time::Duration;

/// A column of the list, by the word for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Id,
    Name,
    Provider,
    Model,
    Status,
    Result,
    Progress,
    Eta,
    Age,
    Duration,
    Created,
    Ended,
    Owner,
    Labels,
    Deadline,
    Cost,
    /// What is wrong with it; shown, but nobody sorts by it.
    Note,
}

/// A key to sort by, from the greatest on if it is reversed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    pub key: Key,
    pub reversed: bool,
}

impl Key {
    /// Those that can be asked for.
    pub const ALL: [Self; 16] = [
        Self::Id,
        Self::Name,
        Self::Provider,
        Self::Model,
        Self::Status,
        Self::Result,
        Self::Progress,
        Self::Eta,
        Self::Age,
        Self::Duration,
        Self::Created,
        Self::Ended,
        Self::Owner,
        Self::Labels,
        Self::Deadline,
        Self::Cost,
    ];

    /// Those that are shown unless others are asked for.
    pub const DEFAULT: [Self; 10] = [
        Self::Id,
        Self::Name,
        Self::Provider,
        Self::Status,
        Self::Result,
        Self::Progress,
        Self::Eta,
        Self::Age,
        Self::Duration,
        Self::Note,
    ];

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Name => "name",
            Self::Provider => "provider",
            Self::Model => "model",
            Self::Status => "status",
            Self::Result => "result",
            Self::Progress => "progress",
            Self::Eta => "eta",
            Self::Age => "age",
            Self::Duration => "duration",
            Self::Created => "created",
            Self::Ended => "ended",
            Self::Owner => "owner",
            Self::Labels => "labels",
            Self::Deadline => "deadline",
            Self::Cost => "cost",
            Self::Note => "note",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.word() == word)
    }

    /// The column; where there is little room, what says how far the batch is stays longest.
    fn column(self) -> Column {
        match self {
            Self::Id => Column::id("ID"),
            Self::Name => Column::text("NAME").stays().always().prefers(12),
            Self::Provider => Column::text("PROVIDER").drops(4),
            Self::Model => Column::text("MODEL").drops(7),
            Self::Status => Column::whole("STATUS").always(),
            Self::Result => Column::whole("RESULT").drops(2),
            Self::Progress => Column::whole("PROGRESS").always(),
            Self::Eta => Column::whole("ETA").always(),
            Self::Age => Column::number("AGE").drops(6),
            Self::Duration => Column::number("DURATION").drops(5),
            Self::Created => Column::whole("CREATED").drops(9),
            Self::Ended => Column::whole("ENDED").drops(8),
            Self::Owner => Column::text("OWNER").drops(11),
            Self::Labels => Column::text("LABELS").drops(10),
            Self::Deadline => Column::whole("DEADLINE").drops(7),
            Self::Cost => Column::number("COST").drops(4),
            Self::Note => Column::text("NOTE").drops(3).prefers(12),
        }
    }

    fn cell(self, batch: BatchView<'_>, now: Timestamp, zone: &TimeZone, beside: &[Self]) -> Cell {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let at = |at: Option<Timestamp>| at.map(|at| local(at, zone)).unwrap_or_default();
        let span = |span: Option<Duration>| span.map(whole_seconds).unwrap_or_default();
        let meant = tone(batch.status(), batch.outcome());
        match self {
            Self::Id => batch.id().into(),
            Self::Name => {
                let name = text(batch.added("name"));
                // Where there is no room for the ids, one that has no name is known by its id.
                let alone = if name.is_empty() { batch.id().to_owned() } else { name.clone() };
                Cell::of_forms(Tone::Plain, [name.clone(), name.clone(), name, alone])
            }
            Self::Provider => batch.provider().into(),
            Self::Model => text(batch.field("model")).into(),
            Self::Status => Cell::new(meant, batch.status()),
            Self::Result => {
                // `failed failed` says nothing twice.
                let told = beside.contains(&Self::Status).then(|| batch.status());
                Cell::new(meant, batch.outcome().filter(|outcome| Some(*outcome) != told).unwrap_or_default())
            }
            Self::Progress => Cell::of_forms(Tone::Plain, batch.progress_forms()),
            Self::Eta => Cell::of_forms(Tone::Plain, eta(batch, now)),
            Self::Age => {
                span(batch.created_at().filter(|_| !batch.is_over()).map(|at| since(at, now))).into()
            }
            Self::Duration => span(batch.duration()).into(),
            Self::Created => at(batch.created_at()).into(),
            Self::Ended => at(batch.ended_at()).into(),
            Self::Owner => text(batch.added("owner")).into(),
            Self::Labels => labels(batch).into(),
            Self::Deadline => at(batch.time("deadline")).into(),
            Self::Cost => batch.cost("amount").map(Usd::shown).unwrap_or_default().into(),
            Self::Note => {
                let (note, tone) = note(batch);
                Cell::new(tone, note)
            }
        }
    }

    /// How two batches stand to each other; one of which nothing is known comes last, whatever the direction.
    fn compare(self, reversed: bool, a: BatchView<'_>, b: BatchView<'_>, now: Timestamp) -> Ordering {
        let direct = |order: Ordering| if reversed { order.reverse() } else { order };
        let known = |a: Option<Ordering>, has: (bool, bool)| match has {
            (true, true) => direct(a.unwrap_or(Ordering::Equal)),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => Ordering::Equal,
        };
        macro_rules! by {
            ($value:expr) => {{
                let value = $value;
                let (a, b) = (value(a), value(b));
                known(a.partial_cmp(&b), (a.is_some(), b.is_some()))
            }};
        }
        let filled = |text: String| Some(text).filter(|text| !text.is_empty());
        let word = |value: &Value| filled(value.as_str().unwrap_or_default().to_lowercase());
        match self {
            Self::Id => by!(|batch: BatchView<'_>| filled(batch.id().to_owned())),
            Self::Name => by!(|batch: BatchView<'_>| word(batch.added("name"))),
            Self::Provider => by!(|batch: BatchView<'_>| filled(batch.provider().to_owned())),
            Self::Model => by!(|batch: BatchView<'_>| word(batch.field("model"))),
            Self::Status => by!(|batch: BatchView<'_>| {
                crate::domain::status::Status::ALL.iter().position(|status| status.as_str() == batch.status())
            }),
            Self::Result => by!(|batch: BatchView<'_>| batch.outcome().map(str::to_owned)),
            Self::Progress => by!(|batch: BatchView<'_>| {
                let counts = batch.counts().filter(|_| !batch.is_uncounted());
                counts.map(|counts| (counts.percent(), counts.done()))
            }),
            Self::Eta => by!(|batch: BatchView<'_>| batch.time("eta").filter(|_| is_expected(batch))),
            Self::Age => {
                by!(|batch: BatchView<'_>| batch
                    .created_at()
                    .filter(|_| !batch.is_over())
                    .map(|at| since(at, now)))
            }
            Self::Duration => by!(BatchView::duration),
            Self::Created => by!(BatchView::created_at),
            Self::Ended => by!(BatchView::ended_at),
            Self::Owner => by!(|batch: BatchView<'_>| word(batch.added("owner"))),
            Self::Labels => by!(|batch: BatchView<'_>| filled(labels(batch))),
            Self::Deadline => by!(|batch: BatchView<'_>| batch.time("deadline")),
            Self::Cost => by!(|batch: BatchView<'_>| batch.cost("amount")),
            Self::Note => Ordering::Equal,
        }
    }
}

impl Sort {
    /// Reads `KEY` or `-KEY`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let word = text.strip_prefix('-').unwrap_or(text);
        match Key::from_word(word) {
            Some(key) => Ok(Self { key, reversed: word.len() < text.len() }),
            None => Err(format!("one of {}", words())),
        }
    }

    /// Puts `batches` into this order; those that are alike stay as they stand.
    pub fn sort(self, batches: &mut [Value], now: Timestamp) {
        batches.sort_by(|a, b| self.key.compare(self.reversed, BatchView(a), BatchView(b), now));
    }
}

/// Every word, for an error.
pub fn words() -> String {
    Key::ALL.map(Key::word).join(", ")
}

/// `batches` as a table of these columns.
pub fn table(keys: &[Key], batches: &[Value], now: Timestamp, zone: &TimeZone) -> Table {
    let mut table = Table::new(&keys.iter().map(|key| key.column()).collect::<Vec<_>>());
    for batch in batches {
        table.row(keys.iter().map(|key| key.cell(BatchView(batch), now, zone, keys)).collect());
    }
    table
}

/// Whether the end of a batch is waited for.
fn is_expected(batch: BatchView<'_>) -> bool {
    !batch.is_over() && !batch.is_untracked()
}

/// When it should end, ever more shortly.
fn eta(batch: BatchView<'_>, now: Timestamp) -> Vec<String> {
    let left = |at: Timestamp| match since(now, at) {
        Duration::ZERO => "now".to_owned(),
        left => whole_seconds(left),
    };
    if !is_expected(batch) {
        return Vec::new();
    }
    let Some(at) = batch.time("eta") else { return vec!["–".to_owned()] };
    let bounds = batch.added("eta_interval");
    let whole = match (time(&bounds[0]), time(&bounds[1])) {
        // One number where it is sure enough, for a table is read at a glance.
        (Some(earliest), Some(latest)) if since(earliest, latest) * 4 > since(now, at) => {
            format!("{} ({} to {})", left(at), left(earliest), left(latest))
        }
        _ => left(at),
    };
    let short = left(at);
    let shortest = short.split(' ').take(2).collect::<Vec<_>>().join(" ");
    vec![whole, short, shortest]
}

/// In a table that is drawn anew, what is less than a second is noise.
fn whole_seconds(span: Duration) -> String {
    human(Duration::from_secs(span.as_secs()))
}

fn labels(batch: BatchView<'_>) -> String {
    let labels = batch.added("labels").as_object();
    let pairs = labels.into_iter().flatten().map(|(key, value)| match value {
        Value::String(text) => format!("{key}={text}"),
        other => format!("{key}={other}"),
    });
    pairs.collect::<Vec<_>>().join(",")
}

/// What is wrong with a batch.
fn note(batch: BatchView<'_>) -> (String, Tone) {
    if batch.is_untracked() {
        ("untracked".to_owned(), Tone::Faint)
    } else if batch.added("lost") == true {
        ("lost: its provider no longer knows it".to_owned(), Tone::Bad)
    } else if let (false, Some(error)) = (batch.is_over(), batch.added("last_error").as_str()) {
        (error.trim().to_owned(), Tone::Warning)
    } else if batch.added("stalled") == true {
        ("stalled: no progress".to_owned(), Tone::Warning)
    } else {
        (String::new(), Tone::Plain)
    }
}

#[cfg(test)]
mod tests {
    use super::super::style::Style;
    use super::*;
    use serde_json::json;

    const NOW: Timestamp = Timestamp::constant(1_795_000_000, 0);

    fn batches() -> Vec<Value> {
        vec![
            json!({"id": "batch_68fd8e2f1c0c8190a1b2c3d4e5f60718", "status": "in_progress", "created_at": 1_794_988_470,
                "request_counts": {"total": 4000, "completed": 1180, "failed": 20},
                "batchd": {"provider": "openai", "kind": "openai", "name": "nightly evals", "eta": "2026-11-18T12:30:00Z",
                    "eta_interval": ["2026-11-18T12:12:00Z", "2026-11-18T12:51:00Z"]}}),
            json!({"id": "msgbatch_2", "status": "in_progress", "created_at": 1_794_999_990,
                "request_counts": {"total": 120, "completed": 0, "failed": 0},
                "batchd": {"provider": "anthropic", "kind": "anthropic", "last_error": "503: overloaded\n"}}),
            json!({"id": "batch_3", "status": "completed", "created_at": 1_794_900_000, "completed_at": 1_794_907_200,
                "request_counts": {"total": 120, "completed": 98, "failed": 22},
                "batchd": {"provider": "openai", "kind": "openai", "outcome": "partial", "labels": {"team": "evals"}}}),
            json!({"id": "batch_4", "status": "failed", "created_at": 1_794_900_000,
                "batchd": {"provider": "openai", "kind": "openai", "outcome": "failed"}}),
        ]
    }

    fn at(width: u16) -> String {
        let table = table(&Key::DEFAULT, &batches(), NOW, &TimeZone::UTC);
        table.render(Style { width: Some(width).filter(|width| *width > 0), ..Style::default() })
    }

    #[test]
    fn a_row_tells_what_matters_at_any_width() {
        for width in [0, 120, 80, 60, 40, 20] {
            insta::assert_snapshot!(format!("list_at_{width}"), at(width));
        }
    }

    #[test]
    fn a_name_of_ten_thousand_letters_takes_nobody_s_place() {
        let mut batches = batches();
        batches[0]["batchd"]["name"] = "n".repeat(10_000).into();
        let text = table(&Key::DEFAULT, &batches, NOW, &TimeZone::UTC)
            .render(Style { width: Some(80), ..Style::default() });
        let header = text.lines().next().unwrap();
        assert!(["NAME", "STATUS", "PROGRESS", "ETA"].iter().all(|title| header.contains(title)), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn what_is_not_known_is_sorted_last_in_both_directions() {
        let order = |text: &str| {
            let mut batches = batches();
            Sort::parse(text).unwrap().sort(&mut batches, NOW);
            batches
                .iter()
                .map(|batch| batch["id"].as_str().unwrap().chars().last().unwrap())
                .collect::<String>()
        };
        assert_eq!(order("duration"), "3824");
        assert_eq!(order("-created"), "2834");
        assert_eq!(order("created"), "3482");
        assert_eq!(order("-name"), "8234");
        assert_eq!(order("status"), "8234");
        assert_eq!(order("progress"), "8324");
        assert!(Sort::parse("size").unwrap_err().starts_with("one of id, name, provider"));
    }

    #[test]
    fn spans_are_in_whole_seconds() {
        assert_eq!(whole_seconds(Duration::from_millis(854)), "0 s");
        assert_eq!(whole_seconds(Duration::from_millis(1_854)), "1 s");
    }
}
