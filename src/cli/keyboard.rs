//! A terminal that gives every key as it is pressed, on a screen of its own, and that is as it was afterwards.

use super::error::Error;
use nix::sys::termios::{self, LocalFlags, SetArg, Termios};
use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use tokio::io::AsyncReadExt as _;

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Letter(char),
    Enter,
    Escape,
    Backspace,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    /// Ctrl-C, or the end of the input.
    Interrupt,
}

/// The terminal in its other state; dropped, it is as it was, whatever ends the program in order.
pub struct Keyboard {
    before: Termios,
    ready: VecDeque<Key>,
    /// Bytes of a key that has not come whole.
    part: Vec<u8>,
    stdin: tokio::io::Stdin,
}

impl Keyboard {
    /// Takes the terminal.
    pub fn take() -> Result<Self, Error> {
        let stdin = std::io::stdin();
        let fault = |error: nix::Error| Error::io("the terminal", &error.into());
        let before = termios::tcgetattr(stdin.as_fd()).map_err(fault)?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        // Output is drawn line by line as everywhere else.
        raw.output_flags |= termios::OutputFlags::OPOST;
        termios::tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw).map_err(fault)?;
        // What a panic says would go with this screen.
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            put(LEAVE);
            tell(panic);
        }));
        put(ENTER);
        Ok(Self { before, ready: VecDeque::new(), part: Vec::new(), stdin: tokio::io::stdin() })
    }

    /// The next key. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Key {
        loop {
            if let Some(key) = self.ready.pop_front() {
                return key;
            }
            let mut bytes = [0; 64];
            match self.stdin.read(&mut bytes).await {
                Ok(read) if read > 0 => {
                    self.part.extend_from_slice(&bytes[..read]);
                    self.ready.extend(keys(&mut self.part));
                }
                _ => return Key::Interrupt,
            }
        }
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        put(LEAVE);
        let _ = termios::tcsetattr(std::io::stdin().as_fd(), SetArg::TCSANOW, &self.before);
    }
}

/// A line that is not shown while it is typed, without its end; `None`: Ctrl-C. The terminal is as it was afterwards,
/// which it would not be if Ctrl-C ended the program.
pub fn hidden_line() -> Result<Option<String>, Error> {
    struct Hidden(Termios);
    impl Drop for Hidden {
        fn drop(&mut self) {
            let _ = termios::tcsetattr(std::io::stdin().as_fd(), SetArg::TCSANOW, &self.0);
        }
    }
    let stdin = std::io::stdin();
    let fault = |error: nix::Error| Error::io("the terminal", &error.into());
    let before = termios::tcgetattr(stdin.as_fd()).map_err(fault)?;
    let mut hidden = before.clone();
    hidden.local_flags.remove(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG);
    termios::tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &hidden).map_err(fault)?;
    let _shown_again = Hidden(before);
    let mut typed = Vec::new();
    for byte in stdin.lock().bytes() {
        if !take(&mut typed, byte.map_err(|error| Error::io("standard input", &error))?) {
            break;
        }
    }
    let interrupted = typed.pop_if(|byte| *byte == INTERRUPT).is_some();
    Ok((!interrupted).then(|| String::from_utf8_lossy(&typed).into_owned()))
}

/// What `byte` makes of the bytes `typed` before it; whether more is to come. An interrupt is the last of them.
fn take(typed: &mut Vec<u8>, byte: u8) -> bool {
    const END_OF_INPUT: u8 = 4;
    const KILL: u8 = 0x15;
    match byte {
        INTERRUPT => {
            typed.push(INTERRUPT);
            return false;
        }
        b'\r' | b'\n' => return false,
        END_OF_INPUT => return !typed.is_empty(),
        0x08 | 0x7f => {
            // A letter may be several bytes.
            while typed.pop_if(|byte| (0x80..0xc0).contains(byte)).is_some() {}
            typed.pop();
        }
        KILL => typed.clear(),
        0..0x20 => {}
        _ => typed.push(byte),
    }
    true
}

/// Ctrl-C, as a terminal gives it that does not act on it.
const INTERRUPT: u8 = 3;

/// The keys that `bytes` begin with; what is left is the beginning of one.
fn keys(bytes: &mut Vec<u8>) -> Vec<Key> {
    let mut keys = Vec::new();
    while !bytes.is_empty() {
        // The rest of a letter may still be to come.
        let Some((key, length)) = key(bytes) else { break };
        bytes.drain(..length);
        keys.extend(key);
    }
    keys
}

/// The first key in `bytes` and how many it takes; without a key: bytes that mean nothing here.
fn key(bytes: &[u8]) -> Option<(Option<Key>, usize)> {
    const SEQUENCES: [(&[u8], Key); 16] = [
        (b"\x1b[A", Key::Up),
        (b"\x1bOA", Key::Up),
        (b"\x1b[B", Key::Down),
        (b"\x1bOB", Key::Down),
        (b"\x1b[5~", Key::PageUp),
        (b"\x1b[6~", Key::PageDown),
        (b"\x1b[H", Key::Home),
        (b"\x1bOH", Key::Home),
        (b"\x1b[1~", Key::Home),
        (b"\x1b[F", Key::End),
        (b"\x1bOF", Key::End),
        (b"\x1b[4~", Key::End),
        (b"\r", Key::Enter),
        (b"\n", Key::Enter),
        (b"\x7f", Key::Backspace),
        (b"\x08", Key::Backspace),
    ];
    if let Some((sequence, key)) = SEQUENCES.iter().find(|(sequence, _)| bytes.starts_with(sequence)) {
        return Some((Some(*key), sequence.len()));
    }
    match bytes {
        [3 | 4, ..] => Some((Some(Key::Interrupt), 1)),
        // A sequence of a key that has no meaning here ends with a letter or `~`.
        [0x1b, b'[' | b'O', rest @ ..] => {
            let end = rest.iter().position(|byte| (0x40..=0x7e).contains(byte));
            Some((None, end.map_or(bytes.len(), |end| end + 3)))
        }
        [0x1b, ..] => Some((Some(Key::Escape), 1)),
        [byte, ..] if *byte < 0x20 => Some((None, 1)),
        _ => {
            let length = match std::str::from_utf8(bytes) {
                Ok(text) => text.chars().next().map_or(1, char::len_utf8),
                Err(error) if error.valid_up_to() > 0 => {
                    let text = String::from_utf8_lossy(&bytes[..error.valid_up_to()]).into_owned();
                    text.chars().next().map_or(1, char::len_utf8)
                }
                Err(error) if error.error_len().is_none() => return None,
                Err(_) => return Some((None, 1)),
            };
            let letter = std::str::from_utf8(&bytes[..length]).ok().and_then(|text| text.chars().next());
            Some((letter.map(Key::Letter), length))
        }
    }
}

fn put(sequence: &str) {
    let mut out = std::io::stdout();
    let _ = out.write_all(sequence.as_bytes());
    let _ = out.flush();
}

/// A screen of its own, without a cursor, on which long lines are cut.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_are_told_apart() {
        let mut bytes = b"j\x1b[A\x1bOB\x1b[5~\r\x1b\x03/\xc3\xa4\x1b[1;5C\x7f".to_vec();
        let expected = [
            Key::Letter('j'),
            Key::Up,
            Key::Down,
            Key::PageUp,
            Key::Enter,
            Key::Escape,
            Key::Interrupt,
            Key::Letter('/'),
            Key::Letter('ä'),
            Key::Backspace,
        ];
        assert_eq!(keys(&mut bytes), expected);
        let mut half = vec![0xc3];
        assert_eq!((keys(&mut half), half.len()), (Vec::new(), 1));
    }

    #[test]
    fn a_hidden_line_is_edited_as_a_shown_one() {
        let line = |bytes: &[u8]| {
            let mut typed = Vec::new();
            let read = bytes.iter().take_while(|byte| take(&mut typed, **byte)).count();
            (String::from_utf8(typed).unwrap(), read)
        };
        assert_eq!(line(b"sk-1\nsk-2"), ("sk-1".to_owned(), 4));
        assert_eq!(line("aä\x7fb\x08\x08\x7fc\r".as_bytes()), ("c".to_owned(), 9));
        assert_eq!(line(b"wrong\x15right\x1b\n"), ("right".to_owned(), 12));
        assert_eq!(line(b"\x04x"), (String::new(), 0));
        assert_eq!(line(b"sk\x03x"), ("sk\x03".to_owned(), 2));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_or_stay_for_ever(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut bytes = bytes;
            let _ = keys(&mut bytes);
            prop_assert!(bytes.len() < 4);
        }
    }
}
