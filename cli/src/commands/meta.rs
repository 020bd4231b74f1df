//! `completions` and `man`.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::DONE;
use crate::{
    args::Cli,
    failure::{Failure, Outcome},
    output,
};

/// Completions for a shell.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  selvedge completions bash > /etc/bash_completion.d/selvedge
  selvedge completions zsh > ~/.zfunc/_selvedge")]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(crate) fn completions(args: CompletionsArgs) -> Outcome {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "selvedge", &mut text);
    output::write(&String::from_utf8_lossy(&text))?;
    DONE
}

/// The manual page, or one for each command.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  selvedge man | man -l -
  selvedge man --dir /usr/local/share/man/man1")]
pub(crate) struct ManArgs {
    /// Write a page for each command into this directory
    #[arg(long, value_name = "D")]
    dir: Option<PathBuf>,
}

pub(crate) fn man(args: ManArgs) -> Outcome {
    let cannot = |e: std::io::Error| Failure::new(format!("cannot write the manual: {e}"));
    match args.dir {
        Some(dir) => clap_mangen::generate_to(Cli::command(), dir).map_err(cannot)?,
        None => {
            let mut text = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut text).map_err(cannot)?;
            output::write(&String::from_utf8_lossy(&text))?;
        }
    }
    DONE
}
