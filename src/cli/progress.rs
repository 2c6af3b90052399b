//! A bar for bytes on their way: on a terminal only, and gone when it is over.

use super::ui::Ui;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Duration;

/// A bar on stderr; nothing at all where nobody looks. Cheap to clone; all clones are one bar.
#[derive(Clone, Debug)]
pub struct Bar(ProgressBar);

impl Bar {
    /// A bar for `total` bytes, or for as many as come.
    pub fn new(ui: &Ui, what: &'static str, total: Option<u64>) -> Self {
        let target =
            if ui.is_watched() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(total, target);
        let template = match total {
            Some(_) => "{msg:10} [{bar:30}] {bytes} of {total_bytes}, {bytes_per_sec}",
            None => "{msg:10} {bytes}, {bytes_per_sec}",
        };
        // A template that cannot be read costs the looks of it.
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("=> "));
        bar.set_message(what);
        Self(bar)
    }

    /// A line that moves while something takes its time.
    pub fn waiting(ui: &Ui, what: &'static str) -> Self {
        let target =
            if ui.is_watched() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(bar)
    }

    /// So many more have passed.
    pub fn add(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// So many have passed.
    pub fn at(&self, bytes: u64) {
        self.0.set_position(bytes);
    }

    /// Takes it away.
    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}
