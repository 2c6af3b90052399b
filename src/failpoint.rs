//! Named places at which a test lets the process die, panic or fail. Nothing of it is in a release build.

#[cfg(debug_assertions)]
mod wanted {
    use std::cell::RefCell;
    use std::rc::Rc;

    /// Hears of each place as it is reached, and says whether what is done there is to fail.
    pub type Watcher = Rc<dyn Fn(&str) -> bool>;

    thread_local! {
        static WATCHER: RefCell<Option<Watcher>> = const { RefCell::new(None) };
    }

    /// Tells `watcher` of every place that this thread reaches from now on: for simulations, each of which has one thread.
    pub fn watch(watcher: Option<Watcher>) {
        WATCHER.with(|present| *present.borrow_mut() = watcher);
    }

    /// Whether a test wants what is done at `place` to fail.
    pub fn fails(place: &str) -> bool {
        let watcher = WATCHER.with(|present| present.borrow().clone());
        watcher.is_some_and(|watcher| watcher(place))
    }

    /// Dies here as `kill -9` would have it, if `BATCHD_FAILPOINT` names this place: `PLACE`, or `PLACE=WORD` for what
    /// `about` has the word in it. With `:panic` behind, it panics, once; with `:stop`, it stops the process, once.
    pub fn reach(place: &str, about: impl FnOnce() -> String) {
        use nix::sys::signal::{Signal, raise};
        use std::sync::OnceLock;
        use std::sync::atomic::{AtomicBool, Ordering};
        static WANTED: OnceLock<Option<(String, String, &'static str)>> = OnceLock::new();
        static DONE: AtomicBool = AtomicBool::new(false);
        fails(place);
        let wanted = WANTED.get_or_init(|| {
            let wanted = std::env::var("BATCHD_FAILPOINT").ok()?;
            let how = [":panic", ":stop"].into_iter().find(|how| wanted.ends_with(how)).unwrap_or_default();
            let wanted = wanted.strip_suffix(how).unwrap_or(&wanted);
            let (place, word) = wanted.split_once('=').unwrap_or((wanted, ""));
            Some((place.to_owned(), word.to_owned(), how))
        });
        let Some((wanted, word, how)) = wanted else { return };
        if wanted != place || !about().contains(word.as_str()) {
            return;
        }
        if how.is_empty() {
            let _ = raise(Signal::SIGKILL);
        } else if !DONE.swap(true, Ordering::SeqCst) {
            if *how == ":stop" {
                let _ = raise(Signal::SIGSTOP);
            } else {
                std::panic::panic_any("a panic that a test wanted");
            }
        }
    }
}

#[cfg(debug_assertions)]
pub use wanted::{Watcher, fails, reach, watch};

/// In a release build nothing can be wanted.
#[cfg(not(debug_assertions))]
pub fn reach(_place: &str, _about: impl FnOnce() -> String) {}

/// In a release build nothing can be wanted.
#[cfg(not(debug_assertions))]
pub const fn fails(_place: &str) -> bool {
    false
}
