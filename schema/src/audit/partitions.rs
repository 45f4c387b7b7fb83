//! The record's parts: one for each month.

use chrono::Months;

use crate::EngineDb;

/// Prepares the parts of this month and of `months` months ahead, and those of months for which nobody had.
///
/// # Errors
/// When the database refuses or went away.
pub async fn prepare(db: &EngineDb, months: u32) -> Result<(), sqlx::Error> {
    let mut tx = db.auditor().await?;
    let today = tx.now().date_naive();
    let mut days: Vec<_> = (0..=months).filter_map(|ahead| today.checked_add_months(Months::new(ahead))).collect();
    let unprepared = sqlx::query_scalar!(
        r#"select distinct date_trunc('month', id_moment(id) at time zone 'UTC')::date as "month!" from audit_entries_other"#
    )
    .fetch_all(tx.connection())
    .await?;
    days.extend(unprepared);
    sqlx::query!("select audit_partition_add(day) from unnest($1::date[]) as day", &days)
        .fetch_all(tx.connection())
        .await?;
    tx.commit().await
}
