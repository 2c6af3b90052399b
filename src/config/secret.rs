//! Where secrets come from, and the only way to their text.

use super::environment::Env;
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use nix::fcntl::OFlag;
use secrecy::{ExposeSecret, SecretString};
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A place that holds a secret; the secret itself is read only by `run` and `config check`.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// `{ env = "NAME" }`
    Env(String),
    /// `{ file = "/path" }`
    File(PathBuf),
    /// `{ credential = "NAME" }`: `$CREDENTIALS_DIRECTORY/NAME`, else `keys_NAME` there.
    Credential(String),
    /// A plain string in the file.
    Inline(SecretString),
}

impl PartialEq for SecretSource {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Env(one), Self::Env(other)) | (Self::Credential(one), Self::Credential(other)) => {
                one == other
            }
            (Self::File(one), Self::File(other)) => one == other,
            (Self::Inline(one), Self::Inline(other)) => one.expose_secret() == other.expose_secret(),
            _ => false,
        }
    }
}

impl Eq for SecretSource {}

impl SecretSource {
    /// Fetches the secret: never empty, one line, at most 64 KiB, without white space around it and without a byte order
    /// mark.
    ///
    /// # Errors
    ///
    /// Says where it was sought and what to do, never what was found.
    pub fn resolve(&self, env: &Env) -> Result<SecretString, SecretProblem> {
        match self {
            Self::Env(name) => match env.get(name) {
                Some(value) => one_line(value, &self.describe()),
                None if env.has(name) => Err(SecretProblem::Empty { place: self.describe() }),
                None => Err(SecretProblem::NotSet { name: name.clone() }),
            },
            Self::File(path) => {
                read(path, !below_credentials(path, env)).and_then(|text| one_line(&text, &self.describe()))
            }
            Self::Credential(name) => {
                credential(name, env).and_then(|text| one_line(&text, &self.describe()))
            }
            Self::Inline(secret) => one_line(secret.expose_secret(), &self.describe()),
        }
    }

    /// Where it comes from, never what it is.
    pub fn describe(&self) -> String {
        match self {
            Self::Env(name) => format!("the environment variable {name}"),
            Self::File(path) => format!("the file {}", path.display()),
            Self::Credential(name) => format!("the credential {name}"),
            Self::Inline(_) => "the configuration file itself".to_owned(),
        }
    }
}

/// Why a secret could not be had. Its text holds no part of the secret.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SecretProblem {
    /// There is no such variable.
    #[error("the environment variable {name} is not set")]
    NotSet {
        /// The variable.
        name: String,
    },
    /// The place is there and nothing is in it.
    #[error("{place} is empty")]
    Empty { place: String },
    /// There is something in it that no key, token or URL holds.
    #[error("{place} holds a line break or another control character; a secret is one line of text")]
    NotOneLine { place: String },
    #[error("there is no file {path}")]
    NoFile { path: String },
    /// Others may read or change the file.
    #[error("other users may read or change {path} (mode {mode:04o}); run `chmod 600 {path}`")]
    TooOpen {
        path: String,
        /// Its permissions.
        mode: u32,
    },
    /// It is a directory, a socket or something else that is no regular file.
    #[error("{path} is not a regular file")]
    NotAFile { path: String },
    /// It is longer than any secret.
    #[error("{path} is longer than 64 KiB; it should hold the secret and nothing else")]
    TooLong { path: String },
    #[error("{path} is not UTF-8 text")]
    NotText { path: String },
    /// The system refused.
    #[error("{path} cannot be read: {reason}")]
    Unreadable {
        path: String,
        /// What the system said.
        reason: String,
    },
    /// The process was given no credentials.
    #[error(
        "the credential {name} is sought, but CREDENTIALS_DIRECTORY is not set; \
         systemd sets it for units with LoadCredential="
    )]
    NoCredentials {
        /// Which was sought.
        name: String,
    },
    /// The credential is not among those given.
    #[error("there is no credential {name} and no keys_{name} in {directory}")]
    NoCredential {
        /// Which was sought.
        name: String,
        directory: String,
    },
    /// It cannot be the name of a file in the credentials' directory.
    #[error("a credential's name holds no slash and is not empty")]
    BadName,
    /// It is not what a service gives out to check its webhooks with.
    #[error("{place} begins with whsec_, and what follows is not base64; copy the whole secret")]
    NoHookSecret { place: String },
    /// The text is no signing secret.
    #[error(
        "{place} is no signing secret: `whsec_` and 24 to 64 random bytes in base64; \
         `echo whsec_$(openssl rand -base64 32)` makes one"
    )]
    NoSigningSecret { place: String },
}

/// What is wrong with a key that was copied with something around it, as the rest of a sentence about its place.
pub fn wrapping(key: &SecretString) -> Option<&'static str> {
    let key = key.expose_secret();
    let quoted = |quote: char| key.len() > 1 && key.starts_with(quote) && key.ends_with(quote);
    if quoted('"') || quoted('\'') || quoted('`') {
        return Some("holds the key in quotes; write it without them");
    }
    if key.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("Bearer ")) {
        return Some("begins with `Bearer `; write the key alone");
    }
    let (name, value) = key.split_once('=')?;
    let name = name.strip_prefix("export ").unwrap_or(name).trim();
    let is_variable = !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
    let upper = name.to_ascii_uppercase();
    let is_of_a_key = ["KEY", "TOKEN", "SECRET"].iter().any(|word| upper.contains(word));
    (is_variable && is_of_a_key && !value.is_empty())
        .then_some("holds an assignment such as `NAME=KEY`; write the key alone")
}

/// The bytes of a signing secret as Standard Webhooks write it: `whsec_` and base64 of 24 to 64 bytes
/// (`docs/delivery.md#signing-keys`); padding may be missing.
pub fn signing_key(secret: &SecretString) -> Option<secrecy::SecretSlice<u8>> {
    let key = decoded(secret.expose_secret().strip_prefix(SIGNING_PREFIX)?)?;
    SIGNING_KEY_LENGTHS.contains(&key.len()).then(|| key.into())
}

/// The bytes of a secret with which a service signs its own webhooks: what follows `whsec_` in base64, of any length;
/// the text itself if it does not begin so (`docs/providers/openai.md`).
pub fn hook_key(secret: &SecretString) -> Option<secrecy::SecretSlice<u8>> {
    let text = secret.expose_secret();
    let key = match text.strip_prefix(SIGNING_PREFIX) {
        Some(encoded) => decoded(encoded)?,
        None => text.as_bytes().to_vec(),
    };
    (!key.is_empty()).then(|| key.into())
}

fn decoded(encoded: &str) -> Option<Vec<u8>> {
    let base64 = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    base64.decode(encoded).ok()
}

/// Whether `name` can be the name of an environment variable (and is not the secret put in its place).
pub fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !looks_like_one(name)
}

/// Whether `name` can be the name of a credential (and is not the secret put in its place).
pub fn is_credential(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '\0']) && name != "." && name != ".." && !looks_like_one(name)
}

/// Whether `text` looks like a key that somebody put in the wrong place. Such text is never repeated.
pub fn looks_like_one(text: &str) -> bool {
    let words = || text.split(|c: char| !c.is_ascii_alphanumeric() && !"-_".contains(c));
    let prefixed = |word: &str| {
        KEY_PREFIXES.iter().any(|prefix| word.len() > prefix.len() + 4 && word.starts_with(prefix))
    };
    words().any(prefixed)
        || text.split(|c: char| !c.is_ascii_alphanumeric()).any(|run| {
            run.len() >= 20
                && run.contains(|c: char| c.is_ascii_digit())
                && run.contains(|c: char| c.is_ascii_alphabetic())
        })
}

/// Whether `text` stands where a secret was meant to be filled in: `sk-…`, `sk-xxx`, `your-key-here`, `<key>`.
pub fn is_placeholder(text: &str) -> bool {
    let text = text.trim().to_lowercase();
    let filler =
        |rest: &str| rest.len() >= 3 && rest.chars().all(|c| matches!(c, 'x' | '*' | '.' | '-' | '_' | '0'));
    let rest =
        KEY_PREFIXES.iter().find_map(|prefix| text.strip_prefix(&prefix.to_lowercase())).unwrap_or(&text);
    let asks =
        ["your-", "your_", "your ", "yourkey", "yourtoken", "my-api-key", "my_api_key", "insert-", "insert_"];
    let words = [
        "changeme",
        "change-me",
        "change_me",
        "replaceme",
        "replace-me",
        "replace_me",
        "placeholder",
        "todo",
    ];
    text.contains('…')
        || text.contains("...")
        || (text.starts_with('<') && text.ends_with('>'))
        || filler(rest)
        || asks.iter().any(|ask| rest.starts_with(ask) || text.starts_with(ask))
        || words.contains(&rest)
}

fn one_line(text: &str, place: &str) -> Result<SecretString, SecretProblem> {
    // Editors and shells put these there; no secret has them.
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.is_empty() {
        return Err(SecretProblem::Empty { place: place.to_owned() });
    }
    if text.contains(char::is_control) {
        return Err(SecretProblem::NotOneLine { place: place.to_owned() });
    }
    Ok(text.into())
}

fn credential(name: &str, env: &Env) -> Result<String, SecretProblem> {
    if !is_credential(name) {
        return Err(SecretProblem::BadName);
    }
    let directory = env
        .get(CREDENTIALS_DIRECTORY)
        .ok_or_else(|| SecretProblem::NoCredentials { name: name.to_owned() })?;
    let directory = Path::new(directory);
    for file in [directory.join(name), directory.join(format!("keys_{name}"))] {
        match read(&file, false) {
            Err(SecretProblem::NoFile { .. }) => {}
            other => return other,
        }
    }
    Err(SecretProblem::NoCredential { name: name.to_owned(), directory: directory.display().to_string() })
}

/// Whether the path leads into the credentials' directory, whose modes are systemd's affair.
fn below_credentials(path: &Path, env: &Env) -> bool {
    let Some(directory) = env.get(CREDENTIALS_DIRECTORY) else { return false };
    match (path.canonicalize(), Path::new(directory).canonicalize()) {
        (Ok(path), Ok(directory)) => path.starts_with(directory),
        _ => false,
    }
}

fn read(path: &Path, private: bool) -> Result<String, SecretProblem> {
    let shown = || path.display().to_string();
    let failed = |error: &std::io::Error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => SecretProblem::NoFile { path: shown() },
        // The kind alone: the system's text may be anything.
        kind => SecretProblem::Unreadable { path: shown(), reason: kind.to_string() },
    };
    // Without waiting: opening a pipe that nobody writes to would hang.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(|error| failed(&error))?;
    let metadata = file.metadata().map_err(|error| failed(&error))?;
    if !metadata.is_file() {
        return Err(SecretProblem::NotAFile { path: shown() });
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if private && mode & OTHERS != 0 {
        return Err(SecretProblem::TooOpen { path: shown(), mode });
    }
    let mut bytes = Vec::new();
    file.take(MAX_SECRET_BYTES + 1).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    if bytes.len() as u64 > MAX_SECRET_BYTES {
        return Err(SecretProblem::TooLong { path: shown() });
    }
    String::from_utf8(bytes).map_err(|_| SecretProblem::NotText { path: shown() })
}

/// Where systemd puts credentials.
const CREDENTIALS_DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// The permission bits by which somebody else reads or writes.
const OTHERS: u32 = 0o066;

/// More than any secret has.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// What a signing secret begins with.
const SIGNING_PREFIX: &str = "whsec_";

/// Of a signing key, in bytes.
const SIGNING_KEY_LENGTHS: std::ops::RangeInclusive<usize> = 24..=64;

/// What the keys of well-known services begin with.
const KEY_PREFIXES: [&str; 8] = ["sk-", "sk_", "whsec_", "xox", "xai-", "gsk_", "AIza", "hf_"];

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use tempfile::TempDir;

    const SECRET: &str = "sk-proj-0123456789abcdefghij";

    fn file(directory: &TempDir, name: &str, content: &str, mode: u32) -> PathBuf {
        let path = directory.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    fn resolve(source: &SecretSource, env: &Env) -> Result<String, SecretProblem> {
        source.resolve(env).map(|secret| secret.expose_secret().to_owned())
    }

    #[test]
    fn from_the_environment() {
        let env = Env::from([("KEY", SECRET), ("EMPTY", ""), ("LINES", "a\nb"), ("ENDED", "abc\n")]);
        let source = |name: &str| SecretSource::Env(name.to_owned());
        assert_eq!(resolve(&source("KEY"), &env).as_deref(), Ok(SECRET));
        assert_eq!(resolve(&source("ENDED"), &env).as_deref(), Ok("abc"));
        let env = Env::from([("KEY", "\u{feff} sk-1 \r\n\n"), ("NOTHING", "\u{feff}\n")]);
        assert_eq!(resolve(&source("KEY"), &env).as_deref(), Ok("sk-1"));
        assert!(matches!(resolve(&source("NOTHING"), &env), Err(SecretProblem::Empty { .. })));
        let env = Env::from([("KEY", SECRET), ("EMPTY", ""), ("LINES", "a\nb"), ("ENDED", "abc\n")]);
        assert_eq!(resolve(&source("NONE"), &env), Err(SecretProblem::NotSet { name: "NONE".into() }));
        assert!(matches!(resolve(&source("EMPTY"), &env), Err(SecretProblem::Empty { .. })));
        assert!(matches!(resolve(&source("LINES"), &env), Err(SecretProblem::NotOneLine { .. })));
    }

    #[test]
    fn a_key_with_something_around_it_is_told() {
        for wrapped in [
            "\"sk-1\"",
            "'sk-1'",
            "Bearer sk-1",
            "bearer sk-1",
            "OPENAI_API_KEY=sk-1",
            "export OPENAI_API_KEY=sk-1",
            "api_key = sk-1",
        ] {
            let what = wrapping(&wrapped.into()).unwrap_or_else(|| panic!("{wrapped}"));
            assert!(!what.contains("sk-1"), "{what}");
        }
        for sound in ["sk-1", "a=b", "QUJD==", "KEY=", "abc+/=", "\"", "eyJhbGciOi.x.y", "bearer"] {
            assert_eq!(wrapping(&sound.into()), None, "{sound}");
        }
    }

    #[test]
    fn from_a_file_that_only_its_owner_reads() {
        let directory = TempDir::new().unwrap();
        let env = Env::default();
        let good = file(&directory, "good", &format!("{SECRET}\n"), 0o600);
        assert_eq!(resolve(&SecretSource::File(good), &env).as_deref(), Ok(SECRET));
        let crlf = file(&directory, "crlf", &format!("{SECRET}\r\n"), 0o400);
        assert_eq!(resolve(&SecretSource::File(crlf), &env).as_deref(), Ok(SECRET));
        for mode in [0o640, 0o604, 0o660, 0o602] {
            let open = file(&directory, "open", SECRET, mode);
            let problem = resolve(&SecretSource::File(open), &env).unwrap_err();
            assert!(matches!(problem, SecretProblem::TooOpen { .. }), "{mode:o}: {problem}");
            assert!(problem.to_string().contains("chmod 600"), "{problem}");
        }
    }

    #[test]
    fn what_is_no_secret_file() {
        let directory = TempDir::new().unwrap();
        let env = Env::default();
        let of = |path: PathBuf| resolve(&SecretSource::File(path), &env).unwrap_err();
        assert!(matches!(of(file(&directory, "empty", "", 0o600)), SecretProblem::Empty { .. }));
        assert!(matches!(of(file(&directory, "newline", "\n", 0o600)), SecretProblem::Empty { .. }));
        assert!(matches!(of(file(&directory, "lines", "a\n\nb\n", 0o600)), SecretProblem::NotOneLine { .. }));
        let long = "x".repeat(64 * 1024 + 1);
        assert!(matches!(of(file(&directory, "long", &long, 0o600)), SecretProblem::TooLong { .. }));
        assert!(matches!(of(directory.path().to_owned()), SecretProblem::NotAFile { .. }));
        assert!(matches!(of(directory.path().join("none")), SecretProblem::NoFile { .. }));
        let binary = file(&directory, "binary", "", 0o600);
        fs::write(&binary, [0xff, 0xfe]).unwrap();
        assert!(matches!(of(binary), SecretProblem::NotText { .. }));
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(matches!(of(pipe), SecretProblem::NotAFile { .. }));
    }

    #[test]
    fn from_systemd_whatever_the_mode() {
        let directory = TempDir::new().unwrap();
        file(&directory, "plain", "one\n", 0o444);
        file(&directory, "keys_openai", "two", 0o440);
        let env = Env::from([("CREDENTIALS_DIRECTORY", directory.path().to_str().unwrap())]);
        let of = |name: &str| resolve(&SecretSource::Credential(name.to_owned()), &env);
        assert_eq!(of("plain").as_deref(), Ok("one"));
        assert_eq!(of("openai").as_deref(), Ok("two"));
        assert!(matches!(of("none"), Err(SecretProblem::NoCredential { .. })));
        for bad in ["", "..", "../plain", "a/b"] {
            assert_eq!(of(bad), Err(SecretProblem::BadName), "{bad}");
        }
        let named = SecretSource::File(directory.path().join("plain"));
        assert_eq!(resolve(&named, &env).as_deref(), Ok("one"));
        let outside = TempDir::new().unwrap();
        let sneaked = directory.path().join("..").join(outside.path().file_name().unwrap()).join("key");
        file(&outside, "key", "three", 0o444);
        assert!(matches!(
            resolve(&SecretSource::File(sneaked), &env),
            Err(SecretProblem::TooOpen { .. } | SecretProblem::NoFile { .. })
        ));
        assert!(matches!(
            resolve(&SecretSource::Credential("plain".into()), &Env::default()),
            Err(SecretProblem::NoCredentials { .. })
        ));
    }

    #[test]
    fn nothing_shows_the_secret() {
        let inline = SecretSource::Inline(SECRET.into());
        assert!(!format!("{inline:?}").contains(SECRET));
        assert!(!inline.describe().contains(SECRET));
        assert_eq!(resolve(&inline, &Env::default()).as_deref(), Ok(SECRET));
        let broken = SecretSource::Inline(format!("{SECRET}\n{SECRET}").into());
        assert!(!resolve(&broken, &Env::default()).unwrap_err().to_string().contains(SECRET));
    }

    #[test]
    fn signing_secrets() {
        let key = |text: &str| signing_key(&text.into()).map(|key| key.expose_secret().len());
        assert_eq!(key("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="), Some(32));
        assert_eq!(key("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"), Some(32));
        assert_eq!(key("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="), None);
        assert_eq!(key("whsec_c2hvcnQ="), None);
        assert_eq!(key("whsec_not base64"), None);
    }

    #[test]
    fn what_stands_in_the_place_of_a_key() {
        for text in [
            "sk-…",
            "sk-...",
            "sk-xxx",
            "SK-XXXXXXXX",
            "your-key-here",
            "YOUR_API_KEY",
            "<key>",
            "changeme",
            "sk-your-key",
            "sk-proj-...",
        ] {
            assert!(is_placeholder(text), "{text}");
        }
        for text in [
            SECRET,
            "k",
            "key",
            "t0ken",
            "sk-test",
            "sk",
            "test",
            "xoxb-1234-5678",
            "yours",
            "0123456789abcdef",
            "sandbox",
        ] {
            assert!(!is_placeholder(text), "{text}");
        }
    }

    #[test]
    fn a_key_in_the_place_of_a_name() {
        for key in [SECRET, "AIzaSyA0123456789", "0123456789abcdef01234567", "xoxb-1234-5678"] {
            assert!(looks_like_one(key) && !is_variable(key) && !is_credential(key), "{key}");
        }
        for name in ["OPENAI_API_KEY", "KEY_2", "my_very_long_variable_name_with_2_digits", "_X"] {
            assert!(is_variable(name), "{name}");
        }
        for name in ["", "1KEY", "A-B", "A B", "Ä"] {
            assert!(!is_variable(name), "{name}");
        }
        assert!(is_credential("openai") && is_credential("batchd.openai"));
    }
}
