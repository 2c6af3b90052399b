//! What a person at a terminal sees and types, on a pseudo-terminal.

use super::program::bare;
use super::stand_in::{Daemon, batch};
use crate::world::until;
use nix::pty::{Winsize, openpty};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

/// A program on a terminal of its own; killed when dropped.
struct Terminal {
    child: Child,
    keys: File,
    /// Everything that was drawn so far.
    drawn: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn start(mut command: Command, columns: u16, rows: u16) -> Self {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None).unwrap();
        let slave = || File::from(pair.slave.try_clone().unwrap());
        let child = command
            .env("TERM", "xterm-256color")
            .stdin(slave())
            .stdout(slave())
            .stderr(slave())
            .spawn()
            .unwrap();
        drop((command, pair.slave));
        let keys = File::from(pair.master);
        let drawn = Arc::new(Mutex::new(Vec::new()));
        let (mut from, sink) = (keys.try_clone().unwrap(), Arc::clone(&drawn));
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            // A terminal whose program has ended answers with an error.
            while let Ok(count @ 1..) = from.read(&mut piece) {
                sink.lock().unwrap().extend_from_slice(&piece[..count]);
            }
        });
        Self { child, keys, drawn }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// What was drawn so far, without the sequences for colour.
    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.drawn.lock().unwrap()).into_owned();
        ["\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[7m", "\x1b[33m", "\x1b[32m", "\x1b[1;31m"]
            .iter()
            .fold(text, |text, sequence| text.replace(sequence, ""))
    }

    /// Waits until this is drawn behind what was drawn before.
    fn sees(&self, text: &str) {
        until(&format!("{text:?} in {:?}", self.text()), || self.text().contains(text).then_some(()));
    }

    fn ends(mut self) -> (i32, String) {
        let status = until("the end", || self.child.try_wait().unwrap());
        (status.code().unwrap_or(-1), self.text())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is asked before a batch is cancelled, and how to leave, can be read in any terminal.
#[test]
fn the_live_screen_fits_a_narrow_terminal() {
    let daemon = Daemon::start();
    daemon.world(|world| {
        let mut named = batch("openai", "batch_68fd8e2f1c0c8190a1b2c3d4e5f60718", "in_progress");
        named["batchd"]["name"] = "nightly evals".into();
        let other = batch("openai", "batch_0123456789abcdef0123456789abcdef", "in_progress");
        world.batches = vec![other, named];
    });
    let mut terminal = Terminal::start(daemon.batchd(&["list", "--watch"]), 60, 15);
    terminal.sees("q quit");
    terminal.press("c");
    terminal.sees("cancel nightly evals? y/N");
    terminal.press("n");
    terminal.sees("not cancelled");
    terminal.press("jc");
    terminal.sees("cancel openai:batch_0123456789abcdef0123456789abcdef? y/N");
    terminal.press("n");
    terminal.press("\x03");
    let (code, text) = terminal.ends();
    assert_eq!(code, 0);
    assert!(text.ends_with("\x1b[?7h\x1b[?25h\x1b[?1049l"), "the terminal is as it was: {text:?}");
    let mut terminal = Terminal::start(daemon.batchd(&["list", "--watch"]), 40, 15);
    terminal.sees("q quit");
    terminal.press("jc");
    terminal.sees("? y/N");
}

/// A key that is set is most likely meant: the empty answer takes it.
#[test]
fn init_takes_a_key_that_is_set_by_enter() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("config.toml");
    // Named, for a test that runs as root would write below /etc.
    let mut command = bare(&home, &["--config", file.to_str().unwrap(), "init", "--no-check"]);
    command.env("OPENAI_API_KEY", "sk-test-1234567890");
    let mut terminal = Terminal::start(command, 80, 24);
    terminal.sees("OPENAI_API_KEY is set: watch openai? [Y/n]");
    terminal.press("\r");
    terminal.sees("Another provider");
    terminal.press("\r");
    terminal.sees("A webhook to tell");
    terminal.press("\r");
    until("the configuration", || file.exists().then_some(()));
    assert!(std::fs::read_to_string(file).unwrap().contains("[providers.openai]"));
}
