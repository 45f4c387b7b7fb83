//! What happened: kept, told to endpoints, and read by whoever would rather ask.

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::window::in_order;
use crate::{EndpointId, EngineDb, EventId, JobTx, TenantTx, Window};

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its id: receivers recognise a repeated delivery by it.
    pub id: EventId,
    /// What kind of thing: `invoice.paid`.
    pub r#type: String,
    /// The facts.
    pub payload: Value,
    /// Where it belongs: endpoints may ask for some channels only.
    pub channels: Vec<String>,
    /// The caller's own name for it.
    pub key: Option<String>,
    /// When.
    pub created_at: DateTime<Utc>,
}

/// An event in the feed.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// The event.
    pub event: Event,
    /// Where the feed continues after it.
    pub place: Place,
}

/// A place in the feed of an organization's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The transaction that wrote the event.
    pub position: i64,
    /// The event.
    pub event: EventId,
}

impl Place {
    /// Before everything.
    pub const BEGINNING: Self = Self { position: 0, event: EventId::from_uuid(uuid::Uuid::nil()) };
}

/// An event.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find(tx: &mut TenantTx, id: EventId) -> Result<Option<Event>, sqlx::Error> {
    Ok(find_many(tx, &[id]).await?.pop())
}

/// Those of the events that exist.
///
/// # Errors
/// When the database refuses or went away.
pub async fn find_many(tx: &mut TenantTx, ids: &[EventId]) -> Result<Vec<Event>, sqlx::Error> {
    let ids: Vec<uuid::Uuid> = ids.iter().map(|id| id.uuid()).collect();
    sqlx::query_as!(
        Event,
        r#"select id as "id: EventId", type, payload, channels, key, created_at from events where id = any($1)"#,
        &ids
    )
    .fetch_all(tx.connection())
    .await
}

/// Which events a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of these types, or that begin so (`invoice.*`); empty: all.
    pub types: Vec<String>,
    /// In this channel.
    pub channel: Option<String>,
}

impl Filter {
    /// Its types are exact ones, so that each is found by its name.
    fn names_types(&self) -> bool {
        !self.types.is_empty() && !self.types.iter().any(|wanted| wanted.ends_with(".*"))
    }
}

/// A page of the events.
///
/// # Errors
/// When the database refuses or went away.
pub async fn list(tx: &mut TenantTx, filter: &Filter, window: Window) -> Result<Vec<Event>, sqlx::Error> {
    let organization = tx.organization();
    macro_rules! events {
        ($order:literal, $($from:literal)+) => {
            sqlx::query_as!(
                Event,
                r#"select e.id as "id: EventId", e.type, e.payload, e.channels, e.key, e.created_at"#
                    $(+ $from)+
                    + " order by e.id "
                    + $order
                    + " limit $4",
                organization.uuid(),
                window.low(),
                window.high(),
                window.limit,
                &filter.types,
                filter.channel
            )
            .fetch_all(tx.connection())
            .await
        };
    }
    // The newest, or oldest, of each type, and of these the newest or oldest.
    macro_rules! of_types {
        ($order:literal) => {
            events!(
                $order,
                " from (select distinct unnest($5::text[]) as type) as wanted
                 cross join lateral (
                     select * from events
                      where organization_id = $1 and type = wanted.type and id > $2 and id < $3
                        and endpoint_id is null and ($6::text is null or $6 = any(channels))
                      order by id "
                $order
                " limit $4) e"
            )
        };
    }
    macro_rules! any {
        ($order:literal) => {
            events!(
                $order,
                " from events e
                  where organization_id = $1 and id > $2 and id < $3 and endpoint_id is null
                    and ($5::text[] = '{}' or exists (
                            select from unnest($5) as wanted
                             where wanted = type or (right(wanted, 2) = '.*' and starts_with(type, left(wanted, -1)))))
                    and ($6::text is null or $6 = any(channels))"
            )
        };
    }
    if filter.names_types() { in_order!(window.order, of_types) } else { in_order!(window.order, any) }
}

/// What a look at the feed found.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// What was wanted, oldest first.
    pub events: Vec<Placed>,
    /// Everything up to here was looked at.
    pub place: Place,
    /// There is nothing behind it yet.
    pub is_end: bool,
}

/// Events that one look at the feed passes over at most to find those that are wanted.
const LOOKED_AT: i64 = 2_000;

/// The events after a place, oldest first: the same that are pushed, in an order in which nothing appears behind a
/// reader. What transactions that still run may yet write comes with the next look. A filter that hardly anything
/// passes costs no more than one that everything does: then the next look goes on from [`Look::place`].
///
/// # Errors
/// When the database refuses or went away.
pub async fn feed(tx: &mut TenantTx, filter: &Filter, after: Place, limit: i64) -> Result<Look, sqlx::Error> {
    let organization = tx.organization();
    let looked_at = if *filter == Filter::default() { limit } else { limit.max(LOOKED_AT) };
    let rows = sqlx::query!(
        r#"select id as "id: EventId", type, payload, channels, key, created_at, position::text::bigint as "position!",
                  wanted as "wanted!", number = total as "is_last!", total as "total!"
             from (select *,
                          ($4::text[] = '{}' or exists (
                               select from unnest($4) as pattern
                                where pattern = type
                                   or (right(pattern, 2) = '.*' and starts_with(type, left(pattern, -1)))))
                          and ($5::text is null or $5 = any(channels)) as wanted,
                          row_number() over (order by position, id) as number, count(*) over () as total
                     from (select * from events
                            where organization_id = $1 and endpoint_id is null
                              and position < pg_snapshot_xmin(pg_current_snapshot())
                              and (position, id) > ($2::bigint::text::xid8, $3)
                            order by position, id limit $7) as following) as looked_at
            where wanted or number = total
            order by position, id limit $6"#,
        organization.uuid(),
        after.position,
        after.event.uuid(),
        &filter.types,
        filter.channel,
        limit,
        looked_at
    )
    .fetch_all(tx.connection())
    .await?;
    let last =
        rows.last().map(|row| (Place { position: row.position, event: row.id }, row.is_last && row.total < looked_at));
    let (place, is_end) = last.unwrap_or((after, true));
    let events = rows.into_iter().filter(|row| row.wanted).map(|row| Placed {
        place: Place { position: row.position, event: row.id },
        event: Event {
            id: row.id,
            r#type: row.r#type,
            payload: row.payload,
            channels: row.channels,
            key: row.key,
            created_at: row.created_at,
        },
    });
    Ok(Look { events: events.collect(), place, is_end })
}

/// Where an event stands in the feed; `None`: it does not, or no longer.
///
/// # Errors
/// When the database refuses or went away.
pub async fn place(tx: &mut TenantTx, event: EventId) -> Result<Option<Place>, sqlx::Error> {
    let position = sqlx::query_scalar!(
        r#"select position::text::bigint as "position!" from events where id = $1 and endpoint_id is null"#,
        event.uuid()
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(position.map(|position| Place { position, event }))
}

/// The place behind everything that is in the feed now.
///
/// # Errors
/// When the database refuses or went away.
pub async fn end_of_feed(tx: &mut TenantTx) -> Result<Place, sqlx::Error> {
    let organization = tx.organization();
    let last = sqlx::query!(
        r#"select id as "id: EventId", position::text::bigint as "position!" from events
            where organization_id = $1 and endpoint_id is null and position < pg_snapshot_xmin(pg_current_snapshot())
            order by events.position desc, id desc limit 1"#,
        organization.uuid()
    )
    .fetch_optional(tx.connection())
    .await?;
    Ok(last.map_or(Place::BEGINNING, |row| Place { position: row.position, event: row.id }))
}

/// Events of a stretch of time that an endpoint wants, by id, from `after` on. With `missed`, only those of which no
/// delivery to it succeeded.
///
/// # Errors
/// When the database refuses or went away.
pub async fn wanted_between(
    tx: &mut TenantTx,
    endpoint: EndpointId,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    missed: bool,
    after: Option<EventId>,
    limit: i64,
) -> Result<Vec<EventId>, sqlx::Error> {
    let organization = tx.organization();
    sqlx::query_scalar!(
        r#"select e.id as "id: EventId"
             from events e join webhook_endpoints w on w.id = $2
            where e.organization_id = $1 and e.endpoint_id is null
              and e.id >= id_at($3) and e.id < id_at($4) and ($6::uuid is null or e.id > $6)
              and (w.event_types = '{}' or exists (
                      select from unnest(w.event_types) as wanted
                       where wanted = e.type or (right(wanted, 2) = '.*' and starts_with(e.type, left(wanted, -1)))))
              and (w.channels = '{}' or w.channels && e.channels)
              and (not $5 or not exists (
                      select from webhook_attempts a
                       where a.endpoint_id = $2 and a.id >= id_at($3) and a.event_id = e.id and a.succeeded))
            order by e.id limit $7"#,
        organization.uuid(),
        endpoint.uuid(),
        from,
        to,
        missed,
        after.map(EventId::uuid),
        limit
    )
    .fetch_all(tx.connection())
    .await
}

/// Stores a test for one endpoint, which is not part of the feed.
///
/// # Errors
/// When the database refuses or went away.
pub async fn insert_test(tx: &mut TenantTx, event: &Event, endpoint: EndpointId) -> Result<(), sqlx::Error> {
    let organization = tx.organization();
    sqlx::query!(
        "insert into events (id, organization_id, type, payload, endpoint_id, created_at) values ($1, $2, $3, $4, $5, $6)",
        event.id.uuid(),
        organization.uuid(),
        event.r#type,
        event.payload,
        endpoint.uuid(),
        event.created_at
    )
    .execute(tx.connection())
    .await
    .map(drop)
}

/// Forgets events and attempts made before a moment, of every organization, up to `limit` of each. Answers how many.
///
/// # Errors
/// When the database refuses or went away.
pub async fn forget(db: &EngineDb, before: DateTime<Utc>, limit: i64) -> Result<u64, sqlx::Error> {
    let events = sqlx::query!(
        "delete from events where id in (select id from events where id < id_at($1) order by id limit $2)",
        before,
        limit
    )
    .execute(db.pool())
    .await?
    .rows_affected();
    let attempts = sqlx::query!(
        "delete from webhook_attempts
          where id in (select id from webhook_attempts where id < id_at($1) order by id limit $2)",
        before,
        limit
    )
    .execute(db.pool())
    .await?
    .rows_affected();
    let notices = sqlx::query!(
        "delete from notices where id in (select id from notices where id < id_at($1) order by id limit $2)",
        before,
        limit
    )
    .execute(db.pool())
    .await?
    .rows_affected();
    Ok(events + attempts + notices)
}
