//! What people must know: written beside the event that tells programs the same, and there until somebody dismisses it or
//! it is no longer so.

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::webhooks::event_types::PlatformEvent;
use crate::window::in_order;
use crate::{JobTx as _, NoticeId, TenantTx, Window};

/// Something people must know.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// Its id.
    pub id: NoticeId,
    /// The type of the event that tells the same.
    pub kind: String,
    /// Whom it concerns.
    pub subject: String,
    /// As in the event.
    pub facts: Value,
    /// When it was first so.
    pub created_at: DateTime<Utc>,
    /// When nobody needed to know it any more.
    pub dismissed_at: Option<DateTime<Utc>>,
    /// Who said so; `None`: it was no longer so.
    pub dismissed_by: Option<String>,
}

impl Notice {
    /// What is so, and what to do about it, in a sentence or two.
    #[must_use]
    pub fn message(&self) -> String {
        let fact = |name: &str| self.facts[name].as_str().unwrap_or("?");
        let of = |event: PlatformEvent| self.kind == event.name();
        if of(PlatformEvent::EndpointFailing) {
            let (url, since, until) = (fact("url"), fact("failing_since"), fact("disabled_at"));
            format!(
                "Nothing has reached the webhook endpoint {url} since {since}. It is disabled at {until} if that goes on."
            )
        } else if of(PlatformEvent::EndpointDisabled) {
            let why = match fact("reason") {
                "gone" => "it answered 410, which says that it is gone".to_owned(),
                _ => format!("nothing has reached it since {}", fact("failing_since")),
            };
            format!(
                "The webhook endpoint {} was disabled: {why}. Enable it when it works again; what it missed can be recovered.",
                fact("url")
            )
        } else if of(PlatformEvent::DeliveryExhausted) {
            format!(
                "Deliveries to a webhook endpoint were given up after their last try, of event {} among others. They can be \
                 sent again.",
                fact("event_id")
            )
        } else if of(PlatformEvent::ApiUsageThreshold) {
            format!(
                "{} percent of this month's {} are used. When all are, requests are refused until {}.",
                self.facts["percent"],
                fact("metric"),
                fact("resets_at")
            )
        } else if of(PlatformEvent::LockdownStarted) {
            format!(
                "The organization {} is locked down: {}. Nobody of it, or below it, may do anything until it is unlocked.",
                fact("organization_id"),
                fact("reason")
            )
        } else if of(PlatformEvent::LicenseExpiring) {
            format!("The license ends at {}. Renew it; what runs goes on in any case.", fact("ends_at"))
        } else if of(PlatformEvent::LicenseThreshold) {
            format!(
                "{} of {} {} that the license allows are used. When all are, no more can be added.",
                self.facts["used"],
                self.facts["most"],
                fact("limit").replace('_', " ")
            )
        } else if of(PlatformEvent::ServerUnreachable) {
            format!("Nobody gets into the server {}: {}.", fact("name"), fact("reason"))
        } else if of(PlatformEvent::CloudCredentialRefused) {
            let (name, said) = (fact("name"), fact("detail"));
            format!("The cloud does not take the credential {name}: {said}. Put another in its place.")
        } else if of(PlatformEvent::CloudCredentialOrphansFound) {
            format!(
                "The cloud of the credential {} has {} things of ours that belong to no server any more, and may cost something. \
                 Look at them, and remove them.",
                fact("name"),
                self.facts["found"]
            )
        } else if of(PlatformEvent::ServerDrifted) {
            format!(
                "The server {} is not what is to be there; approve the run {} to put it right.",
                fact("name"),
                fact("run_id")
            )
        } else {
            format!("{} concerns {}.", self.kind, self.subject)
        }
    }
}

/// Writes a notice. One that is there already, and not dismissed, gets the new facts.
///
/// # Errors
/// When the database refuses or went away.
pub async fn write(
    tx: &mut TenantTx,
    of: PlatformEvent,
    subject: &str,
    facts: &Value,
) -> Result<NoticeId, sqlx::Error> {
    let (id, organization, now) = (tx.ids().mint::<NoticeId>(), tx.organization(), tx.now());
    sqlx::query_scalar!(
        r#"insert into notices (id, organization_id, kind, subject, facts, created_at) values ($1, $2, $3, $4, $5, $6)
           on conflict (organization_id, kind, subject) where dismissed_at is null do update set facts = excluded.facts
        returning id as "id: NoticeId""#,
        id.uuid(),
        organization.uuid(),
        of.name(),
        subject,
        facts,
        now
    )
    .fetch_one(tx.connection())
    .await
}

/// What was said of a subject is no longer so.
///
/// # Errors
/// When the database refuses or went away.
pub async fn settle(tx: &mut TenantTx, of: &[PlatformEvent], subject: &str) -> Result<(), sqlx::Error> {
    let (organization, now) = (tx.organization(), tx.now());
    let kinds: Vec<String> = of.iter().map(|event| event.name().to_owned()).collect();
    sqlx::query!(
        "update notices set dismissed_at = $4
          where organization_id = $1 and kind = any($2) and subject = $3 and dismissed_at is null",
        organization.uuid(),
        &kinds,
        subject,
        now
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// Somebody knows it now. `None`: there is no such notice.
///
/// # Errors
/// When the database refuses or went away.
pub async fn dismiss(tx: &mut TenantTx, id: NoticeId, by: &str) -> Result<Option<Notice>, sqlx::Error> {
    let now = tx.now();
    sqlx::query_as!(
        Notice,
        r#"update notices set dismissed_by = case when dismissed_at is null then $2 else dismissed_by end,
                              dismissed_at = coalesce(dismissed_at, $3)
            where id = $1
        returning id as "id: NoticeId", kind, subject, facts, created_at, dismissed_at, dismissed_by"#,
        id.uuid(),
        by,
        now
    )
    .fetch_optional(tx.connection())
    .await
}

/// A page of the notices; with `dismissed`, only of those that are, or are not.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(tx: &mut TenantTx, dismissed: Option<bool>, window: Window) -> Result<Vec<Notice>, sqlx::Error> {
    let organization = tx.organization();
    macro_rules! page {
        ($order:literal) => {
            sqlx::query_as!(
                Notice,
                r#"select id as "id: NoticeId", kind, subject, facts, created_at, dismissed_at, dismissed_by
                     from notices
                    where organization_id = $1 and id > $2 and id < $3
                      and ($4::boolean is null or (dismissed_at is not null) = $4)
                    order by id "#
                    + $order
                    + " limit $5",
                organization.uuid(),
                window.low(),
                window.high(),
                dismissed,
                window.limit
            )
            .fetch_all(tx.connection())
            .await
        };
    }
    in_order!(window.order, page)
}
