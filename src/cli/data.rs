//! `senet data`.

use super::loading::{self, DataBenchArgs, DataShowArgs};
use crate::error::Result;
use clap::{Args, Subcommand};

/// `senet data`.
#[derive(Debug, Args)]
pub struct DataArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: DataCommand,
}

/// What can be done with data.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Time the loader, stage by stage.
    Bench(DataBenchArgs),
    /// Draw what the network will see, after augmentation.
    Show(DataShowArgs),
}

pub(super) fn data(args: &DataArgs) -> Result<u8> {
    match &args.command {
        DataCommand::Bench(args) => loading::bench(args),
        DataCommand::Show(args) => loading::show(args),
    }
}
