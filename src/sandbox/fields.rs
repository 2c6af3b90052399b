//! Google's partial responses: `fields=name,metadata(state,batchStats/requestCount)` picks what an answer holds.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Which fields of an answer are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldMask {
    /// By name; an empty mask below means the whole field. `*` is any name.
    fields: BTreeMap<String, FieldMask>,
}

impl FieldMask {
    /// Reads a mask: names, separated by commas; below a name `/name`, `.name` or `(names)`; `*` for any name.
    pub fn read(text: &str) -> Option<Self> {
        let mut reader = Reader { rest: text, depth: 0 };
        let mask = reader.list()?;
        reader.rest.is_empty().then_some(mask)
    }

    /// What of `value` is wanted; each element of a list by itself.
    pub fn pick(&self, value: Value) -> Value {
        if self.fields.is_empty() {
            return value;
        }
        match value {
            Value::Array(items) => items.into_iter().map(|item| self.pick(item)).collect(),
            Value::Object(map) => {
                let wanted = map.into_iter().filter_map(|(name, value)| {
                    let mask = self.fields.get(&name).or_else(|| self.fields.get("*"))?;
                    Some((name, mask.pick(value)))
                });
                Value::Object(wanted.collect::<Map<_, _>>())
            }
            plain => plain,
        }
    }

    fn merge(&mut self, other: Self) {
        for (name, mask) in other.fields {
            match self.fields.get_mut(&name) {
                // The whole field is wanted somewhere.
                Some(known) if known.fields.is_empty() || mask.fields.is_empty() => *known = Self::default(),
                Some(known) => known.merge(mask),
                None => {
                    self.fields.insert(name, mask);
                }
            }
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
    depth: usize,
}

impl Reader<'_> {
    fn list(&mut self) -> Option<FieldMask> {
        let mut mask = FieldMask::default();
        loop {
            mask.merge(self.path()?);
            if !self.eat(',') {
                return Some(mask);
            }
        }
    }

    fn path(&mut self) -> Option<FieldMask> {
        self.depth += 1;
        let end = self
            .rest
            .find(|c: char| !c.is_ascii_alphanumeric() && !"_-@$*".contains(c))
            .unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        if name.is_empty() || self.depth > DEEPEST {
            return None;
        }
        self.rest = rest;
        let below = if self.eat('/') || self.eat('.') {
            self.path()?
        } else if self.eat('(') {
            let list = self.list()?;
            if !self.eat(')') {
                return None;
            }
            list
        } else {
            FieldMask::default()
        };
        self.depth -= 1;
        Some(FieldMask { fields: BTreeMap::from([(name.to_owned(), below)]) })
    }

    fn eat(&mut self, wanted: char) -> bool {
        match self.rest.strip_prefix(wanted) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }
}

/// Answers are not deeper.
const DEEPEST: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn pick(mask: &str) -> Value {
        FieldMask::read(mask).unwrap().pick(json!({
            "name": "batches/x",
            "metadata": {"state": "S", "batchStats": {"requestCount": "4", "failedRequestCount": "1"}},
            "items": [{"a": 1, "b": 2}, {"a": 3}],
            "done": true,
        }))
    }

    #[test]
    fn what_is_asked_for_and_nothing_else() {
        assert_eq!(pick("name,done"), json!({"name": "batches/x", "done": true}));
        assert_eq!(
            pick("name,metadata(state,batchStats)"),
            json!({"name": "batches/x", "metadata": {
                "state": "S", "batchStats": {"requestCount": "4", "failedRequestCount": "1"},
            }})
        );
        assert_eq!(
            pick("metadata/batchStats/requestCount"),
            json!({"metadata": {"batchStats": {"requestCount": "4"}}})
        );
        assert_eq!(pick("metadata.state"), json!({"metadata": {"state": "S"}}));
        assert_eq!(pick("metadata/state,metadata"), pick("metadata"));
        assert_eq!(pick("metadata/state,metadata/batchStats"), pick("metadata(state,batchStats)"));
        assert_eq!(pick("items(a)"), json!({"items": [{"a": 1}, {"a": 3}]}));
        assert_eq!(
            pick("metadata/*/requestCount"),
            json!({"metadata": {"state": "S", "batchStats": {"requestCount": "4"}}})
        );
        assert_eq!(pick("*")["items"][0]["b"], 2);
        assert_eq!(pick("nothing"), json!({}));
    }

    #[test]
    fn a_mask_that_is_none() {
        for bad in ["", ",", "a(", "a(b", "a)", "a//b", "a,,b", &"a/".repeat(100)] {
            assert_eq!(FieldMask::read(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-c/.,()*]{0,40}") {
            let _ = FieldMask::read(&text);
        }
    }
}
