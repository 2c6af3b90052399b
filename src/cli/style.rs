//! What a stream can show, and how a piece of text is meant.

/// What a stream can show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Whether escape sequences for colour are wanted.
    pub colour: bool,
    pub terminal: bool,
    /// How many columns there are; `None`: as many as are needed.
    pub width: Option<u16>,
    pub height: Option<u16>,
}

/// How a piece of text is meant; the words say it too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    #[default]
    Plain,
    Good,
    Warning,
    Bad,
    /// Beside the point.
    Faint,
    /// A heading.
    Strong,
}

impl Style {
    pub(super) fn of(terminal: bool, size: Option<(terminal_size::Width, terminal_size::Height)>) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        let colour =
            terminal && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let size = size.filter(|_| terminal);
        Self {
            colour,
            terminal,
            width: columns.filter(|columns| *columns > 0).or(size.map(|(width, _)| width.0)),
            height: size.map(|(_, height)| height.0),
        }
    }

    /// `text` in the colour of `tone`, if colour is wanted.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "1;31",
            Tone::Faint => "2",
            Tone::Strong => "1",
            Tone::Plain => return text.to_owned(),
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
