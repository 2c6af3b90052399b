//! A line of results that is in OpenAI's form already (`docs/providers/openai.md#lines`), read without being taken apart:
//! no more is kept of it than what is counted, and it is passed on as the bytes that it is.

use super::openai_results::tokens;
use super::scan::{OrNull, Scan};
use crate::domain::batch::Usage;

/// What is counted of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenLine<'a> {
    /// The submitter's id for the request.
    pub custom_id: Option<&'a str>,
    pub status_code: u16,
    /// The model that answered, where the body names it.
    pub model: Option<&'a str>,
    /// The tokens that the body tells.
    pub usage: Option<Usage>,
}

impl<'a> GivenLine<'a> {
    /// Reads a line that answers a request, in exactly OpenAI's form: with every field that
    /// [`OutputLine::into_json`](super::results::OutputLine::into_json) writes, each of them once and of the usual type.
    ///
    /// `None`: it is anything else, an error among them, or it is not clear; whoever takes it apart can tell.
    pub fn read(line: &'a [u8]) -> Option<Self> {
        let mut scan = Scan::new(line)?;
        let (mut id, mut custom_id, mut response, mut error) = (None, None, None, None);
        scan.object(|scan, key| match key {
            "id" => once(&mut id, scan.name_or_null()?),
            "custom_id" => once(&mut custom_id, scan.name_or_null()?),
            "response" => once(&mut response, Response::read(scan)?),
            "error" => once(&mut error, scan.null()?),
            _ => scan.pass_over(),
        })?;
        scan.end()?;
        let ((), _) = (error?, id?);
        let Response { status_code, body } = response?;
        Some(Self { custom_id: custom_id?.value(), status_code, model: body.model, usage: body.usage })
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status_code)
    }
}

/// Puts a field where it belongs; one that is there twice is not clear.
pub(super) fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

struct Response<'a> {
    status_code: u16,
    body: Body<'a>,
}

impl<'a> Response<'a> {
    fn read(scan: &mut Scan<'a>) -> Option<Self> {
        let (mut status_code, mut request_id, mut body) = (None, None, None);
        scan.object(|scan, key| match key {
            "status_code" => once(&mut status_code, u16::try_from(scan.count()?).ok()?),
            "request_id" => once(&mut request_id, scan.name_or_null()?),
            "body" => once(&mut body, Body::read(scan)?),
            _ => scan.pass_over(),
        })?;
        request_id?;
        Some(Self { status_code: status_code?, body: body? })
    }
}

struct Body<'a> {
    model: Option<&'a str>,
    usage: Option<Usage>,
}

impl<'a> Body<'a> {
    fn read(scan: &mut Scan<'a>) -> Option<Self> {
        let (mut model, mut usage) = (None, None);
        scan.object(|scan, key| match key {
            "model" => once(&mut model, scan.text_or_null()?),
            "usage" => once(&mut usage, Counts::read(scan)?),
            _ => scan.pass_over(),
        })?;
        Some(Self { model: model.and_then(OrNull::value), usage: usage.as_ref().and_then(Counts::usage) })
    }
}

/// The counts of tokens under the names of chat completions, embeddings and responses, in snake case.
#[derive(Default)]
struct Counts {
    prompt: Option<OrNull<u64>>,
    input: Option<OrNull<u64>>,
    completion: Option<OrNull<u64>>,
    output: Option<OrNull<u64>>,
    total: Option<OrNull<u64>>,
    prompt_details: Option<Details>,
    input_details: Option<Details>,
    completion_details: Option<Details>,
    output_details: Option<Details>,
}

impl Counts {
    fn read(scan: &mut Scan<'_>) -> Option<Self> {
        let mut counts = Self::default();
        scan.object(|scan, key| match key {
            "prompt_tokens" => once(&mut counts.prompt, scan.count_or_null()?),
            "input_tokens" => once(&mut counts.input, scan.count_or_null()?),
            "completion_tokens" => once(&mut counts.completion, scan.count_or_null()?),
            "output_tokens" => once(&mut counts.output, scan.count_or_null()?),
            "total_tokens" => once(&mut counts.total, scan.count_or_null()?),
            "prompt_tokens_details" => once(&mut counts.prompt_details, Details::read(scan)?),
            "input_tokens_details" => once(&mut counts.input_details, Details::read(scan)?),
            "completion_tokens_details" => once(&mut counts.completion_details, Details::read(scan)?),
            "output_tokens_details" => once(&mut counts.output_details, Details::read(scan)?),
            // Some write all of it in camel case.
            _ if key.contains("Tokens") => None,
            _ => scan.pass_over(),
        })?;
        Some(counts)
    }

    fn usage(&self) -> Option<Usage> {
        let cached = |details: &Option<Details>| details.as_ref()?.cached?.value();
        let reasoning = |details: &Option<Details>| details.as_ref()?.reasoning?.value();
        tokens(|path| match path {
            "/prompt_tokens" => self.prompt?.value(),
            "/input_tokens" => self.input?.value(),
            "/completion_tokens" => self.completion?.value(),
            "/output_tokens" => self.output?.value(),
            "/total_tokens" => self.total?.value(),
            "/prompt_tokens_details/cached_tokens" => cached(&self.prompt_details),
            "/input_tokens_details/cached_tokens" => cached(&self.input_details),
            "/completion_tokens_details/reasoning_tokens" => reasoning(&self.completion_details),
            "/output_tokens_details/reasoning_tokens" => reasoning(&self.output_details),
            _ => None,
        })
    }
}

#[derive(Default)]
struct Details {
    cached: Option<OrNull<u64>>,
    reasoning: Option<OrNull<u64>>,
}

impl Details {
    /// Details; of `null` there are none.
    fn read(scan: &mut Scan<'_>) -> Option<Self> {
        let mut details = Self::default();
        if !scan.is_null() {
            scan.object(|scan, key| match key {
                "cached_tokens" => once(&mut details.cached, scan.count_or_null()?),
                "reasoning_tokens" => once(&mut details.reasoning, scan.count_or_null()?),
                _ => scan.pass_over(),
            })?;
        }
        Some(details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::lenient;
    use crate::provider::openai_results::output_line;
    use crate::provider::results::{RequestResult, is_written_in};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const LINE: &str = r#"{"id": "batch_req_1", "custom_id": "row-ü", "response": {"status_code": 200, "request_id": null,
        "body": {"id": "c", "model": "gpt-5", "choices": [{"message": {"content": "a \"b\" \n é {[,:"}, "logprob": -1.50e-3}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12, "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": null, "cost": 0.10}}}, "error": null, "more": [1.0, true, {}, []]}"#;

    fn line() -> String {
        // On one line, as a record is.
        LINE.replace("\n        ", " ")
    }

    /// Whether taking `line` apart passes it on as it is, and says the same of it.
    fn says_the_same(line: &[u8], given: GivenLine<'_>) -> Option<bool> {
        let object = lenient::object(line).ok()?;
        let read = output_line(&object).ok()?;
        let RequestResult::Response { status_code, .. } = read.result else { return None };
        let (custom_id, model) = (read.custom_id.as_deref(), read.result.model());
        let is_same = given == GivenLine { custom_id, status_code, model, usage: read.usage };
        Some(is_same && is_written_in(&read.into_json(), &object))
    }

    fn agrees(line: &[u8]) -> bool {
        GivenLine::read(line).is_none_or(|given| says_the_same(line, given) == Some(true))
    }

    #[test]
    fn a_line_in_openai_s_form_is_read_without_being_taken_apart() {
        let line = line();
        let given = GivenLine::read(line.as_bytes()).unwrap();
        assert_eq!((given.custom_id, given.status_code, given.model), (Some("row-ü"), 200, Some("gpt-5")));
        let usage = given.usage.unwrap();
        assert_eq!((usage.input_tokens, usage.output_tokens, usage.total_tokens), (5, 7, 12));
        assert_eq!(usage.input_tokens_details.cached_tokens, 2);
        assert!(agrees(line.as_bytes()));
        let refused = line.replace("200", "429");
        assert!(!GivenLine::read(refused.as_bytes()).unwrap().is_success() && agrees(refused.as_bytes()));
    }

    #[test]
    fn what_is_not_clear_is_left_to_be_taken_apart() {
        let line = line();
        for (from, to) in [
            ("\"error\": null", "\"error\": {\"code\": \"x\"}"),
            ("\"error\": null, ", ""),
            ("\"request_id\": null,", ""),
            ("\"id\": \"batch_req_1\", ", ""),
            ("\"custom_id\": \"row-ü\"", "\"custom_id\": \" \""),
            ("\"custom_id\": \"row-ü\"", "\"custom_id\": 7"),
            ("\"custom_id\": \"row-ü\"", "\"custom_id\": \"a\", \"custom_id\": \"b\""),
            ("\"custom_id\": \"row-ü\"", "\"custom_id\": \"a\\u0062\""),
            ("\"custom_id\": \"row-ü\"", "\"custom\\u005fid\": \"b\", \"custom_id\": \"a\""),
            ("200", "200.0"),
            ("200", "-200"),
            ("200", "0200"),
            ("200", "70000"),
            ("\"prompt_tokens\": 5", "\"prompt_tokens\": 5.0"),
            ("\"prompt_tokens\": 5", "\"promptTokens\": 5"),
            ("\"prompt_tokens\": 5", "\"prompt_tokens\": 18446744073709551616"),
            ("-1.50e-3", "NaN"),
            ("-1.50e-3", "01"),
            ("-1.50e-3", "1."),
            ("-1.50e-3", ".5"),
            ("-1.50e-3", "1e"),
            ("-1.50e-3", "-"),
            ("-1.50e-3", ""),
            ("\\n", "\\ud83d"),
            ("\\n", "\\x"),
            ("\\n", "\\u12g4"),
            ("\\n", "\t"),
            ("true", "t"),
            ("true", "True"),
            ("{}, []]", "{}, []"),
            ("{}, []]", "{}, [],]"),
            ("{}, []]", "{\"a\"}, []]"),
            ("{}, []]", "{,}, []]"),
            ("{}, []]", "{}, []]}"),
        ] {
            let other = line.replacen(from, to, 1);
            assert_ne!(other, line, "{from}");
            assert_eq!(GivenLine::read(other.as_bytes()), None, "{other}");
        }
        for other in ["", "null", "[]", "{", "\"", "{}", "{\"id\": \"", "{\"id\": \"\\"] {
            assert_eq!(GivenLine::read(other.as_bytes()), None, "{other}");
        }
        assert_eq!(GivenLine::read(&line.as_bytes()[..line.len() - 1]), None);
        assert_eq!(GivenLine::read(b"{\"id\": \"\xff\"}"), None);
        let deep = |levels: usize| line.replace("true", &("[".repeat(levels) + &"]".repeat(levels)));
        assert!(GivenLine::read(deep(60).as_bytes()).is_some());
        assert_eq!(GivenLine::read(deep(200).as_bytes()), None);
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(|float| json!(float)),
            "[\\PC\"\\\\{}\\[\\],:\n ]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z\"\\\\é]{0,4}", inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_the_body_holds_the_line_is_passed_on(fields in prop::collection::vec(("[a-z]{1,6}[0-9]", value()), 0..6)) {
            let mut body = json!({"model": "m", "usage": {"total_tokens": 3}});
            for (key, value) in fields {
                body[key] = value;
            }
            let line = json!({"id": null, "custom_id": "a", "error": null,
                "response": {"status_code": 200, "request_id": "r", "body": body}}).to_string();
            prop_assert!(GivenLine::read(line.as_bytes()).is_some(), "{}", line);
            prop_assert!(agrees(line.as_bytes()), "{}", line);
        }

        /// Whatever is done to a line: it is read only if taking it apart says the same.
        #[test]
        fn no_damage_is_passed_on_unseen(
            changes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![
                any::<u8>().prop_map(|byte| vec![byte]),
                prop::sample::select(vec!["", "\"", "\\", "{", "}", "[", "]", ",", ":", "0", "-", ".", "e", "null", "\\u", "\"error\":1,"])
                    .prop_map(|text| text.as_bytes().to_vec()),
            ], any::<bool>()), 0..4),
        ) {
            let mut line = line().into_bytes();
            for (place, with, instead) in changes {
                let at = place.index(line.len());
                line.splice(at..at + usize::from(instead), with);
                if line.is_empty() {
                    break;
                }
            }
            prop_assert!(agrees(&line), "{}", String::from_utf8_lossy(&line));
        }
    }
}
