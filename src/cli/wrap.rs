//! Text that is wrapped between words, under where it begins.

use super::style::Style;
use unicode_width::UnicodeWidthStr as _;

/// `text` behind a beginning of `indent` columns: what does not fit into the stream goes on under its own beginning.
/// A word that is longer than a line is left whole, so that it can be copied. Where the stream has no width, or hardly
/// any room is left behind the beginning, nothing is wrapped.
pub fn hanging(text: &str, indent: usize, style: Style) -> String {
    let room = style.width.map_or(usize::MAX, |width| usize::from(width).saturating_sub(indent));
    if room < MIN_ROOM || text.width() <= room {
        return text.to_owned();
    }
    let mut wrapped = String::new();
    let mut used = 0;
    for word in text.split(' ') {
        let width = word.width();
        if used > 0 && used + 1 + width > room {
            wrapped.push('\n');
            wrapped.extend(std::iter::repeat_n(' ', indent));
            used = 0;
        } else if used > 0 {
            wrapped.push(' ');
            used += 1;
        }
        wrapped.push_str(word);
        used += width;
    }
    wrapped
}

/// In fewer columns nobody reads a sentence.
const MIN_ROOM: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(width: u16, indent: usize, text: &str) -> String {
        hanging(text, indent, Style { width: Some(width), ..Style::default() })
    }

    #[test]
    fn words_stay_whole() {
        let text = "batchd_id=bd-e881ddaea5e3a0e76289e90e7ca03a50, sandbox_outcome=partial, more";
        assert_eq!(
            at(60, 14, text),
            "batchd_id=bd-e881ddaea5e3a0e76289e90e7ca03a50,\n              sandbox_outcome=partial, more"
        );
        assert_eq!(at(200, 14, text), text);
        assert_eq!(hanging(text, 14, Style::default()), text, "a file has no width");
        assert_eq!(at(30, 14, text), text, "no room");
        let address = "https://example.com/a/long/address/that/is/copied and more";
        assert_eq!(at(30, 2, address), "https://example.com/a/long/address/that/is/copied\n  and more");
    }
}
