//! Reads server-sent events: the live form of `GET /v1/events`.

/// The name of the message that says that the log ends before the number that the reader had, with the last number.
pub const RESET: &str = "reset";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The last `id` that was sent, on this message or before it.
    pub id: Option<String>,
    pub event: Option<String>,
    /// The `data` lines, joined by newlines.
    pub data: String,
}

/// Takes bytes as they come and gives whole messages; a message cut off by the end of the stream is dropped.
#[derive(Debug, Default)]
pub struct Parser {
    /// What came since the last line end.
    line: Vec<u8>,
    /// Whether the last byte was a carriage return: a line feed after it ends no second line.
    after_return: bool,
    id: Option<String>,
    event: Option<String>,
    data: Option<String>,
}

impl Parser {
    /// Takes `bytes` and returns the messages that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Message> {
        let mut messages = Vec::new();
        for &byte in bytes {
            match byte {
                b'\n' if self.after_return => self.after_return = false,
                b'\n' | b'\r' => {
                    self.after_return = byte == b'\r';
                    let line = std::mem::take(&mut self.line);
                    messages.extend(self.line_ended(&String::from_utf8_lossy(&line)));
                }
                _ => {
                    self.after_return = false;
                    self.line.push(byte);
                }
            }
        }
        messages
    }

    fn line_ended(&mut self, line: &str) -> Option<Message> {
        if line.is_empty() {
            let event = self.event.take();
            let data = self.data.take()?;
            return Some(Message { id: self.id.clone(), event, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.id = Some(value.to_owned()),
            "event" => self.event = Some(value.to_owned()),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            // A comment (its field is empty), `retry`, or what a later version adds.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: &str = ": hello\n\nid: 7\nevent: batch.completed\ndata: {\"a\":1}\n\n:keep\n\r\nid:8\r\ndata:x\r\ndata:  y\r\n\r\nretry: 5\n\ndata: cut off";

    fn expected() -> Vec<Message> {
        vec![
            Message { id: Some("7".into()), event: Some("batch.completed".into()), data: "{\"a\":1}".into() },
            Message { id: Some("8".into()), event: None, data: "x\n y".into() },
        ]
    }

    #[test]
    fn messages_are_read_and_comments_are_not() {
        assert_eq!(Parser::default().push(STREAM.as_bytes()), expected());
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_the_bytes_are_cut(cuts in prop::collection::vec(1_usize..9, 1..80)) {
            let mut parser = Parser::default();
            let mut messages = Vec::new();
            let mut rest = STREAM.as_bytes();
            for cut in cuts {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                messages.extend(parser.push(head));
                rest = tail;
            }
            messages.extend(parser.push(rest));
            prop_assert_eq!(messages, expected());
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Parser::default().push(&bytes);
        }
    }
}
