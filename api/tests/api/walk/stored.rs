//! What lies in the database, table by table, to see whether something changed.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, PgPool};

/// What tables begin with that a refused request may write to, each with the reason.
const LEFT_BEHIND: &[&str] = &[
    // Who was refused a permission is recorded, and counted there.
    "audit_entries",
    "audit_tallies",
];

/// How many rows every table has, and a sum of what is in them.
pub async fn stored(pool: &PgPool) -> BTreeMap<String, (i64, i64)> {
    let tables: Vec<String> = sqlx::query_scalar(
        "select relname::text from pg_class
          where relkind = 'r' and relnamespace = 'public'::regnamespace order by 1",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let mut stored = BTreeMap::new();
    for table in tables.into_iter().filter(|table| !LEFT_BEHIND.iter().any(|left| table.starts_with(left))) {
        let sum = format!(r#"select count(*), coalesce(sum(hashtext(t::text)), 0)::bigint from "{table}" t"#);
        let sum = sqlx::query_as(AssertSqlSafe(sum)).fetch_one(pool).await.unwrap();
        stored.insert(table, sum);
    }
    stored
}
