//! Colours, on terminals alone (<https://no-color.org> is honoured).

use std::io::{self, IsTerminal};

/// What a text says by its colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Nothing.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Not quite.
    Warn,
    /// Not at all.
    Bad,
    /// Less important.
    Dim,
    /// More important.
    Strong,
}

/// The text in its colour.
pub(crate) fn paint(text: &str, tone: Tone, colour: bool) -> String {
    let code = match tone {
        Tone::Plain => return text.to_owned(),
        Tone::Good => "32",
        Tone::Warn => "33",
        Tone::Bad => "31",
        Tone::Dim => "2",
        Tone::Strong => "1",
    };
    if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

pub(crate) fn stdout_has_colour() -> bool {
    io::stdout().is_terminal() && colour_is_welcome()
}

pub(crate) fn stderr_has_colour() -> bool {
    io::stderr().is_terminal() && colour_is_welcome()
}

fn colour_is_welcome() -> bool {
    let unset = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    unset && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// The tone of a word that says how something is.
pub(crate) fn tone_of(word: &str) -> Tone {
    match word {
        "alive" | "up" | "passing" | "allow" | "yes" | "ready" | "created" | "ok" | "active" => Tone::Good,
        "suspect" | "degraded" | "unknown" | "updated" | "draining" | "warning" => Tone::Warn,
        "down" | "failing" | "deny" | "no" | "revoked" | "deleted" | "failed" | "security" => Tone::Bad,
        "left" | "-" => Tone::Dim,
        _ => Tone::Plain,
    }
}
