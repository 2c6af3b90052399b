//! How each service writes a text so that nothing in it is taken for markup or mentions anybody (`docs/delivery.md#messages`).

use super::text::{cut, utf16};

/// The way of one service.
#[derive(Clone, Copy, Debug)]
pub struct Escape {
    /// The length of a text as the service counts it.
    pub measure: fn(&str) -> usize,
    /// At least the length that a piece of text has once it is escaped.
    cost: fn(&str) -> usize,
    /// The text without anything that the service obeys.
    apply: fn(&str) -> String,
}

impl Escape {
    /// `text` escaped, however long.
    pub fn all(&self, text: &str) -> String {
        (self.apply)(text)
    }

    /// The beginning of `text`, escaped, so that it has at most the length `most`.
    pub fn fit(&self, text: &str, most: usize) -> String {
        (self.apply)(&cut(text, most, self.cost))
    }

    /// As many `lines` as fit into `most`, a line break between any two. They are escaped already: a cut inside a
    /// link or an entity would show.
    pub fn join(&self, lines: impl IntoIterator<Item = String>, most: usize) -> String {
        let mut text = String::new();
        let mut left = most;
        for line in lines {
            let Some(rest) = left.checked_sub((self.measure)(&line) + 1) else { break };
            left = rest;
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&line);
        }
        text
    }
}

/// No markup at all; in bytes.
pub const BYTES: Escape = Escape { measure: str::len, cost: str::len, apply: str::to_owned };

/// No markup at all; in UTF-16 units, which are never fewer than characters.
pub const PLAIN: Escape = Escape { measure: utf16, cost: utf16, apply: str::to_owned };

/// Slack's mrkdwn: only `&`, `<` and `>` mean anything in a text that is not parsed for names.
pub const SLACK: Escape = Escape {
    measure: utf16,
    cost: |text| utf16(text) + text.bytes().map(|byte| entity(byte as char).len()).sum::<usize>(),
    apply: entities,
};

/// Telegram's HTML, where `@name` mentions somebody; in UTF-16 units, entities as they are written.
pub const TELEGRAM: Escape = Escape {
    measure: utf16,
    cost: |text| (SLACK.cost)(text) + text.matches('@').count(),
    apply: |text| separate_mentions(&entities(text)),
};

/// The HTML of Google Chat's cards; in bytes.
pub const GOOGLE_CHAT: Escape = Escape {
    measure: str::len,
    cost: |text| text.len() + text.bytes().map(|byte| entity(byte as char).len()).sum::<usize>(),
    apply: entities,
};

/// The plain text of Google Chat, in which `<users/all>` mentions everybody and nothing can be escaped; in bytes.
pub const GOOGLE_CHAT_TEXT: Escape = Escape {
    measure: str::len,
    cost: |text| text.len() + 2 * text.matches(['<', '>']).count(),
    apply: |text| text.replace('<', "‹").replace('>', "›"),
};

/// Markdown as Discord and Mattermost read it, where `@everyone` and `@channel` mention everybody; in UTF-16 units.
pub const MARKDOWN: Escape = Escape {
    measure: utf16,
    cost: |text| utf16(text) + text.chars().filter(|c| is_markdown(*c) || *c == '@').count(),
    apply: |text| separate_mentions(&markdown(text)),
};

/// Markdown as Teams reads it in the values of facts; in bytes.
pub const TEAMS: Escape = Escape {
    measure: str::len,
    cost: |text| text.len() + text.chars().filter(|c| is_markdown(*c)).count(),
    apply: markdown,
};

/// The inside of a JSON string; in bytes.
pub const JSON: Escape = Escape { measure: str::len, cost: |text| 6 * text.len(), apply: json };

/// What stands for one of the three characters of HTML that are never a text's own.
const fn entity(c: char) -> &'static str {
    match c {
        '&' => "&amp;",
        '<' => "&lt;",
        '>' => "&gt;",
        _ => "",
    }
}

fn entities(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match entity(c) {
            "" => escaped.push(c),
            entity => escaped.push_str(entity),
        }
    }
    escaped
}

/// Backslashes before what Markdown obeys. An underscore between letters means nothing, and identifiers are full of
/// them.
fn markdown(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut before = ' ';
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let inside = before.is_alphanumeric() && rest.peek().is_some_and(|next| next.is_alphanumeric());
        if is_markdown(c) && !(c == '_' && inside) {
            escaped.push('\\');
        }
        escaped.push(c);
        before = c;
    }
    escaped
}

const fn is_markdown(c: char) -> bool {
    matches!(c, '\\' | '`' | '*' | '_' | '~' | '|' | '[' | ']' | '<' | '>' | '#')
}

fn json(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default().to_owned()
}

/// A space without width behind every `@`: no service takes what follows for a name.
fn separate_mentions(text: &str) -> String {
    text.replace('@', "@\u{200b}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Escape; 9] =
        [BYTES, PLAIN, SLACK, TELEGRAM, GOOGLE_CHAT, GOOGLE_CHAT_TEXT, MARKDOWN, TEAMS, JSON];

    #[test]
    fn g11_no_service_obeys_a_name() {
        let name = "@everyone <!channel> [x](https://evil.example) **b** a_b _c_";
        assert_eq!(SLACK.all(name), name.replace('<', "&lt;").replace('>', "&gt;"));
        assert_eq!(
            TELEGRAM.all(name),
            SLACK.all(name).replace('@', "@\u{200b}"),
            "an entity and a mention are both broken"
        );
        let markdown = r"@|everyone \<!channel\> \[x\](https://evil.example) \*\*b\*\* a_b \_c\_";
        assert_eq!(MARKDOWN.all(name), markdown.replace('|', "\u{200b}"));
        assert_eq!(GOOGLE_CHAT_TEXT.all("<users/all>"), "‹users/all›");
    }

    proptest! {
        #[test]
        fn no_text_is_longer_than_it_may_be(text in "(\\PC|[&<>@_*\\[\\]()`\\\\]){0,60}", most in 1_usize..60) {
            for escape in ALL {
                let fit = escape.fit(&text, most);
                prop_assert!((escape.measure)(&fit) <= most, "{}", fit);
            }
        }

        #[test]
        fn joined_lines_keep_to_the_limit(lines in prop::collection::vec("\\PC{0,20}", 0..10), most in 0_usize..60) {
            for escape in ALL {
                let joined = escape.join(lines.clone(), most);
                prop_assert!((escape.measure)(&joined) <= most);
            }
        }
    }
}
