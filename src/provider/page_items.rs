//! The items of a list's page as they are written: found without decoding them, told apart by a fingerprint, and left out.

use super::lenient::string_end;
use std::hash::{DefaultHasher, Hasher as _};
use std::ops::Range;

/// What tells one text from another, whatever it holds: the same text has the same in every process.
pub fn fingerprint(text: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(text);
    hasher.finish()
}

/// Where the items of the list in `page` stand, each an object, in their order; `None`: it is not clear which they are.
///
/// The list is the outermost array, or the one array of the outermost object that holds anything.
pub fn items(page: &[u8]) -> Option<Vec<Range<usize>>> {
    let begin = blank_end(page, if page.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 });
    match page.get(begin)? {
        b'[' => elements(page, begin).map(|(items, _)| items),
        b'{' => {
            let mut found: Option<Vec<Range<usize>>> = None;
            let mut at = blank_end(page, begin + 1);
            while page.get(at)? == &b'"' {
                at = blank_end(page, string_end(page, at)?);
                if page.get(at)? != &b':' {
                    return None;
                }
                at = blank_end(page, at + 1);
                if page.get(at)? == &b'[' && page.get(blank_end(page, at + 1))? != &b']' {
                    let (items, end) = elements(page, at)?;
                    if found.replace(items).is_some() {
                        return None;
                    }
                    at = end;
                } else {
                    at = value_end(page, at)?;
                }
                at = blank_end(page, at);
                match page.get(at)? {
                    b',' => at = blank_end(page, at + 1),
                    b'}' => return found,
                    _ => return None,
                }
            }
            None
        }
        _ => None,
    }
}

/// Whether `page` names the batch `id`, in an item or around them.
pub fn names(page: &[u8], id: &str) -> bool {
    let quoted = format!("\"{id}\"");
    memchr::memmem::find(page, quoted.as_bytes()).is_some()
}

/// `page` with a number, which is no batch, in place of each of these `items`.
pub fn without<'a>(page: &[u8], items: impl IntoIterator<Item = &'a Range<usize>>) -> Vec<u8> {
    let mut rest = Vec::new();
    let mut copied = 0;
    for item in items {
        rest.extend_from_slice(&page[copied..item.start]);
        rest.push(b'0');
        copied = item.end;
    }
    rest.extend_from_slice(&page[copied..]);
    rest
}

/// The elements of the array that begins `at`, if all are objects, and where it ends.
fn elements(text: &[u8], at: usize) -> Option<(Vec<Range<usize>>, usize)> {
    let mut items = Vec::new();
    let mut at = blank_end(text, at + 1);
    if text.get(at)? == &b']' {
        return Some((items, at + 1));
    }
    loop {
        if text.get(at)? != &b'{' {
            return None;
        }
        let end = value_end(text, at)?;
        items.push(at..end);
        at = blank_end(text, end);
        match text.get(at)? {
            b',' => at = blank_end(text, at + 1),
            b']' => return Some((items, at + 1)),
            _ => return None,
        }
    }
}

/// Where the value ends that begins `at`.
fn value_end(text: &[u8], at: usize) -> Option<usize> {
    match text.get(at)? {
        b'"' => string_end(text, at),
        b'{' | b'[' => {
            let mut depth = 0_usize;
            let mut at = at;
            loop {
                match text.get(at)? {
                    b'"' => {
                        at = string_end(text, at)?;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => {
                        depth -= 1;
                        if depth == 0 {
                            return Some(at + 1);
                        }
                    }
                    _ => {}
                }
                at += 1;
            }
        }
        _ => {
            let ends = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b',' | b'}' | b']');
            text[at..].iter().position(ends).filter(|length| *length > 0).map(|length| at + length)
        }
    }
}

fn blank_end(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn texts(page: &str) -> Option<Vec<&str>> {
        Some(items(page.as_bytes())?.into_iter().map(|item| &page[item]).collect())
    }

    #[test]
    fn items_are_found_as_they_are_written() {
        let page = "\u{feff} {\"object\" : \"list\", \"data\": [ {\"id\": \"a\\\"]}\", \"x\": [1, {}]} ,\n{}\n], \
                    \"more\": true, \"none\": [], \"last\": null }";
        assert_eq!(texts(page).unwrap(), ["{\"id\": \"a\\\"]}\", \"x\": [1, {}]}", "{}"]);
        assert_eq!(texts(r#"[{"id":1},{"id":2}]"#).unwrap(), [r#"{"id":1}"#, r#"{"id":2}"#]);
        assert_eq!(texts("[]").unwrap(), [""; 0]);
        for unclear in [
            "",
            "{",
            "{}",
            "7",
            r#"{"data":[]}"#,
            r#"{"data":[{"id":1},2]}"#,
            r#"{"data":[{"id":1}],"more":[{"id":2}]}"#,
            r#"{"data":[{"id":1}"#,
            r#"{"data":[{"id":"1}]}"#,
            r#"{"data":[{"id":1}],}"#,
            r#"{"data" [{"id":1}]}"#,
        ] {
            assert_eq!(texts(unclear), None, "{unclear}");
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a-z\"\\\\{}\\[\\],: é]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z\"{]{0,4}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_left_out_is_a_number_and_all_else_stays(
            parts in prop::collection::vec((value(), any::<bool>()), 1..12), pretty in any::<bool>(),
        ) {
            let objects: Vec<Value> = parts.iter().map(|(value, _)| json!({"id": "x", "value": value})).collect();
            let page = json!({"a": {"b": [1]}, "data": objects, "next": "y"});
            let text = if pretty { serde_json::to_string_pretty(&page) } else { serde_json::to_string(&page) };
            let text = text.unwrap();
            let found = items(text.as_bytes()).unwrap();
            let read: Vec<Value> = found.iter().map(|item| serde_json::from_str(&text[item.clone()]).unwrap()).collect();
            prop_assert_eq!(&read, &objects);
            let out = found.iter().zip(&parts).filter(|(_, (_, out))| *out).map(|(item, _)| item);
            let rest: Value = serde_json::from_slice(&without(text.as_bytes(), out)).unwrap();
            let expected: Vec<Value> =
                objects.iter().zip(&parts).map(|(object, (_, out))| if *out { json!(0) } else { object.clone() }).collect();
            prop_assert_eq!(rest, json!({"a": {"b": [1]}, "data": expected, "next": "y"}));
        }

        #[test]
        fn no_text_breaks_it(text in prop::collection::vec(prop_oneof![
            Just(b'"'), Just(b'{'), Just(b'}'), Just(b'['), Just(b']'), Just(b','), Just(b':'), Just(b'\\'), any::<u8>()
        ], 0..40)) {
            for item in items(&text).into_iter().flatten() {
                let begins = text[item].starts_with(b"{");
                prop_assert!(begins);
            }
        }
    }
}
