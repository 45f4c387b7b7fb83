//! `gantry-api`: serves the API, and carries out what an operator does before and beside it.

mod accept;
mod bootstrap;
mod license;
mod operator;
mod record;
mod serve;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use gantry_jobs::process::{Program, Settings, help};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Gantry's API.
#[derive(Debug, Parser)]
#[command(name = "gantry-api", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the API; what it does without a command.
    Serve,
    /// Bring the database up to date: migrations, the roles of the processes and their passwords.
    Migrate,
    /// Make the demo organization and somebody who owns it, and print his new password, and a new API key as the last line.
    Seed,
    /// Make the first owner of the installation: prints a link, good once and for 24 hours, by which he makes his account.
    Bootstrap(bootstrap::BootstrapCommand),
    /// Print the OpenAPI document.
    Openapi {
        /// Print instead what of this document it breaks, and fail if it breaks something.
        #[arg(long, value_name = "FILE")]
        compatible_with: Option<PathBuf>,
    },
    /// Print the table of the codes with which requests are refused, as the guide to errors has it.
    Errors,
    /// Give an organization other limits than its tier's, or another tier.
    Limits(operator::LimitsCommand),
    /// Let no key that signs access and ID tokens be believed any more: one of them may be known to somebody else. Whatever
    /// was signed is worth nothing within ten seconds; applications go on by their refresh tokens.
    DistrustSigningKeys,
    /// Give and look at licenses; needs no database and no settings.
    License {
        #[command(subcommand)]
        command: license::LicenseCommand,
    },
    /// Verify the record of what was done, or take a copy of it.
    Audit {
        #[command(subcommand)]
        command: record::AuditCommand,
    },
    /// See to API keys from the machine itself: a new installation has none.
    ApiKey {
        #[command(subcommand)]
        command: operator::ApiKeyCommand,
    },
}

fn main() -> ExitCode {
    let matches = Arguments::command().after_help(help(Program::Api)).get_matches();
    let arguments = match Arguments::from_arg_matches(&matches) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    match run(arguments.command.unwrap_or(Command::Serve)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("gantry-api: {}", told(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let command = match command {
        Command::License { command } => return license::license(command),
        other => other,
    };
    let printed = match &command {
        Command::Openapi { compatible_with: Some(released) } => {
            return compare(released).map(|()| ExitCode::SUCCESS);
        }
        Command::Openapi { compatible_with: None } => Some(format!("{}\n", gantry_api::openapi())),
        Command::Errors => Some(gantry_api::error::table()),
        _ => None,
    };
    if let Some(printed) = printed {
        print!("{printed}");
        return Ok(ExitCode::SUCCESS);
    }
    let settings = Settings::load(Program::Api, std::env::vars_os())?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        match command {
            Command::Serve => serve::serve(&settings).await?,
            Command::Migrate => operator::migrate(&settings).await?,
            Command::Bootstrap(command) => bootstrap::bootstrap(&settings, command).await?,
            Command::Seed => operator::seed(&settings).await?,
            Command::ApiKey { command } => operator::api_key(&settings, command).await?,
            Command::Limits(command) => operator::limits(&settings, command).await?,
            Command::DistrustSigningKeys => operator::distrust_signing_keys(&settings).await?,
            Command::Audit { command } => return record::audit(&settings, command).await,
            Command::Openapi { .. } | Command::Errors | Command::License { .. } => {}
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Says what of a document that was released this one breaks.
fn compare(released: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(released).with_context(|| format!("{} cannot be read", released.display()))?;
    let breaks = gantry_api::compatible::breaks(&text, gantry_api::openapi())
        .with_context(|| format!("{} is no JSON", released.display()))?;
    for broken in &breaks {
        println!("{broken}");
    }
    match breaks.len() {
        0 => Ok(()),
        count => bail!("programs written against {} would break in {count} places", released.display()),
    }
}

/// An error and its causes, without those that the sentence before has quoted already.
fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
