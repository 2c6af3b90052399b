//! The prefix that the models of all requests of a file share (`anthropic/claude-haiku-4-5`): which provider a client that
//! names none means by it.

use super::line::Head;
use super::submit::OPENAI_LINE;

/// Reads a file of requests in OpenAI's form piece by piece. It holds one line at most.
#[derive(Debug, Default)]
pub struct ModelPrefix {
    /// The beginning of a line whose end has not come yet.
    open: Vec<u8>,
    /// The present line is too long to be read.
    skipping: bool,
    shared: Shared,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Shared {
    #[default]
    Unseen,
    One(String),
    Nothing,
}

impl ModelPrefix {
    /// Takes the next bytes of the file. `false`: the requests share no prefix, whatever follows.
    pub fn push(&mut self, piece: &[u8]) -> bool {
        let mut rest = piece;
        while self.shared != Shared::Nothing {
            let Some(end) = memchr::memchr(b'\n', rest) else {
                self.skipping |= self.open.len() + rest.len() > MAX_LINE;
                if self.skipping {
                    self.open = Vec::new();
                } else {
                    self.open.extend_from_slice(rest);
                }
                break;
            };
            let mut line = std::mem::take(&mut self.open);
            if !std::mem::take(&mut self.skipping) {
                line.extend_from_slice(&rest[..end]);
                self.line(&line);
            }
            line.clear();
            // One long line must not keep its memory for ever.
            line.shrink_to(USUAL_LINE);
            self.open = line;
            rest = &rest[end + 1..];
        }
        self.shared != Shared::Nothing
    }

    /// The prefix, once the file has ended; `None`: the requests share none.
    pub fn finish(mut self) -> Option<String> {
        let open = std::mem::take(&mut self.open);
        if !self.skipping {
            self.line(&open);
        }
        match self.shared {
            Shared::One(prefix) => Some(prefix),
            Shared::Unseen | Shared::Nothing => None,
        }
    }

    /// What is no request does not count: checking the file says what is wrong with it.
    fn line(&mut self, line: &[u8]) {
        let Ok(text) = std::str::from_utf8(line) else { return };
        let Ok(head) = Head::read(text, &OPENAI_LINE) else { return };
        let model = head.body.as_ref().and_then(|body| body.model().ok().flatten());
        let prefix = model.and_then(prefix_of);
        self.shared = match (std::mem::take(&mut self.shared), prefix) {
            (Shared::Unseen, Some(prefix)) => Shared::One(prefix.to_owned()),
            (Shared::One(shared), Some(prefix)) if shared == prefix => Shared::One(shared),
            _ => Shared::Nothing,
        };
    }
}

/// What stands before the first slash of a model.
pub fn prefix_of(model: &str) -> Option<&str> {
    let (prefix, rest) = model.split_once('/')?;
    (!prefix.is_empty() && !rest.is_empty()).then_some(prefix)
}

/// A longer line is not read: checking the file refuses it.
const MAX_LINE: usize = 64 << 20;
/// What a line may keep of memory once it is over.
const USUAL_LINE: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(models: &[&str], piece: usize) -> Option<String> {
        let lines: Vec<String> =
            models.iter().map(|model| format!(r#"{{"custom_id":"a","body":{{"model":{model}}}}}"#)).collect();
        let text = lines.join("\n");
        let mut prefix = ModelPrefix::default();
        for piece in text.as_bytes().chunks(piece) {
            prefix.push(piece);
        }
        prefix.finish()
    }

    #[test]
    fn only_what_all_models_share_is_a_prefix() {
        for piece in [1, 7, 1000] {
            assert_eq!(
                shared(&["\"anthropic/a\"", "\"anthropic/b/c\""], piece).as_deref(),
                Some("anthropic")
            );
            for apart in [
                &["\"anthropic/a\"", "\"gemini/b\""][..],
                &["\"anthropic/a\"", "\"b\""],
                &["\"anthropic/a\"", "null"],
                &["\"/a\""],
                &["\"a/\""],
                &[],
            ] {
                assert_eq!(shared(apart, piece), None, "{apart:?}");
            }
        }
    }

    #[test]
    fn what_is_no_request_does_not_count() {
        let mut prefix = ModelPrefix::default();
        assert!(prefix.push(b"\n{\"body\":{\"model\":\"a/b\"}}\r\nnonsense\n\xff\n"));
        assert_eq!(prefix.finish().as_deref(), Some("a"));
        let mut prefix = ModelPrefix::default();
        assert!(!prefix.push(b"{\"body\":{\"model\":\"b\"}}\n{\"body\":{\"model\":\"a/b\"}}\n"));
        assert_eq!(prefix.finish(), None);
    }
}
