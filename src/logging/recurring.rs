//! A failure that a loop meets again at each of its passes: told when it begins, and when it is over.

use std::fmt::Display;

/// What a loop does at each of its passes, and whether it failed the last time.
#[derive(Debug)]
pub struct Recurring {
    what: &'static str,
    is_failing: bool,
}

impl Recurring {
    /// `what` completes "cannot …".
    pub const fn new(what: &'static str) -> Self {
        Self { what, is_failing: false }
    }

    /// Notes how it went this time, and gives what has come of it.
    pub fn note<T, E: Display>(&mut self, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => {
                self.ends();
                Some(value)
            }
            Err(error) => {
                if self.begins() {
                    tracing::error!(%error, "cannot {}; trying again", self.what);
                }
                None
            }
        }
    }

    /// The same of what is done for a provider.
    pub fn note_of<T, E: Display>(&mut self, provider: &str, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => {
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!(provider, "can {} again", self.what);
                }
                Some(value)
            }
            Err(error) => {
                if self.begins() {
                    tracing::error!(provider, %error, "cannot {}; trying again", self.what);
                }
                None
            }
        }
    }

    /// It failed: whether that is to be told.
    pub fn begins(&mut self) -> bool {
        !std::mem::replace(&mut self.is_failing, true)
    }

    fn ends(&mut self) {
        if std::mem::take(&mut self.is_failing) {
            tracing::info!("can {} again", self.what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Vec<u8>>>);

    impl Write for Told {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_fails_again_and_again_is_told_when_it_begins_and_when_it_is_over() {
        let told = Told::default();
        let sink = told.clone();
        let log = tracing_subscriber::fmt().without_time().with_writer(move || sink.clone()).finish();
        tracing::subscriber::with_default(log, || {
            let mut reading = Recurring::new("read it");
            assert_eq!(reading.note::<_, &str>(Ok(1)), Some(1));
            for why in ["away", "starting up", "away"] {
                assert_eq!(reading.note::<i32, _>(Err(why)), None);
            }
            reading.note_of::<_, &str>("openai", Ok(()));
            reading.note_of::<_, &str>("openai", Ok(()));
            reading.note::<(), _>(Err("gone"));
        });
        let text = String::from_utf8(told.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert_eq!(text.matches("cannot read it; trying again").count(), 2, "{text}");
        assert_eq!(text.matches("can read it again").count(), 1, "{text}");
    }
}
