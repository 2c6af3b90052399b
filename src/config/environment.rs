//! A snapshot of the environment: what is judged against it is judged once and cannot change meanwhile.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// The environment's variables. Its `Debug` shows names only: values may be secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Env(BTreeMap<String, String>);

impl Env {
    /// This process's variables. One that is not UTF-8 is left out: no name or address of ours is anything else.
    pub fn of_process() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
        )
    }

    /// The variable, unless it is unset or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether the variable is there, even if empty.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The variable as an absolute path; a relative one is ignored, as the XDG base directory rules ask.
    pub fn directory(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from).filter(|path| path.is_absolute())
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Env {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl<N: Into<String>, V: Into<String>, const COUNT: usize> From<[(N, V); COUNT]> for Env {
    fn from(variables: [(N, V); COUNT]) -> Self {
        variables.into_iter().collect()
    }
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_is_unset_and_relative_is_ignored() {
        let env = Env::from([("EMPTY", ""), ("RELATIVE", "a/b"), ("ABSOLUTE", "/a/b")]);
        assert_eq!(env.get("EMPTY"), None);
        assert!(env.has("EMPTY"));
        assert_eq!(env.get("MISSING"), None);
        assert_eq!(env.directory("RELATIVE"), None);
        assert_eq!(env.directory("ABSOLUTE"), Some(PathBuf::from("/a/b")));
    }

    #[test]
    fn values_are_not_shown() {
        assert_eq!(format!("{:?}", Env::from([("KEY", "sk-secret")])), r#"{"KEY"}"#);
    }
}
