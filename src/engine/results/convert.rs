//! What is given of a record: the bytes that it is where it is in OpenAI's form already, else what its provider's adapter
//! reads in it, or an error with what nobody can read.

use super::{Current, Format, ID_KEYS, Keep, LONG_LINE, Results, Summary};
use crate::domain::batch::{Batch, Usage};
use crate::http::memory;
use crate::provider::given_line::GivenLine;
use crate::provider::lenient;
use crate::provider::openai_results::output_line;
use crate::provider::results::{OutputLine, Record, is_written_in};
use crate::tasks::in_place;
use bytes::Bytes;
use serde_json::{Map, Value, json};

/// What a line tells.
struct Seen<'a> {
    has_id: bool,
    succeeded: bool,
    usage: Option<Usage>,
    model: Option<&'a str>,
}

impl Results {
    /// The records as they are to be given, each on a line.
    pub(super) fn convert(&mut self, records: Vec<Bytes>) -> Bytes {
        let length: usize = records.iter().map(|record| record.len() + 1).sum();
        let is_long = records.iter().any(|record| record.len() > memory::SMALL);
        let mut given = Vec::with_capacity(if is_long { memory::LONG } else { length });
        for record in records {
            let before = given.len();
            in_place(record.len(), || self.convert_one(&record, &mut given));
            if given.len() > before {
                given.push(b'\n');
            }
        }
        given.into()
    }

    /// Writes the record as it is to be given, or nothing.
    fn convert_one(&mut self, record: &Bytes, given: &mut Vec<u8>) {
        let Some(current) = &mut self.now else { return };
        let (part, index) = (current.part, current.index);
        current.index += 1;
        if self.format == Format::Raw && self.keep == Keep::All {
            if self.tally.take(record, None, part) {
                self.summary.lines += 1;
                given.extend_from_slice(record);
            }
            return;
        }
        if self.pass_on(record, given) {
            return;
        }
        let read = |object: &Map<String, Value>| match self.saved {
            Some(_) => output_line(object),
            None => self.account.adapter.output_line(Record { object, index, part, batch: &self.batch }),
        };
        // Of a long line, what holds much is not taken apart.
        let is_long = record.len() > LONG_LINE;
        let object = if is_long { lenient::compact(record) } else { lenient::object(record) };
        let line = match object {
            Ok(object) => read(&object).map(|line| (object, line)),
            Err(error) => Err(format!("it is not a JSON object: {error}")),
        };
        let (object, line) = match line {
            Ok(read) => read,
            Err(what) => return self.give_unreadable(record, &what, given),
        };
        let id = line.custom_id.as_deref().filter(|_| self.format == Format::OpenAi);
        if !self.tally.take(record, id, part) {
            return;
        }
        let succeeded = line.result.is_success();
        if !self.keep.wants(succeeded) {
            return;
        }
        let (has_id, usage) = (line.custom_id.is_some(), line.usage);
        let model = line.result.model().map(str::to_owned);
        let line = line.into_json();
        if self.format == Format::Raw || is_written_in(&line, &object) {
            given.extend_from_slice(record);
        } else {
            drop(object);
            let exact = if is_long { None } else { lenient::exact(record) };
            let exact = exact.and_then(|exact| read(&exact).ok()).map(OutputLine::into_json);
            lenient::write(&exact.unwrap_or(line), given);
        }
        self.summary.count(&Seen { has_id, succeeded, usage, model: model.as_deref() }, &self.batch);
    }

    /// Gives the record without taking it apart: as it is where that is clearly in OpenAI's form, or as its adapter writes
    /// it in one pass. Whether that was possible.
    fn pass_on(&mut self, record: &Bytes, given: &mut Vec<u8>) -> bool {
        let Some(Current { part, .. }) = self.now else { return false };
        let before = given.len();
        let is_openai_s = self.format == Format::OpenAi;
        let line = if self.gives_lines {
            given.extend_from_slice(record);
            GivenLine::read(record)
        } else if is_openai_s && record.len() <= LONG_LINE {
            self.account.adapter.write_line(record, &self.batch, given)
        } else {
            None
        };
        let Some(line) = line else {
            given.truncate(before);
            return false;
        };
        let GivenLine { custom_id, usage, model, .. } = line;
        let succeeded = line.is_success();
        if self.tally.take(record, custom_id.filter(|_| is_openai_s), part) && self.keep.wants(succeeded) {
            self.summary.count(&Seen { has_id: custom_id.is_some(), succeeded, usage, model }, &self.batch);
        } else {
            given.truncate(before);
        }
        true
    }

    /// Gives a line that nobody can read as an error, with what it holds.
    fn give_unreadable(&mut self, record: &Bytes, what: &str, given: &mut Vec<u8>) {
        let Some(current) = &self.now else { return };
        let custom_id = lenient::find_text(record, &ID_KEYS);
        if !self.tally.take(
            record,
            custom_id.as_deref().filter(|_| self.format == Format::OpenAi),
            current.part,
        ) {
            return;
        }
        self.summary.lines += 1;
        self.summary.unreadable += 1;
        self.summary.told = None;
        if self.format == Format::Raw {
            given.extend_from_slice(record);
            return;
        }
        let beginning = &record[..record.len().min(LONGEST_UNREADABLE)];
        let left_out = if beginning.len() < record.len() { "; only its beginning is given" } else { "" };
        let error = json!({
            "code": UNREADABLE,
            "message": format!("line {} of the results cannot be read: {what}{left_out}", current.index),
            "line": String::from_utf8_lossy(beginning),
        });
        let line = json!({"id": null, "custom_id": custom_id, "response": null, "error": error});
        lenient::write(&line, given);
    }
}

impl Summary {
    /// Counts a line of `batch` that was given.
    fn count(&mut self, seen: &Seen<'_>, batch: &Batch) {
        self.lines += 1;
        self.without_id += u64::from(!seen.has_id);
        if seen.succeeded {
            match (seen.usage, &mut self.told) {
                (Some(usage), Some(told)) => told.add(seen.model.or(batch.model.as_deref()), usage),
                _ => self.told = None,
            }
        } else {
            self.failed = self.failed.map(|failed| failed + 1);
        }
    }
}

impl Keep {
    /// Whether a record is given that tells of a success, or of none.
    fn wants(self, succeeded: bool) -> bool {
        match self {
            Self::All => true,
            Self::Failures => !succeeded,
            Self::Successes => succeeded,
        }
    }
}

/// So much of a line that cannot be read is given, in bytes: escaped it may take six times as much.
const LONGEST_UNREADABLE: usize = 1024 * 1024;

/// The code of the error that stands for a line that nobody can read.
const UNREADABLE: &str = "unreadable_line";
