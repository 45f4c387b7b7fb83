//! Codes that are sent to a telephone or an address which somebody proves himself with: few, each good once, and counted before
//! anything is looked at.

use std::net::IpAddr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use gantry_jobs::{By, messages};
use gantry_schema::factors::{Factor, Kind, codes};
use gantry_schema::messages::queries::NewMessage;
use gantry_schema::messages::{Phone, Recipient, templates};
use gantry_schema::{FactorId, OrganizationId, PersonId, PersonalTx, TenantTx};
use rand::RngExt as _;

use crate::app::App;
use crate::error::{Code, Error};
use crate::field::Secret;

/// As much of a number or an address as its owner needs to know it again: `+43…67`, `a…@example.com`.
pub(crate) fn hinted(address: &str) -> String {
    if let Ok(phone) = address.parse::<Phone>() {
        return phone.hinted();
    }
    let (name, domain) = address.rsplit_once('@').unwrap_or((address, ""));
    format!("{}…@{domain}", name.chars().take(1).collect::<String>())
}

/// Counts that a code is wanted, as attempts are: what is limited is how much is sent.
pub(crate) async fn counted(app: &App, from: Option<IpAddr>, person: PersonId) -> Result<(), Error> {
    // It stays counted.
    drop(app.attempts().begin("sent_code", from, &person.to_string()).await?);
    Ok(())
}

/// Sends a code, in a transaction of the platform's own organization that acts for the person. Answers until when it is good.
pub(crate) async fn send(
    app: &App,
    tx: &mut TenantTx,
    person: PersonId,
    factor: &Factor,
) -> Result<DateTime<Utc>, Error> {
    let Some(address) = &factor.address else {
        return Err(Error::new(Code::WrongState, "codes are not sent to it: it shows them itself, or signs"));
    };
    let hour = TimeDelta::hours(1);
    let since = PersonalTx::now(tx) - hour;
    if codes::sent_since(tx, person, since).await? >= codes::MOST_IN_AN_HOUR {
        let detail =
            format!("{} codes were sent within an hour; use another second factor, or wait", codes::MOST_IN_AN_HOUR);
        return Err(Error::new(Code::TooManyRequests, detail).after(Duration::from_hours(1)));
    }
    let code = generate();
    let expires_at = codes::keep(tx, person, factor.id, &code).await?;
    let (brand, minutes) = (messages::brand(tx).await?, codes::LASTS.num_minutes());
    let (to, content) = match factor.kind {
        Kind::Sms => {
            let url: Option<url::Url> = app.public_url().parse().ok();
            let host = url.as_ref().and_then(url::Url::host_str).unwrap_or_default();
            let content = templates::code_by_sms(&brand, &code, minutes, host);
            (Recipient::Sms(address.parse().map_err(Error::internal)?), content)
        }
        _ => (
            Recipient::Mail(address.parse().map_err(Error::internal)?),
            templates::code_by_mail(&brand, &code, minutes),
        ),
    };
    let kind = "second_factor_code";
    let new = NewMessage { kind, to: &to, content: &content, reference: None, expires_at: Some(expires_at) };
    messages::send(tx, &app.sealing, &new, &By::platform(kind)).await?;
    Ok(expires_at)
}

fn generate() -> String {
    let (digits, limit) = (codes::DIGITS, 10_000_000_u32);
    format!("{:0digits$}", rand::rng().random_range(0..limit))
}

/// Whether this is the code that was sent to one of the person's factors, or to that one. It is used up.
pub(crate) async fn was_sent(
    app: &App,
    person: PersonId,
    only: Option<FactorId>,
    code: &Secret,
) -> Result<Option<Kind>, Error> {
    // Counted, and not recorded: what comes of it is.
    let mut tx = app.db.tenant_for(OrganizationId::PLATFORM, person).await?;
    let found = codes::take(&mut tx, person, only, code.expose().trim()).await?;
    tx.commit().await?;
    Ok(found.map(|(_, kind)| kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_seven_digits_and_addresses_are_known_again_and_not_told() {
        assert!((0..100).all(|_| generate().len() == codes::DIGITS));
        assert_eq!(hinted("+436601234567"), "+43…67");
        assert_eq!(hinted("ada@example.com"), "a…@example.com");
    }
}
