//! The tree of organizations: what may stand where, moves at the same time, suspension, deletion and what is left.

use std::collections::{BTreeMap, BTreeSet};

use chrono::Duration;
use gantry_jobs::maintenance::PurgeOrganizations;
use gantry_schema::jobs::State;
use gantry_schema::jobs::control::Filter;
use gantry_schema::memberships::Role;
use gantry_schema::organizations::settings::{self, Origin, Setting};
use gantry_schema::organizations::{self, COUNTED, Change, NewOrganization, OrganizationType, lifecycle, tree};
use gantry_schema::{Order, OrganizationId, TenantTx, Window};
use gantry_tests::kinds::{OneAtATime, Scripted};
use gantry_tests::{Actor, Platform};
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use sqlx::PgPool;

use crate::tenancy::{OF_PLATFORM, furnished, strings, tables};

/// Which constraint refused.
fn refused_by<T: std::fmt::Debug>(done: Result<T, sqlx::Error>) -> String {
    let error = done.unwrap_err();
    let constraint = error.as_database_error().and_then(sqlx::error::DatabaseError::constraint);
    constraint.map_or_else(|| error.to_string(), str::to_owned)
}

async fn made(platform: &Platform, parent: OrganizationId, r#type: OrganizationType, name: &str) -> OrganizationId {
    let mut tx = platform.operator().begin().await;
    let new = NewOrganization { r#type: Some(r#type), ..NewOrganization::below(parent, name) };
    let made = organizations::create(&mut tx, &new).await.unwrap();
    tx.commit().await.unwrap();
    made.id
}

async fn put_below(platform: &Platform, id: OrganizationId, parent: OrganizationId) -> Result<bool, sqlx::Error> {
    let mut tx = platform.operator().begin().await;
    let done = tree::put_below(&mut tx, id, parent).await?;
    tx.commit().await?;
    Ok(done)
}

/// Everything the tree says of itself in several places says the same.
async fn is_consistent(platform: &Platform) {
    for (what, statement) in [
        (
            "pairs of the closure that the parents do not make, or that are missing",
            "with recursive up as (
                 select id as descendant_id, id as ancestor_id, 0 as depth from organizations
                 union all
                 select up.descendant_id, o.parent_id, up.depth + 1
                   from up join organizations o on o.id = up.ancestor_id where o.parent_id is not null)
             select count(*) from (
                 (select descendant_id, ancestor_id, depth from up
                   except select descendant_id, ancestor_id, depth from organization_closure)
                 union all
                 (select descendant_id, ancestor_id, depth from organization_closure
                   except select descendant_id, ancestor_id, depth from up)) as different",
        ),
        (
            "organizations without the platform above them",
            "select count(*) from organizations where id not in (select descendant_id from organization_closure
              where ancestor_id = '00000000-0000-7000-8000-000000000000')",
        ),
        (
            "organizations held by another than the topmost",
            "select count(*) from organizations o where o.held_by is distinct from (
                 select a.id from organization_closure c join organizations a on a.id = c.ancestor_id
                  where c.descendant_id = o.id and (a.suspended_at is not null or a.deleted_at is not null)
                  order by c.depth desc limit 1)",
        ),
    ] {
        assert_eq!(platform.count(statement).await, 0, "{what}");
    }
}

/// What is said to be below each organization is what is there.
async fn counts_are_exact(platform: &Platform) {
    let mut tx = platform.operator().begin().await;
    let nodes = tree::page(&mut tx, 1_000, None, 10_000).await.unwrap();
    for node in nodes {
        let id = node.organization.id.uuid();
        let below = |rows: &str| {
            format!(
                "select count(*) from {rows} join organizations o on o.id = organization_id and o.deleted_at is null
                   join organization_closure c on c.descendant_id = o.id where c.ancestor_id = '{id}'"
            )
        };
        for count in node.counts {
            let statement = match count.kind {
                "organizations" => {
                    format!("{} and c.depth > 0", below("(select id as organization_id from organizations) it"))
                }
                "members" => below("memberships"),
                "api_keys" => below("(select * from api_keys where revoked_at is null) it"),
                "schedules" => below("(select * from schedules where not paused) it"),
                "cloud_accounts" => below("cloud_credentials"),
                "servers" => below("(select organization_id from servers where destroyed_at is null) it"),
                table => below(table),
            };
            assert_eq!(count.total, platform.count(&statement).await, "{} of {}", count.kind, node.organization.name);
        }
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn the_database_lets_stand_below_each_type_what_the_rule_says(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let mut parents = BTreeMap::from([(OrganizationType::Platform, OrganizationId::PLATFORM)]);
    for r#type in OrganizationType::ALL.into_iter().skip(1) {
        parents.insert(r#type, made(&platform, OrganizationId::PLATFORM, r#type, r#type.as_str()).await);
    }
    for (parent, id) in &parents {
        for r#type in OrganizationType::ALL {
            let mut tx = platform.operator().begin().await;
            let new = NewOrganization { r#type: Some(r#type), ..NewOrganization::below(*id, "child") };
            let done = organizations::create(&mut tx, &new).await;
            if r#type.may_be_below(*parent) {
                assert_eq!(done.unwrap().r#type, r#type);
            } else {
                assert_eq!(refused_by(done), "organizations_place_check", "{type} below {parent}");
            }
        }
    }
    // A type changes only where it fits below and above.
    let master = parents[&OrganizationType::MasterBranch];
    let child = made(&platform, master, OrganizationType::MasterBranch, "child").await;
    let becomes = async |id: OrganizationId, r#type: OrganizationType| {
        let mut tx = platform.operator().begin().await;
        let change = Change { r#type: Some(r#type), ..Change::default() };
        let done = organizations::update(&mut tx, id, &change).await;
        if done.is_ok() {
            tx.commit().await.unwrap();
        }
        done
    };
    assert_eq!(refused_by(becomes(master, OrganizationType::SubUser).await), "organizations_place_check");
    assert!(becomes(child, OrganizationType::SubUser).await.unwrap());
    assert!(becomes(master, OrganizationType::SubUser).await.unwrap());
    assert_eq!(refused_by(becomes(master, OrganizationType::EndUser).await), "organizations_place_check");
    assert_eq!(refused_by(becomes(child, OrganizationType::TopBranch).await), "organizations_place_check");
    is_consistent(&platform).await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_part_of_the_tree_moves_with_all_below_it_and_what_it_has(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, globex) = (platform.organization("acme").await, platform.organization("globex").await);
    let branch = platform.organization_below(acme.id, "branch").await;
    let leaf = platform.organization_below(branch.id, "leaf").await;
    leaf.takes_in(platform.person("ada@example.com").await, Role::Owner).await;
    leaf.endpoint("https://receiver.example/").await;
    // Some is added up before the move, some after it.
    tree::add_up(platform.ledger(), 1_000).await.unwrap();
    branch.endpoint("https://receiver.example/").await;

    assert!(put_below(&platform, branch.id, globex.id).await.unwrap());
    is_consistent(&platform).await;
    counts_are_exact(&platform).await;
    tree::add_up(platform.ledger(), 1_000).await.unwrap();
    counts_are_exact(&platform).await;

    let mut tx = globex.begin().await;
    let below: Vec<_> =
        tree::page(&mut tx, 9, None, 9).await.unwrap().into_iter().map(|it| it.organization.id).collect();
    assert_eq!(below, [globex.id, branch.id, leaf.id]);
    let mut tx = acme.begin().await;
    assert!(organizations::find(&mut tx, leaf.id).await.unwrap().is_none());
    assert_eq!(refused_by(put_below(&platform, branch.id, leaf.id).await), "organizations_place_check");
    assert_eq!(refused_by(put_below(&platform, branch.id, branch.id).await), "organizations_no_cycle");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn nobody_moves_what_is_not_below_him_to_where_is_not_below_him_and_never_himself(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, globex) = (platform.organization("acme").await, platform.organization("globex").await);
    let branch = platform.organization_below(acme.id, "branch").await;
    let refused = async |by: &Actor, id: OrganizationId, parent: OrganizationId| {
        let mut tx = by.begin().await;
        match tree::put_below(&mut tx, id, parent).await {
            Ok(moved) => assert!(!moved),
            Err(error) => {
                let error = error.to_string();
                let well = error.contains("row-level security") || error.contains("both places");
                assert!(well, "{error}");
            }
        }
    };
    refused(&acme, branch.id, globex.id).await;
    refused(&acme, branch.id, OrganizationId::PLATFORM).await;
    refused(&acme, acme.id, globex.id).await;
    refused(&branch, branch.id, branch.id).await;
    refused(&globex, branch.id, globex.id).await;
    refused(&globex, acme.id, globex.id).await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn moves_and_new_organizations_at_the_same_time_never_make_a_circle(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let top = made(&platform, OrganizationId::PLATFORM, OrganizationType::TopBranch, "top").await;
    let mut all = vec![top];
    for number in 0..12 {
        all.push(made(&platform, top, OrganizationType::MasterBranch, &format!("master {number}")).await);
    }
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    let (mut moved, mut circles) = (0, 0);
    for round in 0..12 {
        let wishes: Vec<(OrganizationId, OrganizationId)> =
            (0..16).map(|_| (*all[1..].choose(&mut random).unwrap(), *all.choose(&mut random).unwrap())).collect();
        let moves = wishes.iter().map(async |(id, parent)| put_below(&platform, *id, *parent).await);
        let additions = (0..3).map(async |number| {
            let (parent, name) = (wishes[number].0, format!("added {round} {number}"));
            made(&platform, parent, OrganizationType::MasterBranch, &name).await
        });
        let (results, added) =
            futures::future::join(futures::future::join_all(moves), futures::future::join_all(additions)).await;
        for result in results {
            match result {
                Ok(_) => moved += 1,
                error => {
                    assert_eq!(refused_by(error), "organizations_no_cycle");
                    circles += 1;
                }
            }
        }
        all.extend(added);
        if random.random_bool(0.5) {
            tree::add_up(platform.ledger(), 7).await.unwrap();
        }
        is_consistent(&platform).await;
    }
    assert!(moved > 50 && circles > 5, "{moved} moves, {circles} circles refused");
    counts_are_exact(&platform).await;
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_move_in_a_view_of_the_past_is_refused(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, globex) = (platform.organization("acme").await, platform.organization("globex").await);
    let branch = platform.organization_below(acme.id, "branch").await;
    for isolation in ["repeatable read", "serializable"] {
        let mut tx = platform.owner.begin().await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("set transaction isolation level {isolation}")))
            .execute(&mut *tx)
            .await
            .unwrap();
        let moved = sqlx::query("update organizations set parent_id = $1 where id = $2")
            .bind(globex.id.uuid())
            .bind(branch.id.uuid())
            .execute(&mut *tx)
            .await;
        assert!(moved.unwrap_err().to_string().contains("read committed only"));
    }
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn what_is_below_a_suspended_organization_waits_and_goes_on(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let branch = platform.organization_below(acme.id, "branch").await;
    let globex = platform.organization("globex").await;
    let set = async |suspended: bool, id: OrganizationId| {
        let mut tx = platform.operator().begin().await;
        let changed = if suspended {
            lifecycle::suspend(&mut tx, id, "unpaid").await.unwrap()
        } else {
            lifecycle::resume(&mut tx, id).await.unwrap()
        };
        tx.commit().await.unwrap();
        changed
    };
    let schedule = gantry_jobs::schedule::NewSchedule {
        name: "every minute".to_owned(),
        kind: "diagnostics.probe".to_owned(),
        payload: json!({}),
        cron: "* * * * *".to_owned(),
        time_zone: "UTC".to_owned(),
        missed_runs: gantry_schema::schedules::cron::MissedRuns::Once,
        overlap: gantry_schema::schedules::cron::Overlap::Allow,
        jitter_seconds: 0,
    };
    branch.schedule(schedule).await;
    let (plain, careful) = (branch.enqueue(Scripted::fine("a")).await, branch.enqueue(OneAtATime::under("k")).await);
    let other = globex.enqueue(Scripted::fine("b")).await;

    assert!(set(true, acme.id).await && !set(true, acme.id).await);
    is_consistent(&platform).await;
    // A branch that is suspended as well waits for both.
    assert!(set(true, branch.id).await);
    platform.clock.advance(Duration::minutes(3));
    platform.tick().await;
    assert!(platform.claim(platform.ids().mint(), &[plain, careful]).await.is_empty());
    assert_eq!((branch.state(plain).await, branch.state(careful).await), (State::Available, State::Available));
    assert_eq!(globex.state(other).await, State::Succeeded);
    assert_eq!(branch.jobs(&Filter::default(), None, 9).await.len(), 2, "no tick asked for a job");
    // Whatever is made below meanwhile waits too.
    let late = platform.organization_below(branch.id, "late").await;
    let of_late = late.enqueue(Scripted::fine("c")).await;
    platform.run_jobs().await;
    assert_eq!(late.state(of_late).await, State::Available);

    assert!(set(false, acme.id).await && !set(false, acme.id).await);
    is_consistent(&platform).await;
    platform.run_jobs().await;
    assert_eq!(branch.state(plain).await, State::Available);
    assert!(set(false, branch.id).await);
    is_consistent(&platform).await;
    platform.tick().await;
    for (actor, job) in [(&branch, plain), (&branch, careful), (&late, of_late)] {
        assert_eq!(actor.state(job).await, State::Succeeded);
    }
    assert_eq!(branch.jobs(&Filter::default(), None, 9).await.len(), 3, "one for all that was missed");
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn an_organization_is_deleted_when_nothing_needs_it_and_can_be_restored_for_thirty_days(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let branch = platform.organization_below(acme.id, "branch").await;
    let leaf = platform.organization_below(branch.id, "leaf").await;
    leaf.takes_in(platform.person("ada@example.com").await, Role::Owner).await;
    async fn delete(platform: &Platform, id: OrganizationId) -> Result<bool, sqlx::Error> {
        let mut tx = platform.operator().begin().await;
        let done = lifecycle::delete(&mut tx, id).await?;
        tx.commit().await?;
        Ok(done)
    }
    async fn restore(platform: &Platform, id: OrganizationId) -> Result<bool, sqlx::Error> {
        let mut tx = platform.operator().begin().await;
        let done = lifecycle::restore(&mut tx, id).await?;
        tx.commit().await?;
        Ok(done)
    }
    assert_eq!(refused_by(delete(&platform, branch.id).await), "organizations_has_children");
    assert_eq!(refused_by(delete(&platform, OrganizationId::PLATFORM).await), "organizations_has_children");
    assert!(delete(&platform, leaf.id).await.unwrap() && !delete(&platform, leaf.id).await.unwrap());
    counts_are_exact(&platform).await;
    tree::add_up(platform.ledger(), 1_000).await.unwrap();
    counts_are_exact(&platform).await;
    assert!(delete(&platform, branch.id).await.unwrap());
    is_consistent(&platform).await;

    assert_eq!(refused_by(restore(&platform, leaf.id).await), "organizations_parent_deleted");
    let mut tx = platform.operator().begin().await;
    let below = organizations::create(&mut tx, &NewOrganization::below(branch.id, "late")).await;
    assert_eq!(refused_by(below), "organizations_parent_deleted");
    drop(tx);
    assert!(restore(&platform, branch.id).await.unwrap() && restore(&platform, leaf.id).await.unwrap());
    assert!(!restore(&platform, leaf.id).await.unwrap());
    is_consistent(&platform).await;
    counts_are_exact(&platform).await;

    // Its name may have been given away, and after thirty days it is gone.
    assert!(delete(&platform, leaf.id).await.unwrap());
    let second = platform.organization_below(branch.id, "leaf").await;
    assert_eq!(refused_by(restore(&platform, leaf.id).await), "organizations_slug_key");
    assert!(delete(&platform, second.id).await.unwrap());
    platform.clock.advance(Duration::days(30));
    assert!(!restore(&platform, leaf.id).await.unwrap());
}

/// A new table of tenants is covered without a word here.
#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn a_purge_leaves_nothing_in_any_table_and_takes_nothing_of_anybody_else(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let (acme, globex) = (furnished(&platform, "acme").await, furnished(&platform, "globex").await);
    let mut tx = acme.begin().await;
    let children: Vec<_> = organizations::list(&mut tx, Window::new(Order::Ascending, 9)).await.unwrap();
    drop(tx);
    let mut tx = platform.operator().begin().await;
    for organization in children.iter().rev() {
        assert!(lifecycle::delete(&mut tx, organization.id).await.unwrap());
    }
    tx.commit().await.unwrap();
    let mut of_tenants = strings(
        &platform.owner,
        "select c.relname::text from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'organization_id'
          where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition order by 1",
    )
    .await;
    of_tenants.retain(|table| !OF_PLATFORM.contains(&table.as_str()));
    assert!(of_tenants.len() > 20 && tables(&platform.owner).await.len() > of_tenants.len());
    let rows = async |of: &Actor| {
        let mut rows = BTreeMap::new();
        for table in &of_tenants {
            let statement = format!("select count(*) from {table} where organization_id = '{}'", of.id.uuid());
            rows.insert(table.clone(), platform.count(&statement).await);
        }
        rows
    };
    let (before, others) = (rows(&acme).await, rows(&globex).await);
    let empty: Vec<_> = before.iter().filter(|(_, count)| **count == 0).collect();
    assert!(empty.is_empty(), "nothing would be proven of {empty:?}");

    platform.clock.advance(Duration::days(29));
    platform.operator().enqueue(PurgeOrganizations::default()).await;
    purge(&platform).await;
    assert!(rows(&acme).await["api_keys"] > 0, "it can still be restored");

    platform.clock.advance(Duration::days(1));
    platform.operator().enqueue(PurgeOrganizations::default()).await;
    purge(&platform).await;
    let left: BTreeSet<String> =
        rows(&acme).await.into_iter().filter(|(_, count)| *count > 0).map(|(table, _)| table).collect();
    let outliving: BTreeSet<String> = lifecycle::OUTLIVING.iter().map(ToString::to_string).collect();
    assert_eq!(left, outliving);
    assert_eq!(platform.count("select count(*) from organizations where deleted_at is not null").await, 0);
    let gone = |rows: BTreeMap<String, i64>| {
        rows.into_iter().filter(|(table, _)| *table != "organization_changes").collect::<Vec<_>>()
    };
    assert_eq!(gone(rows(&globex).await), gone(others));
    is_consistent(&platform).await;
    counts_are_exact(&platform).await;
    platform.leaves_jobs();
}

/// Does only what purges: other jobs of these stories would go on with what they find.
async fn purge(platform: &Platform) {
    let others = "update job_dispatch set due_at = 'infinity' where kind <> 'maintenance.purge_organizations'";
    sqlx::query(others).execute(&platform.owner).await.unwrap();
    platform.run_jobs().await;
    let failures =
        "select failures::text from jobs where kind = 'maintenance.purge_organizations' and state <> 'succeeded'";
    assert_eq!(strings(&platform.owner, failures).await, Vec::<String>::new());
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn every_kind_that_is_counted_has_its_triggers(pool: PgPool) {
    let counted: BTreeSet<String> = strings(
        &pool,
        "select distinct convert_from(substring(t.tgargs from 1 for position('\\000'::bytea in t.tgargs) - 1), 'UTF8')
           from pg_trigger t join pg_proc p on p.oid = t.tgfoid where p.proname = 'organizations_count'",
    )
    .await
    .into_iter()
    .chain(["organizations".to_owned()])
    .collect();
    assert_eq!(counted, COUNTED.iter().map(|counted| counted.kind.to_owned()).collect());
}

#[sqlx::test(migrator = "gantry_schema::MIGRATOR")]
async fn settings_come_from_the_nearest_above_unless_one_is_enforced(pool: PgPool) {
    let platform = Platform::new(pool).await;
    let acme = platform.organization("acme").await;
    let branch = platform.organization_below(acme.id, "branch").await;
    let leaf = platform.organization_below(branch.id, "leaf").await;
    async fn set(tx: &mut TenantTx, value: &str, enforced: bool) {
        settings::set(tx, Setting::BrandName, &json!(value), enforced).await.unwrap();
    }
    let held = async |actor: &Actor| {
        let mut tx = actor.begin().await;
        let resolved = settings::get(&mut tx, Setting::BrandName).await.unwrap();
        let all = settings::all(&mut tx).await.unwrap();
        assert_eq!(all.iter().find(|it| it.setting == Setting::BrandName), Some(&resolved));
        (resolved.value.as_str().unwrap().to_owned(), resolved.origin)
    };
    assert_eq!(held(&leaf).await, ("Gantry".to_owned(), Origin::Default));
    let mut tx = acme.begin().await;
    set(&mut tx, "Acme", false).await;
    tx.commit().await.unwrap();
    assert_eq!(held(&leaf).await, ("Acme".to_owned(), Origin::Inherited(acme.id)));
    let mut tx = leaf.begin().await;
    set(&mut tx, "Leaf", true).await;
    tx.commit().await.unwrap();
    assert_eq!(held(&leaf).await, ("Leaf".to_owned(), Origin::Own));
    assert_eq!(held(&branch).await, ("Acme".to_owned(), Origin::Inherited(acme.id)));
    let mut tx = acme.begin().await;
    set(&mut tx, "Acme", true).await;
    tx.commit().await.unwrap();
    assert_eq!(held(&leaf).await, ("Acme".to_owned(), Origin::Enforced(acme.id)));
    let mut tx = acme.begin().await;
    assert!(settings::unset(&mut tx, Setting::BrandName).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(held(&leaf).await, ("Leaf".to_owned(), Origin::Own));
    // Those below and beside say nothing.
    assert_eq!(held(&branch).await, ("Gantry".to_owned(), Origin::Default));

    let globex = platform.organization("globex").await;
    let mut tx = globex.begin().await;
    set(&mut tx, "Globex", true).await;
    tx.commit().await.unwrap();
    assert!(put_below(&platform, leaf.id, globex.id).await.unwrap());
    assert_eq!(held(&leaf).await, ("Globex".to_owned(), Origin::Enforced(globex.id)));
}
