//! The first owner: whoever has the machine says who it is, by a link that is good once.

use anyhow::{Context as _, bail};
use clap::Args;
use gantry_api::accounts::link;
use gantry_jobs::process::Settings;
use gantry_schema::people::Email;
use gantry_schema::people::one_time::{self, NewToken, Purpose};
use gantry_schema::token::OneTimeToken;
use gantry_schema::{OrganizationId, memberships};
use url::Url;

use crate::operator::{begin, connect};

/// Make the first owner of the installation.
#[derive(Debug, Args)]
pub struct BootstrapCommand {
    /// Who: his e-mail address, with which he signs in.
    #[arg(long)]
    email: Email,
    /// Make another one, though there is an owner.
    #[arg(long)]
    another: bool,
}

/// Prints the link; it is the last line.
pub async fn bootstrap(settings: &Settings, command: BootstrapCommand) -> anyhow::Result<()> {
    let BootstrapCommand { email, another } = command;
    let public_url = match settings.optional::<Url>("PUBLIC_URL")? {
        Some(url) => url.to_string(),
        None => format!("http://{}", settings.required::<std::net::SocketAddr>("LISTEN")?),
    };
    let db = connect(settings).await?;
    let mut tx = begin(&db, OrganizationId::PLATFORM).await?;
    if memberships::has_owner(&mut tx).await? && !another {
        bail!("this installation has an owner already; have him invite others, or add --another");
    }
    let token = OneTimeToken::generate(&mut rand::rng());
    let new = NewToken { purpose: Purpose::Bootstrap, email: &email, person: None, name: None, locale: None };
    let expires_at = one_time::keep(&mut tx, &token, &new).await?;
    tx.record("bootstrap.begin").set("another", another).set("expires_at", expires_at);
    tx.commit().await.context("keeping the link")?;
    eprintln!("gantry-api: {} becomes an owner by this link, once, until {expires_at}:", email.as_str());
    println!("{}", link::to(&public_url, Purpose::Bootstrap, &token));
    Ok(())
}
