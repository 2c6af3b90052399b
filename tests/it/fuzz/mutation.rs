//! Changes to an input, as a fuzzer makes them: small, blind, and from a seed.

/// One of `inputs`, changed in a few places.
pub fn mutated(inputs: &[Vec<u8>], rng: &mut fastrand::Rng) -> Vec<u8> {
    let Some(mut input) = rng.choice(inputs).cloned() else {
        return (0..rng.usize(..64)).map(|_| rng.u8(..)).collect();
    };
    for _ in 0..rng.u32(1..7) {
        change(&mut input, inputs, rng);
    }
    input.truncate(LONGEST);
    input
}

fn change(input: &mut Vec<u8>, inputs: &[Vec<u8>], rng: &mut fastrand::Rng) {
    if input.is_empty() {
        input.extend_from_slice(rng.choice(TOKENS).map_or(b"", |token| token.as_bytes()));
        return;
    }
    // The first byte often says which kind is meant: it is left alone more often than not.
    let at = rng.usize(..input.len());
    let end = (at + 1 + rng.usize(..16).min(rng.usize(..64))).min(input.len());
    match rng.u32(..12) {
        0 => input[at] ^= 1 << rng.u32(..8),
        1 => input[at] = rng.u8(..),
        2 => drop(input.drain(at..end)),
        3 => {
            let piece = input[at..end].to_vec();
            let times = rng.usize(1..40);
            input.splice(at..at, piece.repeat(times));
        }
        4..7 => {
            let token = rng.choice(TOKENS).copied().unwrap_or_default();
            input.splice(at..at, token.bytes());
        }
        7 | 8 => replace_value(input, at, rng),
        9 => {
            let other = rng.choice(inputs).cloned().unwrap_or_default();
            let from = rng.usize(..other.len().max(1)).min(other.len());
            let to = (from + rng.usize(..200)).min(other.len());
            input.splice(at..at, other[from..to].iter().copied());
        }
        10 => input.truncate(at),
        _ => {
            let token = rng.choice(TOKENS).copied().unwrap_or_default();
            input.splice(at..end, token.bytes());
        }
    }
}

/// Puts something else where a JSON value stands behind the next colon.
fn replace_value(input: &mut Vec<u8>, at: usize, rng: &mut fastrand::Rng) {
    let Some(colon) = input[at..].iter().position(|byte| *byte == b':') else { return };
    let from = at + colon + 1;
    let end = input[from..].iter().position(|byte| matches!(byte, b',' | b'}' | b'\n'));
    let end = end.map_or(input.len(), |end| from + end);
    let value = rng.choice(VALUES).copied().unwrap_or_default();
    input.splice(from..end, value.bytes());
}

const VALUES: &[&str] = &[
    "null",
    "true",
    "0",
    "-1",
    "1e400",
    "-1e400",
    "NaN",
    "Infinity",
    "18446744073709551615",
    "9223372036854775808",
    "253402300800",
    "-62135596801",
    "1.5",
    "\"\"",
    "\"1\"",
    "\"completed\"",
    "\"9999-12-31T23:59:59.999999999Z\"",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "[]",
    "[[]]",
    "{}",
    "{\"id\":{}}",
    "[null]",
    "\"../..\"",
    "\"https://x/y?z\"",
];

const TOKENS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\u",
    "\\ud83d",
    "\u{0}",
    "\n",
    "\r\n",
    "\t",
    " ",
    "\u{feff}",
    "\u{10fffe}",
    "null",
    "NaN",
    "-",
    "e+999",
    "1e999",
    "99999999999999999999999",
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "#}",
    "|",
    "=",
    "&",
    "%",
    "%00",
    "%ff",
    "#",
    "'",
    "\"\"\"",
    "[[",
    "]]",
    "\"id\":",
    "\"status\":",
    "\"error\":",
    "\"data\":",
    "\"metadata\":",
    "\"name\":",
    "\"output_file_id\":",
    "\"request_counts\":",
    "\"created_at\":",
    "ä",
    "💥",
    "\u{202e}",
    "\u{1b}[",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    "{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":",
    "{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{{",
    "((((((((((((((((((((((((((((((((",
    "@",
    "*/",
    "L",
    "W",
    "?",
    "ms",
    "d",
    "w",
    "Mon",
    "GMT",
    "1970",
    "+",
    "_",
    ".",
    "/",
    "\\\\",
    "-----",
];

/// Of an input.
const LONGEST: usize = 64 * 1024;
