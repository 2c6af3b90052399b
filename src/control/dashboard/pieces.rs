//! The small pieces that pages are made of: texts from outside, times, statuses, bars, buttons.

use super::visitor::Visitor;
use crate::domain::batch::RequestCounts;
use crate::domain::duration::human;
use crate::domain::outcome::{Outcome, Severity};
use crate::domain::printable::clean;
use crate::domain::status::Status;
use crate::domain::time::since;
use crate::domain::tracked::Tracked;
use crate::webhook::text::number;
use jiff::Timestamp;
use maud::{Markup, html};
use std::time::Duration;
use unicode_segmentation::UnicodeSegmentation as _;

/// A text from outside: of at most `most` letters, with everything visible that would hide or turn it round, and apart
/// from the direction of what stands beside it.
pub(super) fn text(raw: &str, most: usize) -> Markup {
    html! { bdi { (cut(raw, most)) } }
}

/// The same where no markup can be: in an attribute, in a title.
pub(super) fn cut(raw: &str, most: usize) -> String {
    // Letters that are made of very many characters must not make it long either.
    let bounded: String = raw.chars().take(most.saturating_mul(8)).collect();
    let mut letters = bounded.graphemes(true);
    let kept: String = letters.by_ref().take(most).collect();
    let more = letters.next().is_some() || raw.len() > bounded.len();
    let mut shown = clean(&kept).into_owned();
    if more {
        shown.push('…');
    }
    shown
}

/// An instant as far from now as it is: `12 m ago`, `in 5 s`.
pub(super) fn when(at: Timestamp, now: Timestamp) -> Markup {
    let words = if at > now {
        format!("in {}", human(rounded(since(now, at))))
    } else {
        let ago = rounded(since(at, now));
        if ago < Duration::from_secs(1) { "now".to_owned() } else { format!("{} ago", human(ago)) }
    };
    html! { time datetime=(at) title=(instant(at)) { (words) } }
}

/// The same of what is to be done then, or as soon as it is its turn.
pub(super) fn due(at: Timestamp, now: Timestamp) -> Markup {
    html! { @if at > now { (when(at, now)) } @else { time datetime=(at) title=(instant(at)) { "due" } } }
}

/// The same for a text that the API gives; nothing if it is none.
pub(super) fn when_text(at: Option<&str>, now: Timestamp) -> Markup {
    known(at.and_then(|at| at.parse().ok()).map(|at| when(at, now)))
}

/// A dash in place of what is not known.
pub(super) fn known(value: Option<Markup>) -> Markup {
    value.unwrap_or_else(|| html! { span.none { "–" } })
}

/// An instant as it stands in a table of instants.
pub(super) fn moment(at: Timestamp) -> Markup {
    html! { time datetime=(at) { (instant(at)) } }
}

/// `2026-11-28 14:02:09 UTC`
pub(super) fn instant(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// As exact as it is worth reading: of minutes without seconds, of days without minutes.
pub(super) fn rounded(duration: Duration) -> Duration {
    let seconds = duration.as_secs();
    let grain = match seconds {
        0..60 => 1,
        60..86_400 => 60,
        _ => 3600,
    };
    Duration::from_secs(seconds - seconds % grain)
}

pub(super) fn whole(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}

/// `1.2 GB`
pub(super) fn bytes(count: u64) -> String {
    let units = [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1000)];
    match units.into_iter().find(|(_, size)| count >= *size) {
        Some((unit, size)) => format!("{}.{} {unit}", count / size, count % size * 10 / size),
        None => format!("{count} B"),
    }
}

/// What a batch has come to, in a word, a sign and a colour.
pub(super) fn status(tracked: &Tracked) -> Markup {
    let outcome = tracked.outcome();
    let (class, sign) = match (outcome.map(Outcome::severity), tracked.batch.status) {
        (Some(Severity::Error), _) => ("bad", "✗"),
        (Some(Severity::Warning), _) => ("warn", "!"),
        (_, Status::Completed) => ("good", "✓"),
        (_, Status::Cancelled) => ("still", "–"),
        _ if tracked.untracked_at.is_some() => ("still", "○"),
        _ => ("live", "●"),
    };
    let status = tracked.batch.status.as_str().replace('_', " ");
    let word = match outcome {
        Some(Outcome::Partial) => format!("{status}, with errors"),
        Some(Outcome::AllFailed) => format!("{status}, all failed"),
        Some(Outcome::ExpiredWithOutput | Outcome::CancelledWithOutput) => format!("{status}, with output"),
        None if tracked.untracked_at.is_some() => format!("{status}, untracked"),
        _ => status,
    };
    html! { (badge(class, sign, &word)) @if tracked.stalled_since.is_some() && tracked.is_active() { " " (badge("warn", "!", "stalled")) } @if tracked.lost_since.is_some() { " " (badge("bad", "✗", "lost")) } }
}

pub(super) fn badge(class: &str, sign: &str, word: &str) -> Markup {
    html! { span.badge.{(class)} { span aria-hidden="true" { (sign) " " } (word) } }
}

/// How a provider or a webhook fares.
pub(super) fn health(word: &str) -> Markup {
    let (class, sign) = match word {
        "ok" => ("good", "✓"),
        "refused" | "unreachable" | "disabled" => ("bad", "✗"),
        "held" | "failing" | "paused" => ("warn", "!"),
        _ => ("still", "○"),
    };
    badge(class, sign, word)
}

/// A bar of what succeeded and what failed, with the numbers beside it.
pub(super) fn progress(counts: Option<RequestCounts>, ended: bool) -> Markup {
    let Some(counts) = counts.filter(|counts| counts.total > 0 || counts.done() > 0) else {
        return html! { span.none { "–" } };
    };
    let total = counts.total.max(counts.done()).max(1);
    let good = permille(counts.completed, total);
    let bad = permille(counts.failed, total).max(u64::from(counts.failed > 0) * 8).min(1000);
    let good = good.min(1000 - bad);
    let percent = counts.done().saturating_mul(100) / total;
    let said = format!(
        "{percent} % done: {} succeeded, {} failed, {} in all",
        number(counts.completed),
        number(counts.failed),
        number(total)
    );
    html! {
        div.progress {
            svg viewBox="0 0 1000 10" preserveAspectRatio="none" role="img" aria-label=(said) {
                rect.track width="1000" height="10" {}
                rect.good width=(good) height="10" {}
                rect.bad x=(good) width=(bad) height="10" {}
            }
            span.counts {
                @if !ended { b { (percent) " %" } " " }
                (number(counts.completed)) " ok"
                @if counts.failed > 0 { " " span.failed { (number(counts.failed)) " ✗" } }
            }
        }
    }
}

fn permille(part: u64, total: u64) -> u64 {
    u64::try_from(u128::from(part) * 1000 / u128::from(total.max(1))).unwrap_or(1000)
}

/// A form of one button that does something; nothing for who may not.
pub(super) fn button(visitor: &Visitor, action: &str, label: &str, fields: &[(&str, &str)]) -> Markup {
    if !visitor.may_act {
        return html! {};
    }
    html! {
        form.act method="post" action=(visitor.link(&format!("/actions/{action}"))) {
            (form_fields(visitor))
            @for (name, value) in fields { input type="hidden" name=(name) value=(value); }
            button type="submit" { (label) }
        }
    }
}

/// What every form carries that does something: whose it is, and where to go on.
pub(super) fn form_fields(visitor: &Visitor) -> Markup {
    html! {
        input type="hidden" name="form_word" value=(visitor.form_word());
        input type="hidden" name="back" value=(visitor.here);
    }
}

/// Names and values.
pub(super) fn facts(facts: &[(&str, Markup)]) -> Markup {
    html! {
        dl.facts {
            @for (name, value) in facts { div { dt { (name) } dd { (value) } } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_from_outside_are_harmless_and_short() {
        let shown = text("<script>alert(1)</script>\u{202e}\u{1b}[31m\"'&", 200).into_string();
        assert_eq!(shown, "<bdi>&lt;script&gt;alert(1)&lt;/script&gt;\\u{202e}\\u{1b}[31m&quot;'&amp;</bdi>");
        assert_eq!(cut(&"x".repeat(10_000), 10), format!("{}…", "x".repeat(10)));
        assert_eq!(cut("👩\u{200d}🚀👩\u{200d}🚀", 1), "👩\u{200d}🚀…");
        assert!(cut(&format!("a{}", "\u{301}".repeat(100_000)), 10).len() < 500);
    }

    #[test]
    fn a_bar_is_never_longer_than_whole() {
        for (total, completed, failed) in
            [(0, 0, 0), (10, 9, 1), (1, 5, 5), (1_000_000, 0, 1), (u64::MAX, u64::MAX, 0)]
        {
            let bar = progress(Some(RequestCounts { total, completed, failed }), false).into_string();
            let widths: Vec<u64> = bar
                .split("width=\"")
                .skip(2)
                .filter_map(|rest| rest.split('"').next()?.parse().ok())
                .collect();
            assert!(widths.iter().sum::<u64>() <= 1000, "{bar}");
        }
        assert!(progress(None, false).into_string().contains('–'));
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(
            [999, 1500, 2_000_000, 1_250_000_000_000].map(bytes),
            ["999 B", "1.5 kB", "2.0 MB", "1.2 TB"]
        );
    }
}
