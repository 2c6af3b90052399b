//! What is wrong with a local file of requests, the same fault of several lines told once.

/// Something that keeps a file from being submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputProblem {
    /// The lines that have it, from 1, first and last of each run; empty: the file as a whole.
    pub lines: Vec<(u64, u64)>,
    /// How many lines have it beyond those.
    more: u64,
    /// What is wrong, as the rest of a sentence about such a line or about the file.
    pub what: String,
}

impl InputProblem {
    /// Of the file as a whole.
    pub fn of_file(what: impl Into<String>) -> Self {
        Self { lines: Vec::new(), more: 0, what: what.into() }
    }

    fn add(&mut self, first: u64, last: u64) {
        let runs = self.lines.len();
        match self.lines.last_mut() {
            Some((_, end)) if self.more == 0 && *end + 1 == first => *end = last,
            _ if runs < MAX_RUNS => self.lines.push((first, last)),
            _ => self.more += last + 1 - first,
        }
    }
}

impl std::fmt::Display for InputProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = &self.what;
        match self.lines.as_slice() {
            [] => write!(f, "the file {what}"),
            [(first, last)] if first == last && self.more == 0 => write!(f, "line {first} {what}"),
            runs => {
                let runs: Vec<String> = runs
                    .iter()
                    .map(
                        |(first, last)| {
                            if first == last { first.to_string() } else { format!("{first}–{last}") }
                        },
                    )
                    .collect();
                write!(f, "lines {}", runs.join(", "))?;
                if self.more > 0 {
                    write!(f, " and {} more", self.more)?;
                }
                write!(f, ": each {what}")
            }
        }
    }
}

/// Everything that is wrong with a file, in its order.
#[derive(Debug, Default)]
pub(super) struct InputProblems {
    problems: Vec<InputProblem>,
    faulty_lines: u64,
}

impl InputProblems {
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// The lines from `first` to `last` have this fault.
    pub fn add_lines(&mut self, first: u64, last: u64, what: &str) {
        self.faulty_lines += last + 1 - first;
        let known = self.problems.iter_mut().find(|known| !known.lines.is_empty() && known.what == what);
        if let Some(known) = known {
            known.add(first, last);
        } else {
            self.problems.push(InputProblem { lines: vec![(first, last)], more: 0, what: what.to_owned() });
        }
    }

    /// The file as a whole has this fault.
    pub fn add(&mut self, what: impl Into<String>) {
        self.problems.push(InputProblem::of_file(what));
    }

    /// Whether there is enough to complain of.
    pub fn is_enough(&self) -> bool {
        self.problems.len() >= MOST_PROBLEMS || self.faulty_lines >= MAX_FAULTY_LINES
    }

    pub fn into_list(self) -> Vec<InputProblem> {
        self.problems
    }
}

/// Problems that are told at once.
pub const MOST_PROBLEMS: usize = 20;

/// After so many lines with a fault the others are not checked any more.
const MAX_FAULTY_LINES: u64 = 1000;

/// Runs of lines that are named for one fault.
const MAX_RUNS: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_fault_is_told_once() {
        let mut problems = InputProblems::default();
        for line in 1..=20 {
            problems.add_lines(line, line, "has no `method`");
        }
        problems.add_lines(23, 23, "has no `method`");
        problems.add_lines(24, 24, "is empty");
        for line in (30..46).step_by(2) {
            problems.add_lines(line, line, "has no `method`");
        }
        problems.add("was cut off");
        let told: Vec<String> = problems.into_list().iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "lines 1–20, 23, 30, 32, 34 and 5 more: each has no `method`",
                "line 24 is empty",
                "the file was cut off"
            ]
        );
    }

    #[test]
    fn a_file_of_faults_is_not_read_to_its_end() {
        let mut problems = InputProblems::default();
        problems.add_lines(1, MAX_FAULTY_LINES - 1, "is empty");
        assert!(!problems.is_enough());
        problems.add_lines(MAX_FAULTY_LINES, MAX_FAULTY_LINES, "is empty");
        assert!(problems.is_enough());
    }
}
