//! Arguments of `config`.

use std::ffi::OsString;

use clap::{Args, Subcommand};

/// Arguments of `config`.
#[derive(Args, Debug)]
pub struct ConfigArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// The commands on settings.
#[derive(Subcommand, Debug)]
pub enum ConfigCommand {
    /// Show the value of each option and where it was said: flag, variable, file and line, default
    #[command(after_help = "\
Examples:
  tofufs config show
  tofufs config show mount work
  tofufs config show lock --offline")]
    Show(ShowArgs),
}

/// Arguments of `config show`.
#[derive(Args, Debug)]
pub struct ShowArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,

    /// The command whose options are shown, as it would be typed [default: the options of all
    /// commands]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}
