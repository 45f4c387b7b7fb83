//! What people signed in with, and where.

use chrono::{DateTime, TimeDelta, Utc};

use super::{Country, Spot};
use crate::{PersonId, PersonalTx};

/// Sign-ins of a person that are kept.
const KEPT: i64 = 20;

/// For how long a device is known that was not used.
pub const KNOWN_FOR: TimeDelta = TimeDelta::days(90);

/// A sign-in.
#[derive(Debug, Clone, PartialEq)]
pub struct SignIn {
    /// When.
    pub occurred_at: DateTime<Utc>,
    /// A digest of what the program calls itself.
    pub device: [u8; 32],
    /// In which country, as far as that is known.
    pub country: Option<Country>,
    /// Where, as far as that is known.
    pub spot: Option<Spot>,
}

/// The person's last sign-ins, newest first.
///
/// # Errors
/// When the database refuses or went away.
pub async fn latest(tx: &mut impl PersonalTx, person: PersonId) -> Result<Vec<SignIn>, sqlx::Error> {
    let since = tx.now() - KNOWN_FOR;
    let rows = sqlx::query!(
        "select occurred_at, device, country, latitude, longitude, radius_km from sign_ins
          where person_id = $1 and occurred_at > $2 order by id desc limit $3",
        person.uuid(),
        since,
        KEPT
    )
    .fetch_all(tx.connection())
    .await?;
    let sign_in = rows.into_iter().map(|row| SignIn {
        occurred_at: row.occurred_at,
        device: row.device.try_into().unwrap_or_default(),
        country: row.country.and_then(|country| country.parse().ok()),
        spot: match (row.latitude, row.longitude, row.radius_km) {
            (Some(latitude), Some(longitude), Some(radius_km)) => {
                Some(Spot { latitude, longitude, radius_km, at: row.occurred_at })
            }
            _ => None,
        },
    });
    Ok(sign_in.collect())
}

/// Keeps one, and forgets those before the last.
///
/// # Errors
/// When the database refuses or went away.
pub async fn keep(tx: &mut impl PersonalTx, person: PersonId, sign_in: &SignIn) -> Result<(), sqlx::Error> {
    let id: uuid::Uuid = tx.ids().mint();
    let (spot, country) = (sign_in.spot, sign_in.country.map(|country| country.to_string()));
    sqlx::query!(
        "insert into sign_ins (id, person_id, occurred_at, device, country, latitude, longitude, radius_km)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
        id,
        person.uuid(),
        sign_in.occurred_at,
        &sign_in.device[..],
        country,
        spot.map(|spot| spot.latitude),
        spot.map(|spot| spot.longitude),
        spot.map(|spot| spot.radius_km)
    )
    .execute(tx.connection())
    .await?;
    sqlx::query!(
        "delete from sign_ins where person_id = $1
            and id in (select id from sign_ins where person_id = $1 order by id desc offset $2)",
        person.uuid(),
        KEPT
    )
    .execute(tx.connection())
    .await
    .map(drop)
}
