//! Pictures of numbers, drawn on the server: bars of checks, days of ends, points of durations.

use crate::domain::duration::human;
use crate::domain::status::Status;
use crate::domain::time::from_seconds;
use crate::store::figures::Ends;
use crate::webhook::text::number;
use maud::{Markup, html};
use std::time::Duration;

/// One bar of a row.
pub(super) struct Bar {
    pub(super) is_good: bool,
    /// In any unit, the same for all of a row.
    pub(super) height: f64,
    pub(super) said: String,
}

/// A point in a picture of durations.
pub(super) struct Point {
    /// Unix seconds.
    pub(super) at: i64,
    /// In seconds, at least 1.
    pub(super) value: f64,
    pub(super) is_good: bool,
}

/// How many bars a row has room for.
const BARS: usize = 48;

/// A row of bars, the newest on the right.
pub(super) fn bars(bars: &[Bar], said: &str) -> Markup {
    let most = bars.iter().map(|bar| bar.height).fold(f64::MIN_POSITIVE, f64::max);
    let first = BARS.saturating_sub(bars.len());
    html! {
        svg.bars viewBox="0 0 240 24" preserveAspectRatio="xMinYMid" role="img" aria-label=(said) {
            @for place in 0..first { rect.none x=(place * 5) y="20" width="4" height="4" {} }
            @for (place, bar) in (first..).zip(bars) {
                // A square root, so that one long wait leaves something to see of the others.
                @let height = (4.0 + 20.0 * (bar.height.max(0.0) / most).sqrt()).min(24.0);
                rect.good[bar.is_good].bad[!bar.is_good] x=(place * 5) y=(format!("{:.1}", 24.0 - height)) width="4" height=(format!("{height:.1}")) {
                    title { (bar.said) }
                }
            }
        }
    }
}

/// The ends of which a day's column is made, from below, each with its class.
const ENDS: [(Status, &str); 4] = [
    (Status::Completed, "good"),
    (Status::Cancelled, "still"),
    (Status::Expired, "warn"),
    (Status::Failed, "bad"),
];

/// A column for each of the `count` days up to `today`, stacked by how batches ended.
pub(super) fn days(ends: &[Ends], today: i64, count: i64) -> Markup {
    let of = |day: i64, status: Status| -> u64 {
        ends.iter().filter(|end| end.day == day && end.status == status).map(|end| end.count).sum()
    };
    let whole = |day: i64| ENDS.iter().map(|(status, _)| of(day, *status)).sum::<u64>();
    let all: Vec<i64> = (today - count + 1..=today).collect();
    let most = all.iter().map(|day| whole(*day)).max().unwrap_or_default().max(1);
    // Columns of 28 units on a ground of 160.
    let tall = |count: u64| u64::try_from(u128::from(count) * 140 / u128::from(most)).unwrap_or(140);
    let said = ENDS.map(|(status, _)| {
        let sum: u64 = all.iter().map(|day| of(*day, status)).sum();
        format!("{} {status}", number(sum))
    });
    html! {
        figure.chart {
            svg viewBox="0 -16 1000 216" role="img" aria-label=(format!("In the last {count} days: {}", said.join(", "))) {
                text.scale x="10" y="10" { (number(most)) }
                line.grid x1="10" x2="990" y1="20" y2="20" {}
                line.axis x1="10" x2="990" y1="160" y2="160" {}
                @for (place, day) in all.iter().enumerate() {
                    @let x = 40 + place * 30;
                    @let stacked = stack(&ENDS.map(|(status, _)| tall(of(*day, status))));
                    g {
                        title { (date(*day)) ": " @for (status, _) in ENDS { (of(*day, status)) " " (status.as_str()) " " } }
                        @for ((_, class), (y, height)) in ENDS.iter().zip(stacked) {
                            @if height > 0 { rect.{(class)} x=(x) y=(y) width="24" height=(height) {} }
                        }
                    }
                    @if place % 7 == 1 { text.scale x=(x + 12) y="192" text-anchor="middle" { (date(*day)) } }
                }
            }
            figcaption.legend {
                @for (status, class) in ENDS { span { svg.key viewBox="0 0 10 10" aria-hidden="true" { rect.{(class)} width="10" height="10" {} } " " (status.as_str()) } " " }
            }
        }
    }
}

/// Where each piece of a column stands and how tall it is.
fn stack(heights: &[u64; 4]) -> [(u64, u64); 4] {
    let mut below = 0;
    heights.map(|height| {
        below += height;
        (160 - below.min(160), height)
    })
}

fn date(day: i64) -> String {
    from_seconds(day * 86_400).map_or_else(String::new, |at| at.strftime("%b %d").to_string())
}

/// Durations by when they ended, on a logarithmic scale; `band` is (low, middle, high).
pub(super) fn scatter(points: &[Point], band: Option<(f64, f64, f64)>, said: &str) -> Markup {
    let values = || {
        points.iter().map(|point| point.value).chain(band.into_iter().flat_map(|(low, _, high)| [low, high]))
    };
    let low = values().reduce(f64::min).unwrap_or(1.0).max(1.0) / 1.3;
    let high = values().fold(1.0, f64::max) * 1.3;
    let (first, last) =
        (points.iter().map(|point| point.at).min(), points.iter().map(|point| point.at).max());
    let (first, last) = (first.unwrap_or_default(), last.unwrap_or_default());
    let tall = |value: f64| {
        20.0 + 140.0
            * (1.0 - (value.max(1.0) / low).ln() / (high / low).ln().max(f64::MIN_POSITIVE)).clamp(0.0, 1.0)
    };
    #[expect(clippy::cast_precision_loss, reason = "Unix seconds are far below 2^52")]
    let across = |at: i64| 90.0 + 890.0 * ((at - first) as f64 / ((last - first) as f64).max(1.0));
    let mut scale = vec![low * 1.3, (low * high).sqrt(), high / 1.3];
    // What would read the same, or stand upon another, is left out.
    scale.dedup_by(|a, b| about(*a) == about(*b) || (tall(*a) - tall(*b)).abs() < 28.0);
    html! {
        figure.chart {
            svg viewBox="0 0 1000 200" role="img" aria-label=(said) {
                @if let Some((low, middle, high)) = band {
                    rect.band x="90" width="890" y=(unit(tall(high))) height=(unit((tall(low) - tall(high)).max(2.0))) {}
                    line.middle x1="90" x2="980" y1=(unit(tall(middle))) y2=(unit(tall(middle))) {}
                }
                line.axis x1="90" x2="980" y1="164" y2="164" {}
                @for value in scale {
                    text.scale x="82" y=(unit(tall(value) + 5.0)) text-anchor="end" { (about(value)) }
                }
                @for point in points {
                    circle.good[point.is_good].bad[!point.is_good] cx=(unit(across(point.at))) cy=(unit(tall(point.value))) r="4" {}
                }
                text.scale x="90" y="192" { (date(first.div_euclid(86_400))) }
                text.scale x="980" y="192" text-anchor="end" { (date(last.div_euclid(86_400))) }
            }
            figcaption.legend {
                span { svg.key viewBox="0 0 10 10" aria-hidden="true" { circle.good cx="5" cy="5" r="4" {} } " completed" } " "
                span { svg.key viewBox="0 0 10 10" aria-hidden="true" { circle.bad cx="5" cy="5" r="4" {} } " ended otherwise" }
                @if band.is_some() { " " span { svg.key viewBox="0 0 10 10" aria-hidden="true" { rect.band width="10" height="10" {} } " eight in ten, and the usual" } }
            }
        }
    }
}

/// So many seconds in one unit: `45 m`.
fn about(seconds: f64) -> String {
    let seconds = Duration::from_secs_f64(seconds.max(1.0)).as_secs();
    let unit = [604_800, 86_400, 3600, 60].into_iter().find(|unit| seconds >= *unit).unwrap_or(1);
    human(Duration::from_secs(seconds - seconds % unit))
}

fn unit(value: f64) -> String {
    format!("{value:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No coordinate of a picture is a word, and none leads out of it.
    fn is_sound(picture: &str) {
        assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
        assert!(!picture.contains("=\"-"), "{picture}");
    }

    #[test]
    fn pictures_of_odd_numbers_are_sound() {
        let point = |at, value| Point { at, value, is_good: at % 2 == 0 };
        for points in [vec![], vec![point(5, 1.0)], vec![point(0, 1.0), point(i64::from(u32::MAX), 1e9)]] {
            for band in [None, Some((1.0, 1.0, 1.0)), Some((1.0, 60.0, 1e7))] {
                is_sound(&scatter(&points, band, "x").into_string());
            }
        }
        let many = Ends { day: 20_000, status: Status::Failed, count: u64::MAX / 8 };
        let few = Ends { day: 19_999, status: Status::Completed, count: 1 };
        is_sound(&days(&[many, few], 20_000, 30).into_string());
        is_sound(&days(&[], 0, 30).into_string());
        for count in [0, 1, 48] {
            let row: Vec<Bar> =
                (0..count).map(|_| Bar { is_good: true, height: 0.0, said: String::new() }).collect();
            is_sound(&bars(&row, "x").into_string());
        }
    }

    #[test]
    fn a_column_is_as_tall_as_its_pieces() {
        assert_eq!(stack(&[70, 0, 35, 35]), [(90, 70), (90, 0), (55, 35), (20, 35)]);
    }
}
