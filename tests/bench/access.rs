//! `bench access`: what it costs to know who asks and what he may, pages of a large tree, and how soon a revoked key is
//! refused by another process.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use gantry_schema::OrganizationId;
use gantry_tests::percentile::percentile;
use gantry_tests::process::{Servers, organization};
use serde_json::json;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use crate::http::{Connection, Target};
use crate::measure::{Figures, fsync};
use crate::program::Product;

/// The tree: organizations, levels below the first, and members of each.
const ORGANIZATIONS: i32 = 10_000;
const LEVELS: i32 = 9;
const MEMBERS: i32 = 10;

/// How long requests of one kind are sent.
const LONG: Duration = Duration::from_secs(6);

/// Keys that are made, used and revoked.
const REVOCATIONS: usize = 100;

/// Measures everything, prints it and writes it to `json`.
pub async fn measure(json: Option<PathBuf>) -> anyhow::Result<()> {
    let servers = Servers::from_env()?;
    let product = Product::beside_this()?;
    product.migrate().await?;
    let root = organization(&servers, "Bench").await?;
    product.unlimit(root).await?;
    let key = product.api_key(root).await?;
    let mut owner = PgConnection::connect(&servers.owner_url).await?;
    let begun = Instant::now();
    let all = grow(&mut owner, root).await?;
    eprintln!("{} organizations with {} members each after {:.0?}", all.len() + 1, MEMBERS, begun.elapsed());
    // Wrong credentials of one address are counted, and here they are what is waited for.
    sqlx::query("update rate_rules set number = 6000000, burst = 6000000 where rule = 'credentials'")
        .execute(&mut owner)
        .await?;
    let mut figures = Figures::default();

    let (_, fsync_p99) = fsync()?;
    figures.note("fsync_p99_ms", fsync_p99);
    known_callers(&servers, &mut owner, &product, &key, root, &mut figures).await?;
    let (api, address) = product.api().await?;
    let (other, other_address) = product.api().await?;
    let target = Target { address, key };
    pages(&target, root, &all, &mut figures).await?;
    revocations(&target, &Target { address: other_address, ..target.clone() }, &mut figures).await?;
    figures.write(json.as_deref())?;
    api.stop().await?;
    other.stop().await
}

/// Puts the tree below `root`, level by level, with its members. Answers all of it but the root.
async fn grow(owner: &mut PgConnection, root: OrganizationId) -> anyhow::Result<Vec<Uuid>> {
    let (mut above, mut all) = (vec![root.uuid()], Vec::new());
    let each = ORGANIZATIONS / LEVELS;
    for level in 1..=LEVELS {
        let count = if level == LEVELS { ORGANIZATIONS - 1 - each * (LEVELS - 1) } else { each };
        let made: Vec<Uuid> = sqlx::query_scalar(
            "insert into organizations (id, parent_id, type, name, slug, created_at, updated_at)
             select gen_random_uuid(), $1[1 + n % cardinality($1)], 'sub_user', 'Level ' || $2 || ', ' || n,
                    'o' || n, now(), now()
               from generate_series(1, $3) as n
             returning id",
        )
        .bind(&above)
        .bind(level)
        .bind(count)
        .fetch_all(&mut *owner)
        .await?;
        all.extend_from_slice(&made);
        above = made;
    }
    sqlx::query(
        "with people_made as (
             insert into people (id, email, email_key, name, created_at, updated_at)
             select gen_random_uuid(), n || '@example.com', n || '@example.com', 'Somebody', now(), now()
               from generate_series(1, $2) as n
             returning id),
         numbered as (select id, row_number() over () as n from people_made)
         insert into memberships (organization_id, person_id, role, created_at)
         select $1[1 + n % cardinality($1)], id, 'member', now() from numbered",
    )
    .bind(&all)
    .bind(ORGANIZATIONS * MEMBERS)
    .execute(&mut *owner)
    .await?;
    // The engine adds them up a part at a time.
    while sqlx::query_scalar::<_, i64>("select organizations_add_up(5000)").fetch_one(&mut *owner).await? > 0 {}
    sqlx::query("analyze").execute(owner).await?;
    Ok(all)
}

/// What a request costs because somebody has to be known and may not do everything: a request that reads one row of its
/// own organization, less one that nobody has to be known for, less the reading of the row.
async fn known_callers(
    servers: &Servers,
    owner: &mut PgConnection,
    product: &Product,
    key: &str,
    root: OrganizationId,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let before = transactions(owner).await?;
    let (api, address) = product.api().await?;
    let target = Target { address, key: key.to_owned() };
    let mut bare = PgConnection::connect(&servers.owner_url).await?;
    let mut connection = Connection::open(target.address).await?;
    let known = target.request("GET", &format!("/organizations/{root}"), "");
    let nobody = target.request("GET", "/health/live", "");
    let (mut of_known, mut of_nobody, mut of_row) = (Vec::new(), Vec::new(), Vec::new());
    let begun = Instant::now();
    while begun.elapsed() < LONG {
        for (request, times) in [(&known, &mut of_known), (&nobody, &mut of_nobody)] {
            let sent = Instant::now();
            let (status, answer) = connection.exchange(request).await?;
            anyhow::ensure!(status == 200, "answered {status}: {}", String::from_utf8_lossy(answer));
            times.push(sent.elapsed().as_secs_f64() * 1000.0);
        }
    }
    drop(connection);
    api.stop().await?;
    let after = transactions(owner).await?;
    for _ in 0..of_known.len().min(5_000) {
        let sent = Instant::now();
        sqlx::query("select id, parent_id, type, name, slug, created_at, updated_at from organizations where id = $1")
            .bind(root.uuid())
            .fetch_one(&mut bare)
            .await?;
        of_row.push(sent.elapsed().as_secs_f64() * 1000.0);
    }
    let asked = of_known.len() as f64;
    let (known, nobody, row) =
        (percentile(&mut of_known, 50), percentile(&mut of_nobody, 50), percentile(&mut of_row, 50));
    figures.note("known_p50_ms", known);
    figures.note("nobody_p50_ms", nobody);
    figures.note("row_p50_ms", row);
    figures.note("auth_overhead_p50_ms", known - nobody - row);
    // One transaction is the operation's own, whose scope is one statement; each of the others is two.
    let each = (after - before) as f64 / asked;
    figures.note("transactions_per_request", each);
    figures.note("auth_queries", 1.0 + 2.0 * (each - 1.0).max(0.0));
    Ok(())
}

/// Transactions so far, of every process that has ended: what a process did is told of at the latest when it closes
/// its connections.
async fn transactions(owner: &mut PgConnection) -> anyhow::Result<i64> {
    let open = "select count(*) from pg_stat_activity where usename in ('gantry_app', 'gantry_engine')";
    let begun = Instant::now();
    while sqlx::query_scalar::<_, i64>(open).fetch_one(&mut *owner).await? > 0 {
        anyhow::ensure!(begun.elapsed() < Duration::from_secs(30), "connections stay open after their process ended");
    }
    let count = sqlx::query_scalar(
        "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()",
    );
    Ok(count.fetch_one(owner).await?)
}

/// Pages of the tree: every one of the whole, one after the other, in turns with the first of any part.
async fn pages(target: &Target, root: OrganizationId, all: &[Uuid], figures: &mut Figures) -> anyhow::Result<()> {
    let mut connection = Connection::open(target.address).await?;
    let (mut times, mut number) = (Vec::new(), 0_usize);
    let whole = format!("/organizations/{root}/tree?limit=50");
    let mut next = whole.clone();
    let begun = Instant::now();
    while begun.elapsed() < LONG * 2 {
        number += 1;
        let part = OrganizationId::from_uuid(all[number.wrapping_mul(7_919) % all.len()]);
        for path in [next.clone(), format!("/organizations/{part}/tree?limit=50")] {
            let request = target.request("GET", &path, "");
            let sent = Instant::now();
            let (status, answer) = connection.exchange(&request).await?;
            anyhow::ensure!(status == 200, "answered {status}: {}", String::from_utf8_lossy(answer));
            // The first are warming up.
            if number > 20 {
                times.push(sent.elapsed().as_secs_f64() * 1000.0);
            }
            if path == next {
                let page: serde_json::Value = serde_json::from_slice(answer)?;
                next = match page["next_cursor"].as_str() {
                    Some(cursor) => format!("{whole}&cursor={cursor}"),
                    None => whole.clone(),
                };
            }
        }
    }
    figures.note("subtree_pages", times.len() as f64);
    figures.note("subtree_page_p50_ms", percentile(&mut times, 50));
    figures.note("subtree_page_p99_ms", percentile(&mut times, 99));
    Ok(())
}

/// From the answer that a key is revoked, by one process, until both refuse it.
async fn revocations(one: &Target, other: &Target, figures: &mut Figures) -> anyhow::Result<()> {
    let mut seconds = Vec::new();
    for _ in 0..REVOCATIONS {
        let new = json!({ "name": "to be revoked", "scopes": ["jobs:read"] }).to_string();
        let made = one.ask("POST", "/api-keys", &new).await?;
        let (id, token) =
            (made["api_key"]["id"].as_str().context("no id")?, made["token"].as_str().context("no token")?);
        let mut asking = Vec::new();
        for target in [one, other] {
            let target = Target { key: token.to_owned(), ..target.clone() };
            let mut connection = Connection::open(target.address).await?;
            let request = target.request("GET", "/jobs?limit=1", "");
            anyhow::ensure!(connection.exchange(&request).await?.0 == 200, "the key does not work");
            asking.push((connection, request));
        }
        one.ask("DELETE", &format!("/api-keys/{id}"), "").await?;
        let revoked = Instant::now();
        for (connection, request) in &mut asking {
            while connection.exchange(request).await?.0 != 401 {
                anyhow::ensure!(revoked.elapsed() < Duration::from_secs(10), "a revoked key works for ten seconds");
            }
        }
        seconds.push(revoked.elapsed().as_secs_f64());
    }
    figures.note("revocation_p50_s", percentile(&mut seconds, 50));
    figures.note("revocation_p99_s", percentile(&mut seconds, 99));
    Ok(())
}
