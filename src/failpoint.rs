//! Named places at which a test lets the process die or panic. Nothing of it is in a release build.

/// Dies here as `kill -9` would have it, if `BATCHD_FAILPOINT` names this place: `PLACE`, or `PLACE=WORD` for what
/// `about` has the word in it. With `:panic` behind, it panics, once.
#[cfg(debug_assertions)]
pub fn reach(place: &str, about: impl FnOnce() -> String) {
    use nix::sys::signal::{Signal, raise};
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering};
    static WANTED: OnceLock<Option<(String, String, bool)>> = OnceLock::new();
    static PANICKED: AtomicBool = AtomicBool::new(false);
    let wanted = WANTED.get_or_init(|| {
        let wanted = std::env::var("BATCHD_FAILPOINT").ok()?;
        let (wanted, panics) = match wanted.strip_suffix(":panic") {
            Some(wanted) => (wanted, true),
            None => (wanted.as_str(), false),
        };
        let (place, word) = wanted.split_once('=').unwrap_or((wanted, ""));
        Some((place.to_owned(), word.to_owned(), panics))
    });
    let Some((wanted, word, panics)) = wanted else { return };
    if wanted != place || !about().contains(word.as_str()) {
        return;
    }
    if !panics {
        let _ = raise(Signal::SIGKILL);
    } else if !PANICKED.swap(true, Ordering::SeqCst) {
        std::panic::panic_any("a panic that a test wanted");
    }
}

/// In a release build nothing can be wanted.
#[cfg(not(debug_assertions))]
pub fn reach(_place: &str, _about: impl FnOnce() -> String) {}
