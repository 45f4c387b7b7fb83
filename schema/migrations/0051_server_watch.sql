-- squawk-ignore-file require-concurrent-index-creation
-- because no release has these tables yet: there is nothing to block.
-- Servers are looked at again and again, count for licenses, and what became of the jobs of their runs is noticed.

alter table servers
    -- When somebody was last in.
    add column reached_at        timestamptz,
    -- Since when nobody gets in; null: somebody did the last time.
    add column unreachable_since timestamptz,
    -- How often in a row nobody did.
    add column misses            integer not null default 0 check (misses >= 0),
    -- Whoever looks after it works on it: nobody is told that it cannot be reached.
    add column maintenance       boolean not null default false,
    -- When it is looked at again; null: it is not looked at.
    add column watch_at          timestamptz,
    -- When it is compared again with what is to be there.
    add column compare_at        timestamptz,
    -- What differed the last time; null: nothing did.
    add column drift             jsonb;
create index servers_watch_at on servers (watch_at) where watch_at is not null;
create index servers_compare_at on servers (compare_at) where compare_at is not null;
create index runs_unfinished on runs (id) where finished_at is null;

-- The job that looks after all of them learns ids and times, and nothing else.
create policy watches on servers for select to gantry_engine using (watch_at is not null or compare_at is not null);
create policy watches on runs for select to gantry_engine using (finished_at is null);
grant select (id, organization_id, watch_at, compare_at) on servers to gantry_engine;
grant select (id, organization_id, state, job_id, finished_at) on runs to gantry_engine;

select organizations_count_rows_of('servers', 'servers', 'destroyed_at'),
       organizations_count_rows_of('cloud_credentials', 'cloud_accounts', null);
