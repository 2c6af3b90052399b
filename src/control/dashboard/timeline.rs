//! A batch's life as a picture: when each status began, as the provider tells it and as it was seen here.

use super::pieces::instant;
use crate::domain::duration::human;
use crate::domain::time::{from_seconds, later, since};
use crate::domain::tracked::{Tracked, Transition};
use jiff::Timestamp;
use maud::{Markup, html};
use std::time::Duration;

/// Width of the line of time, in the picture's own units.
const WIDTH: f64 = 920.0;
const LEFT: f64 = 40.0;

/// The picture; `None`: there is nothing to show yet.
pub(super) fn draw(tracked: &Tracked, transitions: &[Transition], now: Timestamp) -> Option<Markup> {
    let created = from_seconds(tracked.batch.created_at);
    let happened: Vec<(Timestamp, String)> = created
        .map(|at| (at, "created".to_owned()))
        .into_iter()
        .chain(transitions.iter().filter_map(|step| Some((step.occurred_at?, step.to.to_string()))))
        .collect();
    let seen: Vec<(Timestamp, String)> =
        transitions.iter().map(|step| (step.observed_at, step.to.to_string())).collect();
    let from = happened.iter().chain(&seen).map(|(at, _)| *at).min()?;
    let last = happened.iter().chain(&seen).map(|(at, _)| *at).max()?;
    let eta = tracked.eta.filter(|_| tracked.is_active());
    let to = match eta {
        Some(eta) => eta.latest.max(now),
        None if tracked.is_active() => now,
        None => last,
    };
    // Something that has only begun is not stretched over the whole width.
    let to = to.max(later(from, Duration::from_secs(1)));
    let span = since(from, to).as_secs_f64();
    let place = |at: Timestamp| LEFT + WIDTH * (since(from, at).as_secs_f64() / span).min(1.0);
    let said = said(&happened, &seen);
    Some(html! {
        figure.timeline {
            svg viewBox="0 0 1000 150" role="img" aria-label=(said) {
                text.lane x=(LEFT) y="20" { "happened, as the provider tells" }
                text.lane x=(LEFT) y="142" { "seen by batchd" }
                line.axis x1=(LEFT) x2=(LEFT + WIDTH) y1="75" y2="75" {}
                @if let Some(eta) = eta {
                    rect.expected x=(tenth(place(eta.earliest.max(now)))) y="66" height="18" rx="4"
                        width=(tenth((place(eta.latest.max(now)) - place(eta.earliest.max(now))).max(2.0))) {}
                    line.expected-at x1=(tenth(place(eta.at.max(now)))) x2=(tenth(place(eta.at.max(now)))) y1="62" y2="88" {}
                }
                @if tracked.is_active() {
                    line.now x1=(tenth(place(now))) x2=(tenth(place(now))) y1="55" y2="95" {}
                }
                (marks(&spread(&happened, place), 52.0, "happened"))
                (marks(&spread(&seen, place), 98.0, "seen"))
            }
            figcaption {
                (instant(from)) " to " (instant(to)) ", " (human(Duration::from_secs(since(from, to).as_secs())))
                @if eta.is_some() { "; shaded: when it is expected to end, four times in five" }
            }
        }
    })
}

/// Marks with their words, of which those that would stand upon each other are one.
fn spread(points: &[(Timestamp, String)], place: impl Fn(Timestamp) -> f64) -> Vec<(f64, String)> {
    let mut sorted: Vec<(f64, &str)> = points.iter().map(|(at, word)| (place(*at), word.as_str())).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut groups: Vec<(f64, String, f64)> = Vec::new();
    for (at, word) in sorted {
        let word = word.replace('_', " ");
        match groups.last_mut() {
            Some((_, words, end)) if at < *end + 8.0 => {
                words.push_str(", ");
                words.push_str(&word);
                *end += letters(&word) + 14.0;
            }
            _ => groups.push((at, word.clone(), at + letters(&word))),
        }
    }
    groups.into_iter().map(|(at, words, _)| (at, words)).collect()
}

/// How wide a word is, about.
fn letters(word: &str) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a word is short")]
    let count = word.chars().count() as f64;
    count * 7.6
}

fn marks(points: &[(f64, String)], y: f64, class: &str) -> Markup {
    let words_y = if class == "seen" { y + 22.0 } else { y - 12.0 };
    html! {
        @for (x, words) in points {
            @let at_the_end = x + letters(words) > LEFT + WIDTH + 40.0;
            circle.{(class)} cx=(tenth(*x)) cy=(y + if class == "seen" { -9.0 } else { 9.0 }) r="6" {}
            text.word x=(tenth(*x)) y=(words_y) text-anchor=(if at_the_end { "end" } else { "start" }) { (words) }
        }
    }
}

/// Enough for a picture.
fn tenth(value: f64) -> String {
    format!("{value:.1}")
}

fn said(happened: &[(Timestamp, String)], seen: &[(Timestamp, String)]) -> String {
    let list = |points: &[(Timestamp, String)]| {
        points.iter().map(|(at, word)| format!("{word} {}", instant(*at))).collect::<Vec<_>>().join("; ")
    };
    format!("Happened: {}. Seen: {}.", list(happened), list(seen))
}
