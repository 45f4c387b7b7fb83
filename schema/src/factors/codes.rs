//! Codes that are sent to a telephone or an address: good once, for a person, and not for long. Only digests are kept.

use chrono::{DateTime, Duration, Utc};

use super::Kind;
use crate::digest::{constant_time_eq, sha256};
use crate::{FactorId, PersonId, PersonalTx, SentCodeId};

/// How long a code is good.
pub const LASTS: Duration = Duration::minutes(10);

/// Wrong guesses after which a code is good no more.
pub const MAX_TRIES: i32 = 5;

/// Codes that are sent to a person in an hour, whatever to.
pub const MOST_IN_AN_HOUR: i64 = 6;

/// Digits of a code: of other codes there are more, or fewer.
pub const DIGITS: usize = 7;

fn digest(person: PersonId, factor: FactorId, code: &str) -> [u8; 32] {
    sha256(&[b"gantry sent code", person.uuid().as_bytes(), factor.uuid().as_bytes(), code.as_bytes()])
}

/// How many codes were sent to the person since then.
///
/// # Errors
/// When the database refuses or went away.
pub async fn sent_since(tx: &mut impl PersonalTx, person: PersonId, since: DateTime<Utc>) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from sent_codes where person_id = $1 and created_at > $2"#,
        person.uuid(),
        since
    )
    .fetch_one(tx.connection())
    .await
}

/// Keeps a code that is sent to one of the person's factors. Those that were sent to it before are good for nothing.
/// Answers until when.
///
/// # Errors
/// When the database refuses or went away.
pub async fn keep(
    tx: &mut impl PersonalTx,
    person: PersonId,
    factor: FactorId,
    code: &str,
) -> Result<DateTime<Utc>, sqlx::Error> {
    let (id, now) = (tx.ids().mint::<SentCodeId>(), tx.now());
    sqlx::query!(
        "update sent_codes set used_at = $3 where person_id = $1 and factor_id = $2 and used_at is null",
        person.uuid(),
        factor.uuid(),
        now
    )
    .execute(tx.connection())
    .await?;
    sqlx::query!(
        "insert into sent_codes (id, person_id, factor_id, hash, created_at, expires_at) values ($1, $2, $3, $4, $5, $6)",
        id.uuid(),
        person.uuid(),
        factor.uuid(),
        &digest(person, factor, code)[..],
        now,
        now + LASTS
    )
    .execute(tx.connection())
    .await?;
    Ok(now + LASTS)
}

/// Uses up the code that was sent to one of the person's factors, or to that one, which need not be confirmed. Answers to
/// which; `None`: it is none. The guess counts in any case.
///
/// # Errors
/// When the database refuses or went away.
pub async fn take(
    tx: &mut impl PersonalTx,
    person: PersonId,
    only: Option<FactorId>,
    code: &str,
) -> Result<Option<(FactorId, Kind)>, sqlx::Error> {
    let now = tx.now();
    let tried = sqlx::query!(
        r#"update sent_codes c set tries = c.tries + 1 from factors f
            where f.id = c.factor_id and f.person_id = $1 and f.kind in ('sms', 'email') and f.failures < $5
              and (f.id = $2 or $2 is null and f.confirmed_at is not null)
              and c.person_id = $1 and c.used_at is null and c.expires_at > $3 and c.tries < $4
        returning c.id as "id: SentCodeId", c.hash, f.id as "factor: FactorId", f.kind"#,
        person.uuid(),
        only.map(FactorId::uuid),
        now,
        MAX_TRIES,
        super::MAX_FAILURES
    )
    .fetch_all(tx.connection())
    .await?;
    let mut found = None;
    for sent in &tried {
        // All of them are compared, whichever it is.
        if constant_time_eq(&sent.hash, &digest(person, sent.factor, code)) {
            found = Kind::read(&sent.kind).map(|kind| (sent.id, sent.factor, kind));
        }
    }
    let Some((id, factor, kind)) = found else {
        let guessed: Vec<uuid::Uuid> = tried.iter().map(|sent| sent.factor.uuid()).collect();
        sqlx::query!("update factors set failures = failures + 1 where id = any($1)", &guessed)
            .execute(tx.connection())
            .await?;
        return Ok(None);
    };
    sqlx::query!("update sent_codes set used_at = $2 where id = $1", id.uuid(), now).execute(tx.connection()).await?;
    sqlx::query!("update factors set failures = 0, last_used_at = $2 where id = $1", factor.uuid(), now)
        .execute(tx.connection())
        .await?;
    Ok(Some((factor, kind)))
}
