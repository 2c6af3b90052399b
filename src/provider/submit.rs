//! Submitting: what a service takes as input, and the steps from a local file to a batch, sans-IO.

use super::unsupported::unsupported;
use crate::domain::sighting::Sighting;
use crate::http::call::{Answer, Call};
use crate::http::failure::Failure;
use bytes::Bytes;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::time::Duration;

/// The key in a batch's metadata, or the beginning of its name, under which batchd finds what it created itself.
pub const MARKER: &str = "batchd_id";

/// What a service takes as the input of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intake {
    /// How the requests stand in the input as it is sent.
    pub framing: Framing,
    /// How the service's own users write a request; such a line is sent as it is.
    pub own: LineForm,
    /// Whether a line in OpenAI's form is sent as it is too; if not, it goes through
    /// [`Provider::translate`](super::Provider::translate).
    pub takes_openai: bool,
    /// At most so many requests, where the service says.
    pub max_requests: Option<u64>,
    /// At most so many bytes, as sent, where the service says.
    pub max_bytes: Option<u64>,
    /// At most so many bytes of one request, as sent, where the service says.
    pub max_line_bytes: Option<u64>,
    /// Which ids requests may have.
    pub custom_id: IdRule,
    /// Whether all requests must be for one model.
    pub one_model: bool,
    /// The endpoints that a batch may be for; empty: the service decides.
    pub endpoints: &'static [&'static str],
    /// Whether what is created carries the marker of its [`Job`]; if not, a batch whose creation was not answered is
    /// known by its time and size alone.
    pub marks: bool,
}

impl Intake {
    /// Lines in OpenAI's form as they are, within no limit that is known.
    pub const OPENAI: Self = Self {
        framing: Framing::Lines,
        own: OPENAI_LINE,
        takes_openai: true,
        max_requests: None,
        max_bytes: None,
        max_line_bytes: None,
        custom_id: IdRule { longest: None, plain: false },
        one_model: true,
        endpoints: &[],
        marks: true,
    };
}

/// How a line of a local file holds a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineForm {
    /// The key of the request's id.
    pub id: &'static str,
    /// Whether every line must have one.
    pub id_needed: bool,
    /// The key of the request itself.
    pub body: &'static str,
    /// Where the model is named.
    pub model: ModelPlace,
    /// Keys of a request that tell which endpoint it is for, the first that is there; with none of them it is no
    /// request. Empty: nothing tells.
    pub tells: &'static [(&'static str, &'static str)],
}

/// Where a service wants the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelPlace {
    Request,
    /// In each request, or once in the creation of the batch.
    Either,
    /// Once, in the creation of the batch.
    Job,
}

/// Which ids requests may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdRule {
    /// At most so many characters, where the service says.
    pub longest: Option<usize>,
    /// Letters, digits, `_` and `-` only.
    pub plain: bool,
}

/// OpenAI's own form of a line (`docs/providers/openai.md#lines`).
pub const OPENAI_LINE: LineForm =
    LineForm { id: "custom_id", id_needed: true, body: "body", model: ModelPlace::Request, tells: &[] };

/// The method of requests about a file, in the lines of services that have such.
pub const FILE_METHOD: &str = "FILE";

/// The key of such a request that names the file.
pub const FILE_KEY: &str = "file";

/// How the requests stand in the input as it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// One JSON object a line.
    Lines,
    /// The elements of a JSON array, which the adapter's [`Upload`] opens and closes.
    Array,
}

/// One request of the input, as the local file has it.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestLine {
    pub object: Map<String, Value>,
    /// Which line of the file, from 1.
    pub number: u64,
}

/// A request that this service cannot be given: what stands in the way, as a fragment of a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Untranslatable(pub String);

/// A request as the service wants it.
#[derive(Clone, Debug, PartialEq)]
pub struct Translated {
    /// What is sent.
    pub object: Map<String, Value>,
    /// Parts of the request that have no counterpart and were left out, one short fragment each.
    pub dropped: Vec<String>,
}

/// A batch to be created from an input that has been judged and translated already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// batchd's own mark, by which the batch is found again if the answer to its creation is lost. It goes into the
    /// metadata under [`MARKER`], or into the name where the service has no metadata.
    pub marker: String,
    /// What the user calls it.
    pub name: Option<String>,
    /// The API path that every request goes to, in OpenAI's form (`/v1/chat/completions`).
    pub endpoint: String,
    /// The one model of all requests, where the input or the user tells it.
    pub model: Option<String>,
    /// Such as `24h`.
    pub completion_window: String,
    /// Seconds after its creation at which the service is to delete the output; `None`: as it usually does.
    pub output_expires_after: Option<u64>,
    /// What the user attaches.
    pub metadata: BTreeMap<String, String>,
    /// The input file's name, without a path.
    pub file_name: String,
    /// How long the input is, in bytes, as it is sent (without what an [`Upload`] puts around it).
    pub bytes: u64,
    pub requests: u64,
}

/// The way from an input to a batch, one step after another. It holds no connection and no file.
pub trait Submission: Send + std::fmt::Debug {
    /// The next step, given the answer to the one before (`None` at the beginning and after a wait).
    ///
    /// An answer that is a failure is the adapter's to read: it gives back the [`Failure`] that it tells.
    fn next(&mut self, answer: Option<&Answer>) -> Result<SubmitStep, Failure>;
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a step is taken as soon as it is made")]
pub enum SubmitStep {
    /// Send this; it creates nothing that costs money.
    Send(Call),
    /// Send the input within this; it creates no batch.
    Upload(Upload),
    /// Send this: it creates the batch. If its answer is lost, the batch may exist all the same.
    Create(Call),
    /// Send the input within this: it creates the batch, as for [`SubmitStep::Create`].
    CreateWith(Upload),
    /// Wait so long, then ask for the next step.
    Wait(Duration),
    Done(Created),
}

/// A request whose body is the input with something around it.
#[derive(Debug)]
pub struct Upload {
    /// The request; its own body is empty.
    pub call: Call,
    /// What is sent before the input.
    pub before: Bytes,
    /// What is sent after the input.
    pub after: Bytes,
}

impl Upload {
    /// How long the whole body is, in bytes, for an input of `bytes`.
    pub fn length(&self, bytes: u64) -> u64 {
        bytes.saturating_add(self.before.len() as u64).saturating_add(self.after.len() as u64)
    }

    /// The input as the one file of a form (RFC 7578), called `file`, behind the text `fields`.
    pub fn form(call: Call, fields: &[(&str, &str)], file_name: &str, seed: &str) -> Self {
        Self::form_with("file", call, fields, file_name, seed)
    }

    /// The input as the one file of a form, called `part`, behind the text `fields`.
    ///
    /// `call` gets the form's content type. The boundary is a hash of what is around the file and of `seed`, so that
    /// the same submission forms the same bytes; 128 bits of it will not be met in anybody's input.
    pub fn form_with(
        part: &str,
        mut call: Call,
        fields: &[(&str, &str)],
        file_name: &str,
        seed: &str,
    ) -> Self {
        use sha2::Digest as _;
        use std::fmt::Write as _;
        let digest = sha2::Sha256::digest(format!("{seed}\0{file_name}\0{fields:?}"));
        let mut boundary = "batchd-".to_owned();
        for byte in &digest[..16] {
            // Writing to a text cannot fail.
            let _ = write!(boundary, "{byte:02x}");
        }
        // A name is quoted as browsers do it (<https://html.spec.whatwg.org/#multipart-form-data>).
        let quoted = |text: &str| text.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A");
        let mut before = String::new();
        for (name, value) in fields {
            let name = quoted(name);
            let _ = write!(
                before,
                "--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            );
        }
        let file_name = quoted(file_name);
        let _ = write!(
            before,
            "--{boundary}\r\ncontent-disposition: form-data; name=\"{part}\"; filename=\"{file_name}\"\r\n\
             content-type: application/jsonl\r\n\r\n"
        );
        if let Ok(kind) = format!("multipart/form-data; boundary={boundary}").parse() {
            call.request.headers_mut().insert(http::header::CONTENT_TYPE, kind);
        }
        Self { call, before: before.into(), after: format!("\r\n--{boundary}--\r\n").into() }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Created {
    /// Its id, as the service's own lists have it.
    pub id: String,
    /// What the answer told of it.
    pub sighting: Option<Sighting>,
}

impl Created {
    /// The last step: the batch that the answer to its creation shows.
    pub(super) fn seen(sighting: Sighting) -> Result<SubmitStep, Failure> {
        if sighting.id.is_empty() {
            return Err(Failure::Malformed("there is no id of a batch in it".to_owned()));
        }
        Ok(SubmitStep::Done(Self { id: sighting.id.clone(), sighting: Some(sighting) }))
    }
}

/// How an adapter reads the answer to a creation; what it lends to its [`Submission`].
pub struct ReadCreated(Box<Read>);

type Read = dyn Fn(&Answer) -> Result<Sighting, Failure> + Send;

impl std::fmt::Debug for ReadCreated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReadCreated")
    }
}

impl ReadCreated {
    pub(super) fn new(read: impl Fn(&Answer) -> Result<Sighting, Failure> + Send + 'static) -> Self {
        Self(Box::new(read))
    }

    /// The last step, as `answer` tells it.
    pub(super) fn done(&self, answer: &Answer) -> Result<SubmitStep, Failure> {
        Created::seen((self.0)(answer)?)
    }
}

/// `call` with the time that a long input needs: the service reads all of it before it answers.
pub(super) fn patient(call: Call) -> Call {
    Call { timeout: call.timeout.max(UPLOAD_TIMEOUT), ..call }
}

/// At least so long a service may take for a request with the whole input in it.
const UPLOAD_TIMEOUT: Duration = Duration::from_mins(5);

/// Refuses a window that is not the only one there is, and a wish of when the output expires.
pub(super) fn only_a_day(job: &Job) -> Result<(), Failure> {
    if job.completion_window != "24h" {
        return unsupported("has no completion window but 24h");
    }
    usual_expiry(job)
}

/// Refuses a wish of when the output expires.
pub(super) fn usual_expiry(job: &Job) -> Result<(), Failure> {
    if job.output_expires_after.is_some() {
        return unsupported("does not let one choose when the output expires");
    }
    Ok(())
}

/// The name of a batch with the marker in it, for services that keep a name and no metadata.
pub fn marked_name(name: &str, marker: &str) -> String {
    format!("{name} [{marker}]")
}

/// What [`marked_name`] was made from: the name, and the marker if there is one.
pub fn split_name(whole: &str) -> (&str, Option<&str>) {
    match whole.strip_suffix(']').and_then(|rest| rest.rsplit_once(" [")) {
        Some((name, marker)) if marker.starts_with(MARKER_PREFIX) => (name, Some(marker)),
        _ => (whole, None),
    }
}

/// What every marker begins with.
pub const MARKER_PREFIX: &str = "bd-";

/// Whether `sighting` is of the batch that was created with `marker`.
pub fn is_marked(sighting: &Sighting, marker: &str) -> bool {
    let metadata = sighting.metadata.as_ref().and_then(|metadata| metadata.get(MARKER));
    metadata.or(sighting.marker.as_ref()).is_some_and(|value| value == marker)
        || sighting.display_name.as_ref().is_some_and(|name| name.contains(marker))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::call::BodyLimit;

    #[test]
    fn a_form_is_what_a_parser_of_forms_expects() {
        let call = Call {
            request: http::Request::new(Bytes::new()),
            timeout: Duration::from_secs(1),
            body_limit: BodyLimit::Whole(1),
        };
        let upload = Upload::form(call, &[("purpose", "batch")], "a \"b\".jsonl", "mark");
        let kind = upload.call.request.headers()["content-type"].to_str().unwrap().to_owned();
        let boundary = kind.strip_prefix("multipart/form-data; boundary=").unwrap();
        let before = std::str::from_utf8(&upload.before).unwrap();
        assert_eq!(
            before,
            format!(
                "--{boundary}\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--{boundary}\r\n\
                 content-disposition: form-data; name=\"file\"; filename=\"a %22b%22.jsonl\"\r\n\
                 content-type: application/jsonl\r\n\r\n"
            )
        );
        assert_eq!(upload.after, format!("\r\n--{boundary}--\r\n"));
        assert_eq!(upload.length(10), (before.len() + 10 + upload.after.len()) as u64);
    }

    #[test]
    fn a_marked_name_comes_apart_again() {
        assert_eq!(split_name(&marked_name("a [b] c", "bd-1f")), ("a [b] c", Some("bd-1f")));
        assert_eq!(split_name("nightly [v2]"), ("nightly [v2]", None));
        assert_eq!(split_name(""), ("", None));
    }

    #[test]
    fn a_batch_is_known_by_its_mark() {
        let named = |name: &str| Sighting { display_name: Some(name.to_owned()), ..Sighting::default() };
        assert!(is_marked(&named("nightly bd-1f"), "bd-1f"));
        assert!(!is_marked(&named("nightly"), "bd-1f"));
        let metadata = BTreeMap::from([(MARKER.to_owned(), "bd-1f".to_owned())]);
        let with = Sighting { metadata: Some(metadata), ..Sighting::default() };
        assert!(is_marked(&with, "bd-1f") && !is_marked(&with, "bd-1"));
    }
}
