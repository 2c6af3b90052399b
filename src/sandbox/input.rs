//! The requests of a batch: one JSON object a line, read and judged once when the batch is created.

use super::answer::{Task, Tokens};
use super::ending::{self, Ending};
use super::memory::Content;
use bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// How the lines of one batch are written.
#[derive(Clone, Debug)]
pub enum Form {
    /// `{"custom_id","method","url","body"}`, every `url` the batch's endpoint.
    OpenAi { task: Task, endpoint: String },
    /// `{"custom_id","params"}`.
    Anthropic,
    /// `{"key","request"}`, inline `{"metadata","request"}`.
    Gemini { task: Task },
    /// `{"custom_id","body"}`.
    Mistral {
        task: Task,
        /// Whether a request may come without a `custom_id`.
        inline: bool,
    },
}

#[derive(Debug)]
pub struct Input {
    pub form: Form,
    pub requests: Vec<Request>,
    /// Why the batch does not pass validation.
    pub problems: Vec<Problem>,
    /// The model that the first line names.
    pub model: Option<String>,
    /// The ending that a model's name asks for.
    pub ending: Option<Ending>,
    /// The working time that a model's name asks for, at speed 1.
    pub working: Option<Duration>,
    content: Arc<Content>,
}

/// One line that can be read.
#[derive(Debug)]
pub struct Request {
    span: Range<usize>,
    /// What its answer will count.
    pub tokens: Tokens,
    /// Why no model would answer it.
    pub defect: Option<Box<Defect>>,
}

/// What is wrong with one request; the others are not touched by it.
#[derive(Clone, Debug)]
pub struct Defect {
    pub param: &'static str,
    pub message: String,
}

/// What is wrong with a batch.
#[derive(Clone, Debug)]
pub struct Problem {
    /// OpenAI's word.
    pub code: &'static str,
    pub message: String,
    pub param: Option<&'static str>,
    /// Counted from 1.
    pub line: Option<usize>,
}

impl Form {
    /// What each request asks for.
    pub fn task(&self) -> Task {
        match self {
            Self::OpenAi { task, .. } | Self::Gemini { task } | Self::Mistral { task, .. } => *task,
            Self::Anthropic => Task::Message,
        }
    }

    /// The part of a line that goes to the model.
    pub fn body<'a>(&self, line: &'a Value) -> &'a Value {
        match self {
            Self::OpenAi { .. } | Self::Mistral { .. } => &line["body"],
            Self::Anthropic => &line["params"],
            Self::Gemini { .. } => &line["request"],
        }
    }

    /// What is wrong with a line as a line.
    fn problem(&self, line: &Value, seen: &mut BTreeSet<String>) -> Option<Problem> {
        let problem = |code, message: String, param| Some(Problem { code, message, param, line: None });
        let (part, needs_id) = match self {
            Self::OpenAi { .. } => ("body", true),
            Self::Mistral { inline, .. } => ("body", !inline),
            Self::Anthropic => ("params", true),
            Self::Gemini { .. } => ("request", false),
        };
        if !line.is_object() {
            return problem("invalid_json_line", "This line is not a JSON object.".to_owned(), None);
        }
        if !line[part].is_object() {
            return problem("missing_required_parameter", format!("`{part}` must be an object."), Some(part));
        }
        match line["custom_id"].as_str() {
            Some(id) if !seen.insert(id.to_owned()) => {
                return problem(
                    "duplicate_custom_id",
                    format!("The custom_id `{id}` is not unique."),
                    Some("custom_id"),
                );
            }
            Some(id) if matches!(self, Self::Anthropic) && !anthropic_id(id) => {
                let message = format!("The custom_id `{id}` must match ^[a-zA-Z0-9_-]{{1,64}}$.");
                return problem("invalid_custom_id", message, Some("custom_id"));
            }
            None if needs_id => {
                let message = "`custom_id` must be a text.".to_owned();
                return problem("missing_required_parameter", message, Some("custom_id"));
            }
            _ => {}
        }
        let Self::OpenAi { endpoint, .. } = self else { return None };
        if line["method"] != "POST" {
            return problem("invalid_method", "The `method` must be POST.".to_owned(), Some("method"));
        }
        if line["url"] != endpoint.as_str() {
            let message = format!("The `url` must be the batch's endpoint, {endpoint}.");
            return problem("invalid_url", message, Some("url"));
        }
        None
    }
}

impl Input {
    /// Reads every line of `content`; blank ones count for nothing. Takes a while for a large file.
    pub fn read(content: Arc<Content>, form: Form) -> Self {
        let bytes: Bytes = (**content).clone();
        let mut input = Self {
            form,
            requests: Vec::new(),
            problems: Vec::new(),
            model: None,
            ending: None,
            working: None,
            content,
        };
        let mut seen = BTreeSet::new();
        let mut last_model = String::new();
        let mut start = 0;
        for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let span = start..start + line.len();
            start = span.end + 1;
            if !line.iter().all(u8::is_ascii_whitespace) {
                input.take(span, line, number + 1, &mut seen, &mut last_model);
            }
        }
        if input.requests.is_empty() && input.problems.is_empty() {
            input.problems.push(Problem {
                code: "empty_batch",
                message: "The input has no requests.".to_owned(),
                param: None,
                line: None,
            });
        }
        input
    }

    pub fn count(&self) -> u32 {
        u32::try_from(self.requests.len()).unwrap_or(u32::MAX)
    }

    /// The request `index` (from 0, in input order) as it was written.
    pub fn line(&self, index: usize) -> Value {
        self.requests
            .get(index)
            .and_then(|request| serde_json::from_slice(&self.content[request.span.clone()]).ok())
            .unwrap_or_default()
    }

    fn take(
        &mut self,
        span: Range<usize>,
        line: &[u8],
        number: usize,
        seen: &mut BTreeSet<String>,
        last_model: &mut String,
    ) {
        let value: Value = match serde_json::from_slice(line) {
            Ok(value) => value,
            Err(_) => {
                return self.complain(Problem {
                    code: "invalid_json_line",
                    message: "This line is not parseable as valid JSON.".to_owned(),
                    param: None,
                    line: Some(number),
                });
            }
        };
        if let Some(problem) = self.form.problem(&value, seen) {
            return self.complain(Problem { line: Some(number), ..problem });
        }
        let body = self.form.body(&value);
        let model = body["model"].as_str().unwrap_or_default();
        if !model.is_empty() && model != last_model {
            if matches!(self.form, Form::OpenAi { .. }) && !last_model.is_empty() {
                return self.complain(Problem {
                    code: "mismatched_model",
                    message: format!("All requests must have the same model; this line has `{model}`."),
                    param: Some("body.model"),
                    line: Some(number),
                });
            }
            model.clone_into(last_model);
            self.model.get_or_insert_with(|| model.to_owned());
            self.ending = self.ending.or_else(|| Ending::in_name(model));
            self.working = self.working.or_else(|| ending::duration_in_name(model));
        }
        let task = self.form.task();
        let mut defect = task.defect(body);
        if defect.is_none() && model.is_empty() && matches!(self.form, Form::OpenAi { .. }) {
            defect = Some(("model", "you must provide a model parameter".to_owned()));
        }
        self.requests.push(Request {
            span,
            tokens: task.tokens(body),
            defect: defect.map(|(param, message)| Box::new(Defect { param, message })),
        });
    }

    fn complain(&mut self, problem: Problem) {
        if self.problems.len() < MOST_PROBLEMS {
            self.problems.push(problem);
        }
    }
}

/// Whether Anthropic takes `id` as a `custom_id`.
fn anthropic_id(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

/// What is wrong with a file is told up to here.
const MOST_PROBLEMS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::memory::{Gathered, Memory};
    use proptest::prelude::*;

    fn read(text: &[u8], form: Form) -> Input {
        let mut gathered = Gathered::new(&Memory::new(1 << 24)).unwrap();
        gathered.add(text).unwrap();
        Input::read(Arc::new(gathered.finish()), form)
    }

    fn chat() -> Form {
        Form::OpenAi { task: Task::Chat, endpoint: "/v1/chat/completions".to_owned() }
    }

    #[test]
    fn each_bad_line_is_named() {
        let good = |id: &str, model: &str| {
            format!(
                r#"{{"custom_id":"{id}","method":"POST","url":"/v1/chat/completions","body":{{"model":"{model}","messages":[{{"role":"user","content":"hi"}}]}}}}"#
            )
        };
        let text = [
            good("a", "m-partial"),
            "{not json".to_owned(),
            String::new(),
            good("a", "m-partial"),
            good("b", "other"),
            r#"{"custom_id":"c","method":"GET","url":"/v1/chat/completions","body":{}}"#.to_owned(),
            r#"{"custom_id":"d","method":"POST","url":"/v1/embeddings","body":{}}"#.to_owned(),
            r#"{"custom_id":"e","method":"POST","url":"/v1/chat/completions"}"#.to_owned(),
            r#"{"method":"POST","url":"/v1/chat/completions","body":{}}"#.to_owned(),
            r#"{"custom_id":"f","method":"POST","url":"/v1/chat/completions","body":{"model":"m-partial"}}"#
                .to_owned(),
        ]
        .join("\n");
        let input = read(text.as_bytes(), chat());
        let found: Vec<_> =
            input.problems.iter().map(|problem| (problem.line.unwrap(), problem.code)).collect();
        assert_eq!(
            found,
            [
                (2, "invalid_json_line"),
                (4, "duplicate_custom_id"),
                (5, "mismatched_model"),
                (6, "invalid_method"),
                (7, "invalid_url"),
                (8, "missing_required_parameter"),
                (9, "missing_required_parameter"),
            ]
        );
        assert_eq!((input.count(), input.ending), (2, Some(Ending::Partial)));
        assert_eq!(input.line(1)["custom_id"], "f");
        assert_eq!(input.requests[1].defect.as_ref().unwrap().param, "messages");
        assert!(input.requests[0].defect.is_none());
    }

    #[test]
    fn nothing_in_it() {
        assert_eq!(read(b"\n \n", chat()).problems[0].code, "empty_batch");
    }

    proptest! {
        #[test]
        fn no_input_panics(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let input = read(&text, chat());
            prop_assert!(!input.problems.is_empty() || input.count() > 0);
        }
    }
}
