//! The words of `reasoning_effort`, and which of them stands for another where a model lacks it.

/// From the least to the most; `none` and `auto` are no amounts.
const EFFORTS: [&str; 6] = ["minimal", "low", "medium", "high", "xhigh", "max"];

/// The effort out of `taken` (some of [`EFFORTS`], in their order) that comes next to `wanted`, not above it if there is
/// one; `None` if `wanted` is no such word.
pub(super) fn nearest<'a>(wanted: &str, taken: &[&'a str]) -> Option<&'a str> {
    let place = |word: &str| EFFORTS.iter().position(|effort| *effort == word);
    let wanted = place(wanted)?;
    let below = taken.iter().rev().find(|word| place(word).is_some_and(|place| place <= wanted));
    below.or(taken.first()).copied()
}

/// Whether it is an amount of thought.
pub(super) fn is_amount(word: &str) -> bool {
    EFFORTS.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_effort_becomes_the_next_lower_one() {
        for (wanted, taken, nearest_is) in [
            ("medium", &["low", "medium", "high"][..], Some("medium")),
            ("xhigh", &["low", "medium", "high", "max"], Some("high")),
            ("max", &["low", "medium", "high"], Some("high")),
            ("minimal", &["low", "high"], Some("low")),
            ("medium", &["low", "high"], Some("low")),
            ("medium", &["high"], Some("high")),
            ("none", &["low"], None),
            ("a lot", &["low"], None),
        ] {
            assert_eq!(nearest(wanted, taken), nearest_is, "{wanted} of {taken:?}");
        }
    }
}
