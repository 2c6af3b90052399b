//! One datum of an Avro file, written as JSON. Of a union the value stands alone, without the name of its branch.

use super::schema::{Schema, Type, TypeId};
use std::io::Write as _;

/// Why no datum can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It takes at least so many bytes in all.
    Short(usize),
    /// It is none, or so nested that nobody means it.
    Broken(&'static str),
    /// It is longer than anything that is read.
    TooLong,
}

/// So deep values may stand in each other.
const MAX_DEPTH: usize = 100;

/// Writes the datum that `bytes` begin with to `out`; gives how many bytes it takes.
///
/// Neither what is read nor what is written is longer than `longest` bytes: every value of however few bytes writes at
/// least one.
pub(super) fn read(schema: &Schema, bytes: &[u8], longest: usize, out: &mut Vec<u8>) -> Result<usize, Stop> {
    let mut reader = Reader { schema, bytes, at: 0, longest, out };
    reader.value(schema.root(), 0)?;
    Ok(reader.at)
}

/// Reads the number that stands at `at` of `bytes`, and moves behind it.
pub(super) fn long(bytes: &[u8], at: &mut usize) -> Result<i64, Stop> {
    let mut value: u64 = 0;
    for place in 0..10_usize {
        let byte = *bytes.get(*at + place).ok_or(Stop::Short(*at + place + 1))?;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            *at += place + 1;
            // Zigzag: the lowest bit is the sign.
            return Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()));
        }
    }
    Err(Stop::Broken("it has a number of more than 64 bits"))
}

struct Reader<'a> {
    schema: &'a Schema,
    bytes: &'a [u8],
    at: usize,
    longest: usize,
    out: &'a mut Vec<u8>,
}

impl<'a> Reader<'a> {
    fn value(&mut self, id: TypeId, depth: usize) -> Result<(), Stop> {
        if depth > MAX_DEPTH {
            return Err(Stop::Broken("it has values that are nested too deeply"));
        }
        let schema = self.schema;
        match schema.get(id) {
            Type::Null => self.out.extend_from_slice(b"null"),
            Type::Boolean => match self.take(1)? {
                [0] => self.out.extend_from_slice(b"false"),
                [1] => self.out.extend_from_slice(b"true"),
                _ => return Err(Stop::Broken("it has a truth value that is neither")),
            },
            Type::Integer => {
                let value = self.long()?;
                // Writing to a vector cannot fail.
                let _ = write!(self.out, "{value}");
            }
            Type::Float => {
                let bytes = self.take(4)?;
                self.json(&f32::from_le_bytes(bytes.try_into().unwrap_or_default()));
            }
            Type::Double => {
                let bytes = self.take(8)?;
                self.json(&f64::from_le_bytes(bytes.try_into().unwrap_or_default()));
            }
            Type::Text => {
                let text = self.counted()?;
                self.json(&String::from_utf8_lossy(text));
            }
            Type::Bytes => {
                let bytes = self.counted()?;
                self.bytes(bytes);
            }
            Type::Fixed(size) => {
                let bytes = self.take(*size)?;
                self.bytes(bytes);
            }
            Type::Enum(symbols) => {
                let symbol = pick(symbols, self.long()?)?;
                self.json(symbol);
            }
            Type::Union(branches) => {
                let branch = *pick(branches, self.long()?)?;
                return self.value(branch, depth + 1);
            }
            Type::Array(items) => {
                let items = *items;
                self.out.push(b'[');
                self.blocks(|reader| reader.value(items, depth + 1))?;
                self.out.push(b']');
            }
            Type::Map(values) => {
                let values = *values;
                self.out.push(b'{');
                self.blocks(|reader| {
                    let key = reader.counted()?;
                    reader.json(&String::from_utf8_lossy(key));
                    reader.out.push(b':');
                    reader.value(values, depth + 1)
                })?;
                self.out.push(b'}');
            }
            Type::Record(fields) => {
                self.out.push(b'{');
                for (place, (name, kind)) in fields.iter().enumerate() {
                    if place > 0 {
                        self.out.push(b',');
                    }
                    self.json(name);
                    self.out.push(b':');
                    self.value(*kind, depth + 1)?;
                }
                self.out.push(b'}');
            }
            Type::Open => return Err(Stop::Broken("its schema is not complete")),
        }
        if self.out.len() > self.longest { Err(Stop::TooLong) } else { Ok(()) }
    }

    /// The items of an array or a map: blocks of so many, the last of none.
    fn blocks(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), Stop>) -> Result<(), Stop> {
        let mut is_first = true;
        loop {
            let mut count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                // Its length in bytes follows, for those who pass over it.
                self.long()?;
                count = count.checked_neg().ok_or(Stop::Broken("it has a list of a length that is none"))?;
            }
            for _ in 0..count {
                if !std::mem::take(&mut is_first) {
                    self.out.push(b',');
                }
                item(self)?;
            }
        }
    }

    fn long(&mut self) -> Result<i64, Stop> {
        long(self.bytes, &mut self.at)
    }

    /// The bytes behind their count.
    fn counted(&mut self) -> Result<&'a [u8], Stop> {
        let length = usize::try_from(self.long()?)
            .map_err(|_| Stop::Broken("it has a text of a length that is none"))?;
        self.take(length)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Stop> {
        if length > self.longest {
            return Err(Stop::TooLong);
        }
        let end = self.at + length;
        let taken = self.bytes.get(self.at..end).ok_or(Stop::Short(end))?;
        self.at = end;
        Ok(taken)
    }

    /// Each byte as the character of its number, as Avro's own JSON has it.
    fn bytes(&mut self, bytes: &[u8]) {
        let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
        self.json(&text);
    }

    fn json<T: serde::Serialize + ?Sized>(&mut self, value: &T) {
        // Writing texts and numbers to a vector cannot fail.
        let _ = serde_json::to_writer(&mut *self.out, value);
    }
}

fn pick<T>(of: &[T], place: i64) -> Result<&T, Stop> {
    let place = usize::try_from(place).ok();
    place
        .and_then(|place| of.get(place))
        .ok_or(Stop::Broken("it has a value of a kind that its schema does not have"))
}
