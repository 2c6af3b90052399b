//! Cuts a stream of bytes into the records in it: lines, the elements of an array within one JSON document, or what an
//! Avro file holds.

use super::avro::{BadAvro, Container};
use super::lenient;
use super::results::Form;
use bytes::{Bytes, BytesMut};

/// No record is longer: what is, is a broken file or no results at all. In bytes.
pub const LONGEST_RECORD: usize = 32 * 1024 * 1024;

/// Why a stream holds no records.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRecords {
    /// It ends within one.
    #[error("the results end in the middle of record {0}")]
    Half(u64),
    /// One of them has no end.
    #[error("record {0} of the results is longer than {LONGEST_RECORD} bytes")]
    TooLong(u64),
    /// The document around the array is none.
    #[error("the document with the results is not JSON")]
    NoDocument,
    /// What is wrong with an Avro file, behind so many of its records.
    #[error("the results cannot be read behind record {1}: {0}")]
    Avro(String, u64),
}

/// Cuts as the bytes come; holds no more than one record, or one block of an Avro file.
#[derive(Debug)]
pub struct Splitter {
    form: State,
    begun: BytesMut,
    count: u64,
}

#[derive(Debug)]
enum State {
    Lines,
    Array(Document),
    Avro(Box<Container>),
}

impl Splitter {
    /// For records that stand in `form`.
    pub fn new(form: Form) -> Self {
        let form = match form {
            Form::Lines => State::Lines,
            Form::Array(paths) => State::Array(Document::new(paths)),
            Form::Avro => State::Avro(Box::new(Container::new(LONGEST_RECORD))),
        };
        Self { form, begun: BytesMut::new(), count: 0 }
    }

    /// How long the record is that has been begun, in bytes.
    pub fn held(&self) -> usize {
        match &self.form {
            State::Avro(container) => container.held(),
            State::Lines | State::Array(_) => self.begun.len(),
        }
    }

    /// Whether there are more records in what was pushed: an empty piece brings them.
    pub fn is_behind(&self) -> bool {
        matches!(&self.form, State::Avro(container) if container.is_behind())
    }

    /// Sets memory aside for a record of so many bytes.
    pub fn expect(&mut self, bytes: usize) {
        if matches!(self.form, State::Avro(_)) {
            return;
        }
        self.begun.reserve(bytes.saturating_sub(self.begun.len()));
    }

    /// The records that are complete with `piece`; of an Avro file, which may hold much in few bytes, the first of them.
    pub fn push(&mut self, piece: &Bytes) -> Result<Vec<Bytes>, BadRecords> {
        let mut records = Vec::new();
        match &mut self.form {
            State::Lines => {
                let mut rest = 0;
                for end in memchr::memchr_iter(b'\n', piece) {
                    let line = piece.slice(rest..end);
                    rest = end + 1;
                    let line = if self.begun.is_empty() {
                        line
                    } else {
                        self.begun.extend_from_slice(&line);
                        self.begun.split().freeze()
                    };
                    records.extend(trimmed(line, self.count == 0 && records.is_empty()));
                }
                self.begun.extend_from_slice(&piece[rest..]);
            }
            State::Array(document) => {
                for byte in piece.iter().copied() {
                    match document.take(byte)? {
                        Taken::Outside => {}
                        Taken::Inside => self.begun.extend_from_slice(&[byte]),
                        Taken::End { with } => {
                            if with {
                                self.begun.extend_from_slice(&[byte]);
                            }
                            records.extend(trimmed(self.begun.split().freeze(), false));
                        }
                    }
                }
            }
            State::Avro(container) => {
                records = container.push(piece).map_err(|bad| match bad {
                    BadAvro::Broken(what) => BadRecords::Avro(what, self.count),
                    BadAvro::TooLong => BadRecords::TooLong(self.count + 1),
                })?;
            }
        }
        self.count += records.len() as u64;
        if self.begun.len() > LONGEST_RECORD {
            return Err(BadRecords::TooLong(self.count + 1));
        }
        Ok(records)
    }

    /// The last record, once there are no more bytes. A last line need not end in a line break.
    pub fn finish(&mut self) -> Result<Option<Bytes>, BadRecords> {
        let number = self.count + 1;
        match &self.form {
            State::Array(document) if !document.is_over() => Err(BadRecords::Half(number)),
            State::Avro(container) if !container.is_over() => Err(BadRecords::Half(number)),
            State::Array(_) | State::Avro(_) => Ok(None),
            State::Lines => {
                let Some(last) = trimmed(self.begun.split().freeze(), self.count == 0) else {
                    return Ok(None);
                };
                let whole = lenient::is_whole(&last);
                self.count += 1;
                whole.then_some(Some(last)).ok_or(BadRecords::Half(number))
            }
        }
    }
}

/// Longer than any key on a path.
const LONGEST_KEY: usize = 64;

/// A line without white space around it and without a byte order mark; `None` if nothing is left.
fn trimmed(line: Bytes, first: bool) -> Option<Bytes> {
    let mut line = line;
    if first && line.starts_with(b"\xef\xbb\xbf") {
        line = line.slice(3..);
    }
    let bare = line.trim_ascii();
    (!bare.is_empty()).then(|| line.slice_ref(bare))
}

/// What a byte of a document is.
enum Taken {
    /// Not of a record.
    Outside,
    /// Of a record.
    Inside,
    /// A record ends: `with` this byte or before it.
    End { with: bool },
}

/// Follows a JSON document byte by byte, so far that the wanted array and its elements are found.
#[derive(Debug)]
struct Document {
    paths: &'static [&'static [&'static str]],
    /// What is open, from the outermost: an object with the key that its value is being read for, or an array.
    open: Vec<Open>,
    text: Text,
    /// The last text that was read, if it can be a key on one of the paths.
    last: Vec<u8>,
    /// How deep `open` is with the wanted array as the innermost.
    wanted: Option<usize>,
    /// Something of an element has been read.
    element: bool,
    begun: bool,
    /// The wanted array has been; a second one is none of ours.
    found: bool,
}

#[derive(Debug)]
enum Open {
    Object(Option<Vec<u8>>),
    Array,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    Outside,
    Inside,
    Escaped,
}

impl Document {
    fn new(paths: &'static [&'static [&'static str]]) -> Self {
        Self {
            paths,
            open: Vec::new(),
            text: Text::Outside,
            last: Vec::new(),
            wanted: None,
            element: false,
            begun: false,
            found: false,
        }
    }

    fn is_over(&self) -> bool {
        self.begun && self.open.is_empty()
    }

    fn take(&mut self, byte: u8) -> Result<Taken, BadRecords> {
        if self.text != Text::Outside {
            self.text = match (self.text, byte) {
                (Text::Inside, b'\\') => Text::Escaped,
                (Text::Inside, b'"') => Text::Outside,
                _ => Text::Inside,
            };
            if self.wanted.is_some() {
                return Ok(Taken::Inside);
            }
            if self.text == Text::Inside && self.last.len() < LONGEST_KEY {
                self.last.push(byte);
            }
            return Ok(Taken::Outside);
        }
        if !self.begun {
            match byte {
                b'{' | b'[' => self.begun = true,
                _ if byte.is_ascii_whitespace() => return Ok(Taken::Outside),
                _ => return Err(BadRecords::NoDocument),
            }
        }
        let outermost = self.wanted == Some(self.open.len());
        match byte {
            b'"' => {
                self.text = Text::Inside;
                self.last.clear();
            }
            b'{' => self.open.push(Open::Object(None)),
            b'[' => {
                self.open.push(Open::Array);
                if self.wanted.is_none() && !self.found && self.is_wanted() {
                    self.wanted = Some(self.open.len());
                    return Ok(Taken::Outside);
                }
            }
            b'}' | b']' => {
                let closed = self.open.pop().ok_or(BadRecords::NoDocument)?;
                if matches!(closed, Open::Array) != (byte == b']') {
                    return Err(BadRecords::NoDocument);
                }
                if outermost {
                    self.wanted = None;
                    self.found = true;
                    return Ok(self.element_ends(false));
                }
                if self.wanted == Some(self.open.len()) {
                    return Ok(self.element_ends(true));
                }
            }
            b':' if self.wanted.is_none() => {
                let key = std::mem::take(&mut self.last);
                if let Some(Open::Object(at)) = self.open.last_mut() {
                    *at = Some(key);
                }
            }
            // After an object or an array the element has ended already; what stands here is a plain value's end.
            b',' if outermost => return Ok(self.element_ends(false)),
            _ => {}
        }
        if self.wanted.is_none() {
            return Ok(Taken::Outside);
        }
        if outermost && byte.is_ascii_whitespace() && !self.element {
            return Ok(Taken::Outside);
        }
        self.element = true;
        Ok(Taken::Inside)
    }

    fn element_ends(&mut self, with: bool) -> Taken {
        if !std::mem::take(&mut self.element) && !with {
            return Taken::Outside;
        }
        Taken::End { with }
    }

    /// Whether the array that has just been opened stands at one of the paths.
    fn is_wanted(&self) -> bool {
        let keys = &self.open[..self.open.len() - 1];
        self.paths.iter().any(|path| {
            path.len() == keys.len()
                && path.iter().zip(keys).all(|(wanted, open)| match open {
                    Open::Object(Some(key)) => key.as_slice() == wanted.as_bytes(),
                    Open::Object(None) | Open::Array => false,
                })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn cut(form: Form, pieces: &[&[u8]]) -> Result<Vec<Bytes>, BadRecords> {
        let mut splitter = Splitter::new(form);
        let mut records = Vec::new();
        for piece in pieces {
            records.extend(splitter.push(&Bytes::copy_from_slice(piece))?);
        }
        records.extend(splitter.finish()?);
        Ok(records)
    }

    const PATHS: Form = Form::Array(&[&["response", "inlined", "inlined"], &["outputs"]]);

    #[test]
    fn lines_may_lack_a_break_at_the_end_and_have_a_mark_at_the_beginning() {
        let records = cut(Form::Lines, &[b"\xef\xbb\xbf{\"a\":1}\r\n\n  \n{\"b\"", b":2}"]).unwrap();
        assert_eq!(records, [&b"{\"a\":1}"[..], b"{\"b\":2}"]);
        assert_eq!(cut(Form::Lines, &[b""]).unwrap(), Vec::<Bytes>::new());
        assert_eq!(cut(Form::Lines, &[br#"{"a":["\ud83d",NaN]}"#]).unwrap().len(), 1);
    }

    #[test]
    fn half_a_record_is_an_error_that_tells_which() {
        assert_eq!(cut(Form::Lines, &[b"{\"a\":1}\n{\"b\":"]), Err(BadRecords::Half(2)));
        assert_eq!(cut(PATHS, &[b"{\"outputs\":[{\"a\":1},{\"b\""]), Err(BadRecords::Half(2)));
        assert_eq!(cut(PATHS, &[b"<html>"]), Err(BadRecords::NoDocument));
        assert_eq!(cut(PATHS, &[b"{]"]), Err(BadRecords::NoDocument));
    }

    #[test]
    fn an_array_that_is_not_there_has_no_elements() {
        for document in [r#"{"outputs":null}"#, r#"{"x":{"outputs":[1]}}"#, r#"[{"outputs":[1]}]"#, "{}"] {
            assert_eq!(cut(PATHS, &[document.as_bytes()]).unwrap(), Vec::<Bytes>::new(), "{document}");
        }
    }

    #[test]
    fn plain_elements_and_nested_ones_are_cut_where_they_end() {
        let document =
            br#"{"a":[1,{"outputs":[9]}],"outputs": [ 1 , null,"]," ,[2,[3]],{"x":"}"} ],"b":["outputs"]}"#;
        let records = cut(PATHS, &[document]).unwrap();
        assert_eq!(records, [&b"1"[..], b"null", b"\"],\"", b"[2,[3]]", b"{\"x\":\"}\"}"]);
    }

    #[test]
    fn what_has_no_end_is_given_up() {
        let mut splitter = Splitter::new(Form::Lines);
        let piece = Bytes::from(vec![b'x'; 8 * 1024 * 1024]);
        let result = (0..16).find_map(|_| splitter.push(&piece).err());
        assert_eq!(result, Some(BadRecords::TooLong(1)));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[\\PC\"\\\\{}\\[\\],: ]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[\\PC\"\\\\]{0,4}", inner), 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn wherever_the_stream_is_cut_the_elements_are_the_same(
            elements in prop::collection::vec(value(), 0..6),
            before in value(), after in value(), pretty: bool,
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let document = json!({"x": before, "response": {"y": after, "inlined": {"inlined": elements}}, "z": after});
            let text = if pretty { serde_json::to_string_pretty(&document) } else { serde_json::to_string(&document) };
            let bytes = text.unwrap().into_bytes();
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect();
            let records = cut(PATHS, &pieces).unwrap();
            let read: Vec<Value> = records.iter().map(|record| serde_json::from_slice(record).unwrap()).collect();
            prop_assert_eq!(read, elements);
        }

        #[test]
        fn no_bytes_break_it(form in prop_oneof![Just(Form::Lines), Just(PATHS)], bytes: Vec<u8>) {
            let _ = cut(form, &[&bytes]);
        }
    }
}
