//! Avro's object container files, read as they come: what stands in them is given as lines of JSON.
//!
//! The format is that of <https://avro.apache.org/docs/1.12.0/specification/>. It is read here and not by a library for
//! three reasons. What comes is pushed, piece by piece, by whoever holds the connection, while `apache-avro` (0.21) and
//! `serde_avro_fast` (2.1) pull from a blocking source. A hostile server must not get more memory than one record takes,
//! whatever the file says of its own lengths, and a few packed bytes must not become a thousand times as much at once.
//! And the first brings big numbers, UUIDs and macros for what here is only written as JSON; the second's licence (MPL-2.0)
//! is none that `deny.toml` allows.

mod datum;
mod schema;
#[cfg(test)]
mod tests;

use bytes::{Buf as _, Bytes, BytesMut};
use datum::{Stop, long};
use flate2::{Crc, Decompress, FlushDecompress, Status};
use schema::Schema;

/// What every file begins with.
const MAGIC: &[u8; 4] = b"Obj\x01";
/// How long the mark is that ends the header and every block, in bytes.
const SYNC: usize = 16;
/// How long a header may be, in bytes.
const MAX_HEADER: usize = 1024 * 1024;
/// How much of records is given at once, in bytes: a few bytes may hold a thousand times as much.
const AT_ONCE: usize = 256 * 1024;
/// How much may stand in a block behind what is packed by deflate, in bytes: Python's libraries leave some of a sum there.
const TAIL: usize = 4;
/// How much is unpacked at once, in bytes.
const UNPACKED: usize = 32 * 1024;

/// Why a file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BadAvro {
    /// What is wrong with it, as a fragment of a sentence.
    Broken(String),
    /// One of its records, or its header, is longer than what is read.
    TooLong,
}

impl From<&'static str> for BadAvro {
    fn from(what: &'static str) -> Self {
        Self::Broken(what.to_owned())
    }
}

/// Reads one file.
#[derive(Debug)]
pub(super) struct Container {
    /// How long a record may be, in bytes.
    longest: usize,
    /// What has come and has not been read.
    raw: BytesMut,
    header: Header,
    state: State,
    /// There are more records in what has come already.
    is_behind: bool,
}

#[derive(Debug, Default)]
struct Header {
    schema: Option<Schema>,
    packing: Packing,
    sync: [u8; SYNC],
    /// How much of it was read, in bytes.
    length: usize,
}

/// How blocks are packed.
#[derive(Clone, Copy, Debug, Default)]
enum Packing {
    #[default]
    Plain,
    Deflate,
    Snappy,
}

#[derive(Debug)]
enum State {
    Magic,
    /// So many entries of the header's map are left of its present block.
    Entries(u64),
    HeaderSync,
    /// Between two blocks.
    Between,
    Block(Block),
    BlockSync,
}

/// A block that is being read.
#[derive(Debug)]
struct Block {
    /// Records that are left.
    records: u64,
    /// Bytes that are left to be unpacked.
    left: usize,
    unpacker: Unpacker,
    /// What was unpacked, and is read up to `at`.
    plain: Vec<u8>,
    at: usize,
    /// So many bytes from there are needed before it is worth trying again.
    wanted: usize,
}

enum Unpacker {
    Plain,
    Deflate {
        inflater: Box<Decompress>,
        /// Nothing follows.
        is_over: bool,
    },
    Snappy,
}

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain => "Plain",
            Self::Deflate { .. } => "Deflate",
            Self::Snappy => "Snappy",
        })
    }
}

/// What a step brought.
enum Step {
    Record(Bytes),
    On,
    /// More bytes are needed.
    Wait,
}

impl Container {
    /// For a file whose records are at most `longest` bytes.
    pub fn new(longest: usize) -> Self {
        Self {
            longest,
            raw: BytesMut::new(),
            header: Header::default(),
            state: State::Magic,
            is_behind: false,
        }
    }

    /// Whether [`Container::push`] has more to give, without more having come.
    pub fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// How many bytes are held.
    pub fn held(&self) -> usize {
        let plain = if let State::Block(block) = &self.state { block.plain.len() } else { 0 };
        self.raw.len() + plain
    }

    /// Whether the file may end here.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Between) && self.raw.is_empty()
    }

    /// The records that are complete with `piece`, or the first of them.
    pub fn push(&mut self, piece: &[u8]) -> Result<Vec<Bytes>, BadAvro> {
        self.raw.extend_from_slice(piece);
        let mut records = Vec::new();
        let mut given = 0;
        self.is_behind = false;
        while given < AT_ONCE {
            match self.step()? {
                Step::Record(record) => {
                    given += record.len();
                    records.push(record);
                }
                Step::On => {}
                Step::Wait => return Ok(records),
            }
        }
        self.is_behind = true;
        Ok(records)
    }

    fn step(&mut self) -> Result<Step, BadAvro> {
        match &mut self.state {
            State::Magic => {
                let begun = self.raw.len().min(MAGIC.len());
                if self.raw[..begun] != MAGIC[..begun] {
                    return Err("it is no Avro file".into());
                }
                if begun < MAGIC.len() {
                    return Ok(Step::Wait);
                }
                self.raw.advance(begun);
                self.state = State::Entries(0);
                Ok(Step::On)
            }
            State::Entries(_) => self.entry(),
            State::HeaderSync => {
                let Some(sync) = self.raw.first_chunk::<SYNC>().copied() else { return Ok(Step::Wait) };
                if self.header.schema.is_none() {
                    return Err("it has no schema".into());
                }
                self.header.sync = sync;
                self.raw.advance(SYNC);
                self.state = State::Between;
                Ok(Step::On)
            }
            State::Between => self.begin_block(),
            State::Block(block) => {
                let Some(schema) = &self.header.schema else { return Err("it has no schema".into()) };
                let step = block.step(schema, &mut self.raw, self.longest)?;
                if block.is_over() {
                    self.state = State::BlockSync;
                }
                Ok(step)
            }
            State::BlockSync => {
                let Some(sync) = self.raw.first_chunk::<SYNC>() else { return Ok(Step::Wait) };
                if *sync != self.header.sync {
                    return Err("a block does not end where it says".into());
                }
                self.raw.advance(SYNC);
                self.state = State::Between;
                Ok(Step::On)
            }
        }
    }

    /// The next entry of the header's map, or what says how many there are.
    fn entry(&mut self) -> Result<Step, BadAvro> {
        let State::Entries(left) = &mut self.state else { return Ok(Step::On) };
        let mut at = 0;
        if *left == 0 {
            let Some(count) = number(&self.raw, &mut at)? else { return Ok(Step::Wait) };
            if count < 0 && number(&self.raw, &mut at)?.is_none() {
                return Ok(Step::Wait);
            }
            *left = count.unsigned_abs();
            if count == 0 {
                self.state = State::HeaderSync;
            }
        } else {
            let mut parts = [0..0, 0..0];
            for part in &mut parts {
                let Some(length) = number(&self.raw, &mut at)? else { return Ok(Step::Wait) };
                let length = usize::try_from(length).map_err(|_| BadAvro::from("its header is broken"))?;
                if length > MAX_HEADER {
                    return Err(BadAvro::TooLong);
                }
                *part = at..at + length;
                at += length;
            }
            if self.raw.len() < at {
                return Ok(Step::Wait);
            }
            *left -= 1;
            let [key, value] = parts.map(|part| &self.raw[part]);
            match key {
                b"avro.schema" => self.header.schema = Some(Schema::read(value).map_err(BadAvro::Broken)?),
                b"avro.codec" => self.header.packing = Packing::read(value)?,
                _ => {}
            }
        }
        self.raw.advance(at);
        self.header.length += at;
        if self.header.length > MAX_HEADER { Err(BadAvro::TooLong) } else { Ok(Step::On) }
    }

    fn begin_block(&mut self) -> Result<Step, BadAvro> {
        let mut at = 0;
        let Some(records) = number(&self.raw, &mut at)? else { return Ok(Step::Wait) };
        let Some(length) = number(&self.raw, &mut at)? else { return Ok(Step::Wait) };
        let records = u64::try_from(records).ok();
        let (Some(records), Ok(left)) = (records, usize::try_from(length)) else {
            return Err("it has a block of a length that is none".into());
        };
        let unpacker = match self.header.packing {
            Packing::Plain => Unpacker::Plain,
            Packing::Deflate => {
                Unpacker::Deflate { inflater: Box::new(Decompress::new(false)), is_over: left == 0 }
            }
            Packing::Snappy if left > self.longest => return Err(BadAvro::TooLong),
            Packing::Snappy => Unpacker::Snappy,
        };
        self.raw.advance(at);
        self.state = State::Block(Block { records, left, unpacker, plain: Vec::new(), at: 0, wanted: 1 });
        Ok(Step::On)
    }
}

/// The number at `at`; `None`: not all of it is there.
fn number(bytes: &[u8], at: &mut usize) -> Result<Option<i64>, BadAvro> {
    match long(bytes, at) {
        Ok(number) => Ok(Some(number)),
        Err(Stop::Short(_)) => Ok(None),
        Err(Stop::Broken(what)) => Err(what.into()),
        Err(Stop::TooLong) => Err(BadAvro::TooLong),
    }
}

impl Packing {
    fn read(name: &[u8]) -> Result<Self, BadAvro> {
        match name {
            b"null" | b"" => Ok(Self::Plain),
            b"deflate" => Ok(Self::Deflate),
            b"snappy" => Ok(Self::Snappy),
            other => {
                let name: String = String::from_utf8_lossy(other).chars().take(20).collect();
                Err(BadAvro::Broken(format!("it is packed by `{name}`, which batchd does not unpack")))
            }
        }
    }
}

impl Block {
    /// Whether all has been unpacked.
    fn is_unpacked(&self) -> bool {
        self.left == 0 && !matches!(self.unpacker, Unpacker::Deflate { is_over: false, .. })
    }

    fn is_over(&self) -> bool {
        self.records == 0 && self.is_unpacked() && self.at == self.plain.len()
    }

    /// One record, or one more piece of what holds it.
    fn step(&mut self, schema: &Schema, raw: &mut BytesMut, longest: usize) -> Result<Step, BadAvro> {
        let rest = &self.plain[self.at..];
        if self.records == 0 {
            if !rest.is_empty() {
                return Err("a block holds more than its records".into());
            }
        } else if rest.len() >= self.wanted || self.is_unpacked() {
            let mut record = Vec::new();
            match datum::read(schema, rest, longest, &mut record) {
                Ok(0) => return Err("its records hold nothing".into()),
                Ok(length) => {
                    self.records -= 1;
                    self.at += length;
                    self.wanted = 1;
                    return Ok(Step::Record(record.into()));
                }
                Err(Stop::Short(_)) if self.is_unpacked() => {
                    return Err("a block ends in the middle of a record".into());
                }
                // By half as much again, so that what is read again and again stays in proportion to what there is.
                Err(Stop::Short(needed)) => self.wanted = needed.max(rest.len() + rest.len() / 2),
                Err(Stop::Broken(what)) => return Err(what.into()),
                Err(Stop::TooLong) => return Err(BadAvro::TooLong),
            }
            if rest.len() > longest {
                return Err(BadAvro::TooLong);
            }
        }
        if self.is_unpacked() {
            return Ok(Step::On);
        }
        self.plain.drain(..std::mem::take(&mut self.at));
        self.unpack(raw, longest)
    }

    /// Unpacks some more.
    fn unpack(&mut self, raw: &mut BytesMut, longest: usize) -> Result<Step, BadAvro> {
        let come = raw.len().min(self.left);
        match &mut self.unpacker {
            Unpacker::Plain => {
                let moved = come.min(UNPACKED.max(self.wanted.saturating_sub(self.plain.len())));
                if moved == 0 {
                    return Ok(Step::Wait);
                }
                self.plain.extend_from_slice(&raw.split_to(moved));
                self.left -= moved;
            }
            Unpacker::Deflate { is_over: true, .. } => {
                if come == 0 {
                    return Ok(Step::Wait);
                }
                raw.advance(come);
                self.left -= come;
            }
            Unpacker::Deflate { inflater, is_over } => {
                self.plain.reserve(UNPACKED);
                let before = (inflater.total_in(), self.plain.len());
                let told = inflater.decompress_vec(&raw[..come], &mut self.plain, FlushDecompress::None);
                let told =
                    told.map_err(|_| BadAvro::from("a block is packed in no way that can be unpacked"))?;
                let taken = usize::try_from(inflater.total_in() - before.0).unwrap_or(come);
                raw.advance(taken);
                self.left -= taken;
                if told == Status::StreamEnd {
                    *is_over = true;
                    if self.left > TAIL {
                        return Err("a block is longer than what is packed in it".into());
                    }
                } else if taken == 0 && self.plain.len() == before.1 {
                    if self.left == 0 {
                        return Err("a block ends before what is packed in it".into());
                    }
                    return Ok(Step::Wait);
                }
            }
            Unpacker::Snappy => {
                if come < self.left {
                    return Ok(Step::Wait);
                }
                let packed = raw.split_to(come);
                self.left = 0;
                self.plain = unsnapped(&packed, longest)?;
            }
        }
        Ok(Step::On)
    }
}

/// What is packed by Snappy, with the sum of the plain bytes behind it.
fn unsnapped(packed: &[u8], longest: usize) -> Result<Vec<u8>, BadAvro> {
    let broken = || BadAvro::from("a block is packed in no way that can be unpacked");
    let Some((packed, sum)) = packed.split_last_chunk::<4>() else {
        return if packed.is_empty() { Ok(Vec::new()) } else { Err(broken()) };
    };
    if snap::raw::decompress_len(packed).map_err(|_| broken())? > longest {
        return Err(BadAvro::TooLong);
    }
    let plain = snap::raw::Decoder::new().decompress_vec(packed).map_err(|_| broken())?;
    let mut crc = Crc::new();
    crc.update(&plain);
    if crc.sum() != u32::from_be_bytes(*sum) {
        return Err("a block is not what it was when it was written".into());
    }
    Ok(plain)
}
