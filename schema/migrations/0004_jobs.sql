-- The ledger: one row per job, written in the transaction of the change that asks for it.
--
-- `jobs` holds everything about a job and grows for ever; it is partitioned by id, and ids begin with
-- their time. Claiming and settling a job must stay cheap beside ten million finished ones, so nothing
-- that changes while a job lives is in an index of `jobs` (both updates are heap-only, hence the
-- fillfactor), and what is live is found through small tables beside it:
--   job_dispatch      may be claimed, now or later; its row is what a claim takes
--   job_leases        is running, one row per claimed batch
--   job_unsuccessful  ended badly: the dead letters
-- A check constraint would be parsed anew by every statement on the table, so the words of a state are a type.
create type job_state as enum ('waiting', 'scheduled', 'available', 'running', 'succeeded', 'discarded', 'cancelled');

create table jobs (
    id                   uuid not null,
    -- No foreign key here: the row-level policy has checked the organization, and a share lock on one
    -- organization's row by each of its jobs would make that row hot.
    organization_id      uuid not null,
    kind                 text not null,
    queue                text not null,
    priority             smallint not null,
    state                job_state not null,
    -- The number of the attempt that runs or ran last. It never goes back: it fences late writers.
    attempt              integer not null default 0,
    max_attempts         integer not null,
    -- Attempts that do not count: snoozed, or handed back unstarted.
    uncounted            integer not null default 0,
    -- How often the job's worker fell silent under it.
    rescues              integer not null default 0,
    lease_seconds        integer not null,
    run_at               timestamptz not null,
    expires_at           timestamptz,
    unique_key           text,
    concurrency_key      text,
    concurrency_limit    smallint,
    rate_key             text,
    -- Something must follow when the job ends: jobs wait for it, or keys are held.
    has_dependents       boolean not null default false,
    payload              jsonb not null,
    traceparent          text,
    requested_by         text not null,
    created_at           timestamptz not null,
    worker_id            uuid,
    started_at           timestamptz,
    finished_at          timestamptz,
    cancel_requested_at  timestamptz,
    progress             jsonb,
    result               jsonb,
    -- Every attempt that did not succeed: {attempt, worker, started_at, ended_at, outcome, error}.
    failures             jsonb not null default '[]',
    primary key (id)
) partition by range (id);
create index jobs_organization_id on jobs (organization_id, id);

create table job_logs (
    job_id          uuid not null,
    organization_id uuid not null,
    attempt         integer not null,
    line            integer not null,
    at              timestamptz not null,
    message         text not null,
    primary key (job_id, attempt, line)
) partition by range (job_id);

create table job_dispatch (
    id                uuid primary key,
    organization_id   uuid not null,
    kind              text not null,
    queue             text not null,
    priority          smallint not null,
    -- Null: claimable since it was written.
    due_at            timestamptz,
    -- Has a unique, concurrency or rate key: claimed by the careful statement.
    careful           boolean not null default false,
    concurrency_key   text,
    -- Waits for its concurrency key, out of the way until a holder frees it.
    parked            boolean not null default false
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0);
create index job_dispatch_due on job_dispatch (due_at) where due_at is not null;
create index job_dispatch_parked on job_dispatch (organization_id, concurrency_key, priority, id) where parked;

create table job_leases (
    claim_id   uuid not null,
    -- The lease of the kinds in it; a claim of several kinds may have several.
    seconds    integer not null,
    worker_id  uuid not null,
    expires_at timestamptz not null,
    job_ids    uuid[] not null,
    attempts   integer[] not null,
    primary key (claim_id, seconds)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);

create table job_unsuccessful (
    id              uuid primary key,
    organization_id uuid not null,
    kind            text not null,
    queue           text not null,
    state           job_state not null check (state in ('discarded', 'cancelled')),
    finished_at     timestamptz not null
);
create index job_unsuccessful_organization_id on job_unsuccessful (organization_id, id);
create index job_unsuccessful_finished_at on job_unsuccessful (finished_at);

-- Who holds a unique key, and until when: while pending (gone at the claim), while it lives (gone at
-- the end), or until a time.
create table job_unique (
    organization_id uuid not null,
    kind            text not null,
    unique_key      text not null,
    job_id          uuid not null,
    held            text not null check (held in ('pending', 'alive', 'period')),
    until           timestamptz,
    primary key (organization_id, kind, unique_key)
);
create index job_unique_job_id on job_unique (job_id);

-- Who runs under a concurrency key.
create table job_slots (
    organization_id uuid not null,
    concurrency_key text not null,
    slot            smallint not null,
    job_id          uuid not null,
    primary key (organization_id, concurrency_key, slot)
);
create index job_slots_job_id on job_slots (job_id);

create table job_dependencies (
    job_id          uuid not null,
    depends_on      uuid not null,
    organization_id uuid not null,
    -- The name under which the job reads the result.
    step            text not null,
    -- The job waits no longer.
    resolved        boolean not null default false,
    primary key (job_id, depends_on)
);
create index job_dependencies_depends_on on job_dependencies (depends_on);
create index job_dependencies_unresolved on job_dependencies (job_id) where not resolved;

-- The steps of a workflow, and what undoes each when a later one fails for good.
create table job_steps (
    job_id          uuid primary key,
    workflow_id     uuid not null,
    organization_id uuid not null,
    step            text not null,
    -- The job that undoes the step: {kind, queue, priority, max_attempts, lease_seconds, payload}.
    compensation    jsonb,
    -- The job that does it, once it was asked for.
    compensated_by  uuid
);
create index job_steps_workflow_id on job_steps (workflow_id);

create table job_workers (
    id           uuid primary key,
    host         text not null,
    pid          integer not null,
    version      text not null,
    queues       jsonb not null,
    state        text not null check (state in ('running', 'draining')),
    started_at   timestamptz not null,
    heartbeat_at timestamptz not null
);

create table job_leaders (
    duty       text primary key,
    worker_id  uuid not null,
    expires_at timestamptz not null
);

-- Paused queues and kinds belong to the platform; an organization may be paused by itself or above.
create table job_pauses (
    subject         text not null check (subject in ('queue', 'kind', 'organization')),
    name            text not null,
    organization_id uuid not null,
    paused_at       timestamptz not null,
    paused_by       text not null,
    primary key (subject, name)
);

create table job_limits (
    subject         text not null check (subject in ('queue', 'rate')),
    name            text not null,
    organization_id uuid not null,
    -- Jobs at a time for a queue; jobs per period for a rate.
    amount          integer not null check (amount > 0),
    period_seconds  integer check (period_seconds > 0),
    burst           integer check (burst > 0),
    primary key (subject, name),
    check ((subject = 'rate') = (period_seconds is not null))
);

create table schedules (
    id              uuid primary key,
    organization_id uuid not null,
    name            text not null check (length(name) between 1 and 200),
    kind            text not null,
    payload         jsonb not null,
    cron            text not null,
    time_zone       text not null,
    missed_runs     text not null check (missed_runs in ('skip', 'once', 'all')),
    overlap         text not null check (overlap in ('allow', 'skip', 'queue')),
    jitter_seconds  integer not null default 0 check (jitter_seconds between 0 and 86400),
    paused          boolean not null default false,
    -- Ticks up to here were dealt with.
    last_tick_at    timestamptz not null,
    next_tick_at    timestamptz,
    created_at      timestamptz not null,
    constraint schedules_name_key unique (organization_id, name)
);
create index schedules_next_tick_at on schedules (next_tick_at) where not paused;

-- What makes a tick happen once, whoever ticks: the primary key.
create table schedule_ticks (
    schedule_id     uuid not null references schedules (id) on delete cascade,
    tick_at         timestamptz not null,
    organization_id uuid not null,
    -- Null: not run, by the overlap policy.
    job_id          uuid,
    primary key (schedule_id, tick_at)
);

do $$
declare
    tenant text;
begin
    foreach tenant in array array['jobs', 'job_logs', 'job_dispatch', 'job_unsuccessful', 'job_unique', 'job_slots',
                                  'job_dependencies', 'job_steps', 'job_pauses', 'job_limits',
                                  'schedules', 'schedule_ticks'] loop
        execute format('alter table %I enable row level security', tenant);
        execute format('alter table %I force row level security', tenant);
        -- The sub-select is evaluated once per statement, not once per row.
        execute format('create policy own on %I to gantry_app using (organization_id = (select scope_organization()))
                        with check (organization_id = (select scope_organization()))', tenant);
        execute format('create policy engine on %I to gantry_engine using (true) with check (true)', tenant);
        execute format('grant select, insert, update, delete on %I to gantry_app, gantry_engine', tenant);
    end loop;
end
$$;
revoke delete on jobs, job_logs from gantry_app;
-- These name no tenant; only the engine touches them.
grant select, insert, update, delete on job_leases, job_workers, job_leaders to gantry_engine;

-- The smallest version-7 id of a moment.
create function id_at(moment timestamptz) returns uuid
    language sql immutable parallel safe
    as $$ select (lpad(to_hex((extract(epoch from moment) * 1000)::bigint), 12, '0') || '70008000000000000000')::uuid $$;

-- The moment of a version-7 id.
create function id_moment(id uuid) returns timestamptz
    language sql immutable parallel safe
    as $$ select 'epoch'::timestamptz
              + make_interval(secs => ('x' || left(replace(id::text, '-', ''), 12))::bit(48)::bigint / 1000.0) $$;

-- One partition per day and table. A day's rows are dropped, not deleted, when their time is over. Rows of a day
-- that nobody had prepared lie in the default partition; they move, for beside them the day could not be made.
create function job_partition_add(day date) returns void
    language plpgsql security definer set search_path = public, pg_temp
    as $$
declare
    parent text;
    child  text;
    key    text;
    first  uuid := id_at(day::timestamp at time zone 'UTC');
    next   uuid := id_at((day + 1)::timestamp at time zone 'UTC');
begin
    foreach parent in array array['jobs', 'job_logs'] loop
        child := parent || '_' || to_char(day, 'YYYYMMDD');
        if to_regclass(child) is null then
            key := case parent when 'jobs' then 'id' else 'job_id' end;
            -- A queue must not wait behind this; it comes again.
            set local lock_timeout = '2s';
            execute format('create table %I (like %I including all) with (fillfactor = 60)', child, parent);
            execute format('lock table %I in access exclusive mode', parent || '_other');
            execute format('with moved as (delete from %I where %I >= $1 and %I < $2 returning *)
                            insert into %I select * from moved', parent || '_other', key, key, child) using first, next;
            execute format('alter table %I attach partition %I for values from (%L) to (%L)',
                           parent, child, first, next);
        end if;
    end loop;
end
$$;
revoke execute on function job_partition_add(date) from public;
grant execute on function job_partition_add(date) to gantry_engine;

-- Rewrites a day with the rows that must stay, usually few, and drops the old partition with all others.
-- A day that would be empty is dropped. Answers how many rows stay.
create function job_partition_compact(day date, succeeded_before timestamptz, cancelled_before timestamptz,
                                      discarded_before timestamptz) returns bigint
    language plpgsql security definer set search_path = public, pg_temp
    as $$
declare
    jobs_day text := 'jobs_' || to_char(day, 'YYYYMMDD');
    logs_day text := 'job_logs_' || to_char(day, 'YYYYMMDD');
    kept     bigint;
    doomed   bigint;
begin
    if to_regclass(jobs_day) is null then
        return 0;
    end if;
    -- A queue must not wait behind this; it comes again.
    set local lock_timeout = '2s';
    execute format('lock table %I in access exclusive mode', jobs_day);
    execute format('create temporary table doomed on commit drop as select id from %I
                     where (state = ''succeeded'' and finished_at < $1) or (state = ''cancelled'' and finished_at < $2)
                        or (state = ''discarded'' and finished_at < $3)', jobs_day)
        using succeeded_before, cancelled_before, discarded_before;
    execute 'select count(*) from doomed' into doomed;
    execute format('select count(*) - %s from %I', doomed, jobs_day) into kept;
    if doomed = 0 and kept > 0 then
        drop table doomed;
        return kept;
    end if;
    if kept = 0 then
        execute format('drop table %I', jobs_day);
        execute format('drop table if exists %I', logs_day);
    else
        execute 'create unique index on doomed (id)';
        execute format('create temporary table kept on commit drop as
                        select * from %I j where not exists (select from doomed d where d.id = j.id)', jobs_day);
        execute format('create temporary table kept_logs on commit drop as
                        select * from %I l where not exists (select from doomed d where d.id = l.job_id)', logs_day);
        execute format('truncate %I', jobs_day);
        execute format('truncate %I', logs_day);
        execute format('insert into %I select * from kept', jobs_day);
        execute format('insert into %I select * from kept_logs', logs_day);
        drop table kept, kept_logs;
    end if;
    drop table doomed;
    return kept;
end
$$;
revoke execute on function job_partition_compact(date, timestamptz, timestamptz, timestamptz) from public;
grant execute on function job_partition_compact(date, timestamptz, timestamptz, timestamptz) to gantry_engine;

-- Jobs of a day nobody prepared are kept all the same.
create table jobs_other partition of jobs default with (fillfactor = 60);
create table job_logs_other partition of job_logs default;
-- To see which days are to be made after all.
grant select on jobs_other to gantry_engine;
select job_partition_add((now() at time zone 'UTC')::date + ahead) from generate_series(0, 3) ahead;
