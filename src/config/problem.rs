//! What is wrong with a configuration, and how it is told: as rustc does to a person, as one line to a log.

use super::secret;
use super::source::Source;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use std::ops::Range;

/// One thing that is wrong, or that deserves a word. Its text holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// Where, in bytes of the file; `None`: nowhere in it.
    pub span: Option<Range<usize>>,
    /// What to do about it.
    pub help: Option<String>,
    /// Whether it refuses the configuration.
    pub severity: Severity,
    /// What it shares with others, if one line is to tell of all of them.
    pub alike: Option<Box<Alike>>,
}

/// What a problem has in common with others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alike {
    key: String,
    /// What is wrong with several such keys.
    several: &'static str,
}

/// Whether a problem refuses the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It does.
    Error,
    /// It is told, and the configuration stands.
    Warning,
}

impl Problem {
    /// Something that refuses the configuration.
    pub fn error(span: impl Into<Option<Range<usize>>>, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            span: span.into(),
            help: None,
            severity: Severity::Error,
            alike: None,
        }
    }

    /// Something that deserves a word.
    pub fn warning(span: impl Into<Option<Range<usize>>>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(span, message) }
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn help(self, help: impl Into<Option<String>>) -> Self {
        Self { help: help.into(), ..self }
    }

    /// The same, told of together with others of its kind: `key`, and what is wrong with several such keys.
    #[must_use]
    pub fn alike(self, key: &str, several: &'static str) -> Self {
        Self { alike: Some(Box::new(Alike { key: key.to_owned(), several })), ..self }
    }

    /// `file:line:column: error: message; help`, for logs.
    pub fn one_line(&self, source: &Source) -> String {
        self.line(
            source,
            match self.severity {
                Severity::Error => "error: ",
                Severity::Warning => "warning: ",
            },
        )
    }

    /// `file:line:column: message; help`, where what it is shows otherwise.
    pub fn bare_line(&self, source: &Source) -> String {
        self.line(source, "")
    }

    fn line(&self, source: &Source, label: &str) -> String {
        let mut line = match (source.name(), self.position(source)) {
            (Some(name), Some((row, column))) => format!("{name}:{row}:{column}: "),
            (Some(name), None) => format!("{name}: "),
            (None, _) => String::new(),
        };
        line.push_str(label);
        line.push_str(&self.message);
        if let Some(help) = &self.help {
            line.push_str("; ");
            line.push_str(help);
        }
        line
    }

    /// The line and column where it begins, both from 1, columns in characters.
    pub fn position(&self, source: &Source) -> Option<(usize, usize)> {
        source.name()?;
        Some(source.position(self.span.as_ref()?.start))
    }

    /// As rustc shows it: the message, the line with a caret, the help.
    fn render(&self, source: &Source, renderer: &Renderer) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = annotate_snippets::Group::with_title(level.primary_title(self.message.as_str()));
        let (Some(name), Some(span)) = (source.name(), &self.span) else {
            // Without a line of the file there is no gutter that the help could stand in.
            let help = self.help.as_ref().map(|help| {
                let help = annotate_snippets::Group::with_title(Level::HELP.primary_title(help.as_str()));
                format!("\n{}", renderer.render(&[help]))
            });
            return format!("{}{}", renderer.render(&[title]), help.unwrap_or_default());
        };
        let line = source.line(span);
        let mut group = title.element(
            Snippet::source(line.text)
                .line_start(line.number)
                .path(name)
                .annotation(AnnotationKind::Primary.span(line.span)),
        );
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    }
}

/// All of `problems` as rustc shows them, a blank line between any two.
pub fn render(problems: &[Problem], source: &Source, colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let shown: Vec<String> = problems.iter().map(|problem| problem.render(source, &renderer)).collect();
    shown.join("\n\n")
}

/// A line for each of `problems`, and one for all that are alike, where the first of them stands.
pub fn short_lines(problems: &[Problem], source: &Source) -> Vec<String> {
    let mut lines = Vec::new();
    for (place, problem) in problems.iter().enumerate() {
        let kin = |other: &&Problem| match (&other.alike, &problem.alike) {
            (Some(a), Some(b)) => a.several == b.several && other.help == problem.help,
            _ => false,
        };
        if problems[..place].iter().any(|before| kin(&before)) {
            continue;
        }
        let all: Vec<&Problem> = problems[place..].iter().filter(kin).collect();
        let Some(alike) = problem.alike.as_ref().filter(|_| all.len() > 1) else {
            lines.push(problem.bare_line(source));
            continue;
        };
        let keys = all.iter().filter_map(|problem| {
            let key = &problem.alike.as_ref()?.key;
            let line = problem.position(source).map(|(row, _)| format!(" (line {row})"));
            Some(format!("`{key}`{}", line.unwrap_or_default()))
        });
        let message = format!("{} {}: {}", all.len(), alike.several, keys.collect::<Vec<_>>().join(", "));
        let whole = Problem { span: None, message, ..problem.clone() };
        lines.push(whole.bare_line(source));
    }
    lines
}

/// A configuration that was refused: everything that is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// In the order of the file, errors and warnings.
    pub problems: Vec<Problem>,
    source: Source,
}

impl Refused {
    /// `problems` of `source`, put into the order of the file.
    pub fn new(mut problems: Vec<Problem>, source: Source) -> Self {
        in_order(&mut problems);
        if problems.len() > MAX_PROBLEMS {
            problems.retain(|problem| problem.severity == Severity::Error);
            let more = problems.len().saturating_sub(MAX_PROBLEMS);
            if more > 0 {
                problems.truncate(MAX_PROBLEMS);
                problems.push(Problem::error(None, format!("there are {more} more errors")));
            }
        }
        Self { problems, source }
    }

    /// A problem of no place in a file.
    pub fn plain(problem: Problem) -> Self {
        Self { problems: vec![problem], source: Source::default() }
    }

    /// Everything as rustc would show it, for a person.
    pub fn rendered(&self, colour: bool) -> String {
        render(&self.problems, &self.source, colour)
    }

    /// `file:line:column: error: message; help`, a line for each problem, for logs.
    pub fn one_lines(&self) -> Vec<String> {
        self.problems.iter().map(|problem| problem.one_line(&self.source)).collect()
    }

    /// Whether they are of a file that was found and read.
    pub fn is_of_a_file(&self) -> bool {
        self.source.name().is_some()
    }

    /// The errors alone, without labels: what has to be mended, for who reads a sentence or two.
    pub fn error_lines(&self) -> Vec<String> {
        let errors = self.problems.iter().filter(|problem| problem.severity == Severity::Error);
        errors.map(|problem| problem.bare_line(&self.source)).collect()
    }

    /// The same where each line is labelled as an error already, as in a log.
    pub fn bare_lines(&self) -> Vec<String> {
        self.problems.iter().map(|problem| problem.bare_line(&self.source)).collect()
    }
}

impl std::fmt::Display for Refused {
    /// The first error on one line, and how many more there are.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let errors = || self.problems.iter().filter(|problem| problem.severity == Severity::Error);
        let Some(first) = errors().next() else { return f.write_str("the configuration was refused") };
        f.write_str(&first.one_line(&self.source))?;
        match errors().count() - 1 {
            0 => Ok(()),
            more => write!(f, " (and {more} more; `batchd config check` shows all)"),
        }
    }
}

impl std::error::Error for Refused {}

/// Puts problems into the order of the file; what has no place there comes last.
pub fn in_order(problems: &mut [Problem]) {
    problems.sort_by_key(|problem| {
        let start = problem.span.as_ref().map_or(usize::MAX, |span| span.start);
        (start, problem.severity)
    });
}

/// Somebody's text between backticks, fit for a message: short, on one line, and not if it looks like a secret.
pub fn quote(text: &str) -> String {
    format!("`{}`", shown(text))
}

/// Somebody's text fit for a message, as [`quote`] has it between backticks.
pub fn shown(text: &str) -> String {
    if secret::looks_like_one(text) {
        return "[hidden]".to_owned();
    }
    let mut shown: String = text.chars().take(MAX_QUOTE_CHARS).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_QUOTE_CHARS).is_some() {
        shown.push('…');
    }
    // escape_debug also escapes quotes, which need none between backticks.
    shown.replace("\\\"", "\"").replace("\\'", "'")
}

/// The one of `candidates` that `word` was probably meant to be.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        // A third of the letters may be wrong, and at least one.
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// What to do about a word that is none of `candidates`: the nearest of them, or all.
pub fn suggestion<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> Option<String> {
    match nearest(word, candidates.clone()) {
        Some(candidate) => Some(format!("did you mean `{candidate}`?")),
        None => known(candidates).map(|all| format!("there is {all}")),
    }
}

/// `` `a`, `b`, `c` ``; `None` if there is nothing.
pub fn known<'a>(candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let quoted: Vec<String> = candidates.into_iter().map(|candidate| format!("`{candidate}`")).collect();
    (!quoted.is_empty()).then(|| quoted.join(", "))
}

/// Nobody reads more problems than this.
const MAX_PROBLEMS: usize = 200;

/// More of somebody's text than this is not repeated to him.
const MAX_QUOTE_CHARS: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word() {
        let words = ["min_interval", "max_interval", "timeout", "dir"];
        assert_eq!(nearest("min_intervall", words), Some("min_interval"));
        assert_eq!(nearest("Timeout", words), Some("timeout"));
        assert_eq!(nearest("dri", words), Some("dir"));
        assert_eq!(nearest("colour", words), None);
        assert_eq!(suggestion("colour", ["a", "b"]).as_deref(), Some("there is `a`, `b`"));
        assert_eq!(suggestion("colour", []), None);
    }

    #[test]
    fn quoted_text_stays_on_its_line() {
        assert_eq!(quote("a\n\u{1b}[31mb\"'"), "`a\\n\\u{1b}[31mb\"'`");
        assert_eq!(quote(&"x".repeat(100)), format!("`{}…`", "x".repeat(60)));
        assert_eq!(quote("sk-proj-0123456789abcdef"), "`[hidden]`");
    }

    #[test]
    fn a_refusal_tells_its_first_error_and_counts_the_rest() {
        let source = Source::default();
        let problems = vec![
            Problem::warning(0..1, "odd"),
            Problem::error(7..8, "later"),
            Problem::error(3..4, "earlier").help("mend it".to_owned()),
        ];
        let refused = Refused::new(problems, source);
        assert_eq!(
            refused.to_string(),
            "error: earlier; mend it (and 1 more; `batchd config check` shows all)"
        );
        assert_eq!(refused.one_lines(), ["warning: odd", "error: earlier; mend it", "error: later"]);
    }
}
