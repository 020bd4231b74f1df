//! What goes to stdout: one value, shown as a table, JSON or YAML.

pub(crate) mod diff;
pub(crate) mod human;
pub(crate) mod style;
pub(crate) mod table;
pub(crate) mod yaml;

use std::io::{self, Write as _};

use selvedge_node::api::types::Manifest;
use serde::Serialize;

use crate::failure::{Failure, Outcome};

/// How data is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For people and programs; of objects, manifests that can be applied again.
    Yaml,
    /// For people with wide terminals.
    Wide,
}

/// How a table looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// Show more columns.
    pub(crate) wide: bool,
    /// Colours may be used.
    pub(crate) colour: bool,
}

impl Look {
    /// No colours, no more columns.
    pub(crate) const PLAIN: Self = Self { wide: false, colour: false };
}

/// Shows values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printer {
    format: Format,
}

impl Printer {
    pub(crate) const fn new(format: Format) -> Self {
        Self { format }
    }

    /// Shows a value; `table` makes the form for people.
    pub(crate) fn show<T: Serialize>(self, value: &T, table: impl FnOnce(Look) -> String) -> Outcome<()> {
        let text = match self.format {
            Format::Json => json(value)?,
            Format::Yaml => yaml::one(value)?,
            Format::Table | Format::Wide => table(self.look()),
        };
        write(&text)
    }

    /// Shows a value that YAML gives as these manifests.
    pub(crate) fn show_manifests<T: Serialize>(
        self,
        value: &T,
        manifests: &[Manifest],
        table: impl FnOnce(Look) -> String,
    ) -> Outcome<()> {
        match self.format {
            Format::Yaml => write(&yaml::manifests(manifests)?),
            Format::Json | Format::Table | Format::Wide => self.show(value, table),
        }
    }

    fn look(self) -> Look {
        Look { wide: self.format == Format::Wide, colour: style::stdout_has_colour() }
    }
}

fn json<T: Serialize>(value: &T) -> Outcome<String> {
    let cannot = |e: serde_json::Error| Failure::new(format!("cannot show this as JSON: {e}"));
    let mut text = serde_json::to_string_pretty(value).map_err(cannot)?;
    text.push('\n');
    Ok(text)
}

/// Writes to stdout. A reader that went away (`| head`) is no failure.
pub(crate) fn write(text: &str) -> Outcome<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}
