//! Sizes as people write them: `50GiB`, `500MB`, `4096B`.

/// Bytes of each unit, by its name.
const UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KB", 1000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
];

/// Reads a whole number with a unit, in bytes. A unit may be written in small letters throughout; `Gb`, with a small
/// `b` behind a capital, is a gigabit everywhere else and no size here. `None`: it is no size.
pub fn parse(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (amount, unit) = text.split_at(digits);
    let amount: u64 = amount.parse().ok()?;
    let bits = unit.ends_with('b') && unit.starts_with(|c: char| c.is_ascii_uppercase());
    let (_, bytes) = UNITS.iter().filter(|_| !bits).find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    amount.checked_mul(*bytes)
}

/// A size as a configuration has it, in the largest unit that leaves no rest.
pub fn compact(bytes: u64) -> String {
    let binary = UNITS.iter().filter(|(name, _)| *name == "B" || name.ends_with("iB"));
    let (name, unit) = binary
        .filter(|(_, unit)| bytes.is_multiple_of(*unit))
        .max_by_key(|(_, unit)| *unit)
        .unwrap_or(&UNITS[0]);
    format!("{}{name}", bytes / unit)
}

/// What was probably meant by a text that is no size: the same number of the unit that its words name. `50 GB` is
/// `50GB`, and `50G` is `50GiB`, as tools that write it so count.
pub fn guess(text: &str) -> Option<String> {
    let digits: String = text.trim().chars().take_while(char::is_ascii_digit).collect();
    let word = text.trim()[digits.len()..].trim().to_ascii_lowercase();
    let named = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(&word)).map(|(name, _)| *name);
    let unit = named
        .or_else(|| WORDS.iter().find(|(words, _)| words.contains(&word.as_str())).map(|(_, unit)| *unit));
    let guess = format!("{digits}{}", unit?);
    parse(&guess).map(|_| guess)
}

/// Other ways to write a unit.
const WORDS: [(&[&str], &str); 9] = [
    (&["byte", "bytes"], "B"),
    (&["kbyte", "kbytes", "kilobyte", "kilobytes"], "KB"),
    (&["k", "ki", "kibibyte", "kibibytes"], "KiB"),
    (&["mbyte", "mbytes", "megabyte", "megabytes"], "MB"),
    (&["m", "mi", "mebibyte", "mebibytes"], "MiB"),
    (&["gbyte", "gbytes", "gigabyte", "gigabytes"], "GB"),
    (&["g", "gi", "gibibyte", "gibibytes"], "GiB"),
    (&["tbyte", "tbytes", "terabyte", "terabytes"], "TB"),
    (&["t", "ti", "tebibyte", "tebibytes"], "TiB"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units() {
        assert_eq!(parse("50GiB"), Some(50 << 30));
        assert_eq!(parse("1gib"), Some(1 << 30));
        assert_eq!(parse("500MB"), Some(500_000_000));
        assert_eq!(parse("0B"), Some(0));
        assert_eq!((parse("1gb"), parse("1KB"), parse("1kB")), (Some(1_000_000_000), Some(1000), Some(1000)));
        for bad in ["Gb", "Mb", "GIb", "Kb", "Gib"] {
            assert_eq!(parse(&format!("50{bad}")), None, "{bad}");
        }
        for bad in ["", "50", "GiB", "50 GiB", "-1B", "1.5GiB", "50G", "99999999999TiB"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn guesses() {
        assert_eq!(guess("50G").as_deref(), Some("50GiB"));
        for (written, meant) in [
            ("50 GB", "50GB"),
            ("50Gb", "50GB"),
            ("50 kb", "50KB"),
            ("50 Gib", "50GiB"),
            ("50 megabytes", "50MB"),
        ] {
            assert_eq!(guess(written).as_deref(), Some(meant), "{written}");
        }
        assert_eq!(guess("50 MiB").as_deref(), Some("50MiB"));
        assert_eq!(guess("50"), None);
        assert_eq!(guess("GiB"), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = (parse(&text), guess(&text));
        }
    }
}
