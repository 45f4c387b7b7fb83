//! The record from the machine itself: `gantry-api audit`.

use std::collections::{BTreeSet, HashMap};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use clap::{Subcommand, ValueEnum};
use futures::StreamExt as _;
use gantry_api::audit::export::{self, Format};
use gantry_api::audit::kept;
use gantry_jobs::process::Settings;
use gantry_schema::audit::checkpoints::Checkpoint;
use gantry_schema::audit::queries::Filter;
use gantry_schema::audit::verify::{self, Against, Verdict};
use gantry_schema::audit::vouching::Vouching;
use gantry_schema::audit::{Draft, keys};
use gantry_schema::{Db, Order, OrganizationId, Window, organizations};

use crate::operator::{begin, connect};

/// What the exit says of a record that is not what was written.
const NOT_AS_WRITTEN: u8 = 3;

/// `gantry-api audit`
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Tell whether the record is what was written. Exits with 0 when it is, 3 when it is not, 1 when it cannot be told.
    Verify {
        /// Only this organization's; left out: everybody's.
        #[arg(long)]
        organization: Option<OrganizationId>,
        /// Checkpoints that were kept elsewhere, as `GET /audit-checkpoints` answers them.
        #[arg(long, value_name = "FILE")]
        checkpoints: Vec<PathBuf>,
    },
    /// Write an organization's record to the standard output. That it was is recorded.
    Export {
        /// Whose.
        #[arg(long)]
        organization: OrganizationId,
        /// As what.
        #[arg(long, value_enum, default_value_t = Written::Ndjson)]
        format: Written,
        /// From this moment on.
        #[arg(long)]
        since: Option<DateTime<Utc>>,
        /// Before this moment; left out: now.
        #[arg(long)]
        until: Option<DateTime<Utc>>,
    },
}

/// How a copy is written.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Written {
    /// A table for spreadsheets.
    Csv,
    /// A line of JSON for each entry.
    Ndjson,
}

/// Carries a command out.
pub async fn audit(settings: &Settings, command: AuditCommand) -> anyhow::Result<ExitCode> {
    let db = connect(settings).await?;
    let sealing = Arc::new(settings.sealing_keys()?);
    match command {
        AuditCommand::Verify { organization, checkpoints } => {
            let kept = checkpoints.iter().map(|file| read(file)).collect::<anyhow::Result<Vec<_>>>()?.concat();
            let vouching = Vouching::with(sealing);
            let fine = verify_all(&db, &vouching, organization, &kept).await?;
            Ok(if fine { ExitCode::SUCCESS } else { ExitCode::from(NOT_AS_WRITTEN) })
        }
        AuditCommand::Export { organization, format, since, until } => {
            let format = match format {
                Written::Csv => Format::Csv,
                Written::Ndjson => Format::Ndjson,
            };
            let filter = Filter { from: since, to: Some(until.unwrap_or(db.now())), ..Filter::default() };
            let mut tx = begin(&db, organization).await?;
            *tx.audit() = Draft::new("audit_entries.export");
            export::describe(tx.audit(), format, &filter);
            tx.commit().await?;
            let mut parts = export::entries(db, sealing, organization, filter, format);
            let mut out = std::io::stdout().lock();
            while let Some(part) = parts.next().await {
                out.write_all(&part?).context("writing the copy")?;
            }
            out.flush().context("writing the copy")?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<Checkpoint>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    kept::read(&text).with_context(|| file.display().to_string())
}

/// Verifies what is asked for, and says of each organization what was found. Answers whether all of it is as written.
async fn verify_all(
    db: &Db,
    vouching: &Vouching,
    only: Option<OrganizationId>,
    kept: &[Checkpoint],
) -> anyhow::Result<bool> {
    let mut tx = db.tenant(OrganizationId::PLATFORM).await?;
    let public_keys = keys::believed(&mut tx, vouching.keys()).await?;
    tx.rollback().await?;
    let witnesses = verify::witnesses(db, vouching).await?;
    let wanted = match only {
        Some(only) => BTreeSet::from([only]),
        None => everybody(db, witnesses.keys().copied().chain(kept.iter().map(|kept| kept.organization))).await?,
    };
    let mut kept_of: HashMap<OrganizationId, Vec<Checkpoint>> = HashMap::new();
    for checkpoint in kept {
        kept_of.entry(checkpoint.organization).or_default().push(checkpoint.clone());
    }
    let mut fine = true;
    for organization in wanted {
        let kept = kept_of.get(&organization).map_or(&[][..], Vec::as_slice);
        let against = Against { witness: witnesses.get(&organization), kept };
        let verdict = verify::organization(db, vouching, &public_keys, organization, &against).await?;
        // Who has done nothing yet has no record; the platform has, from its first migration on.
        let may_be_empty = only.is_none() && organization != OrganizationId::PLATFORM;
        fine &= tell(&verdict, may_be_empty);
    }
    Ok(fine)
}

/// Every organization there is, and those of which somebody knows that they were.
async fn everybody(db: &Db, known: impl Iterator<Item = OrganizationId>) -> anyhow::Result<BTreeSet<OrganizationId>> {
    let mut all: BTreeSet<OrganizationId> = known.chain([OrganizationId::PLATFORM]).collect();
    let mut window = Window::new(Order::Ascending, 1_000);
    loop {
        let mut tx = db.tenant(OrganizationId::PLATFORM).await?;
        let page = organizations::list(&mut tx, window).await?;
        tx.rollback().await?;
        all.extend(page.iter().map(|organization| organization.id));
        match page.last() {
            Some(last) => window = window.after(last.id),
            None => return Ok(all),
        }
    }
}

fn tell(verdict: &Verdict, may_be_empty: bool) -> bool {
    let organization = verdict.organization;
    if verdict.is_empty() && may_be_empty {
        println!("{organization}: nothing is recorded");
        return true;
    }
    let Verdict { sealed, unsealed, checkpoints, .. } = verdict;
    if verdict.is_fine() {
        println!(
            "{organization}: {sealed} entries, {unsealed} more that are not sealed yet, {checkpoints} checkpoints: as written"
        );
        return true;
    }
    for problem in &verdict.problems {
        println!("{organization}: {problem}");
    }
    false
}
