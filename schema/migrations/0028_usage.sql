-- What was called: each process of the API counts in memory and adds what it counted here, every few seconds.
create table api_usage (
    organization_id uuid not null references organizations (id),
    -- How long the stretch of time is that a row is about; the longer ones are kept longer.
    step            text not null check (step in ('5m', 'hour', 'day', 'month')),
    starts_at       timestamptz not null,
    -- By what the caller was known.
    credential_kind text not null check (credential_kind in ('api_key', 'person', 'application', 'others')),
    credential_id   uuid not null,
    operation       text not null check (length(operation) between 1 and 100),
    calls           bigint not null,
    -- Answered with 4xx, but for those that came too often; with 429; with 5xx.
    refused         bigint not null,
    limited         bigint not null,
    failed          bigint not null,
    -- Of bodies, of requests and answers.
    bytes           bigint not null,
    -- Until they were answered, in all.
    microseconds    bigint not null,
    -- How many were answered within which time: see `schema/src/usage/latency.rs`.
    latency         bigint[] not null,
    primary key (organization_id, step, starts_at, credential_kind, credential_id, operation)
);
-- They are forgotten by their age.
create index api_usage_age on api_usage (step, starts_at);

-- What an organization used of a month, against what it may use.
create table api_usage_months (
    organization_id uuid not null references organizations (id),
    starts_at       timestamptz not null,
    -- Those that came too often are none.
    calls           bigint not null,
    bytes           bigint not null,
    -- The highest threshold, in percent of what it may use, that was told.
    calls_told      smallint not null default 0,
    bytes_told      smallint not null default 0,
    primary key (organization_id, starts_at)
);

do $$
declare
    tenant text;
begin
    foreach tenant in array array['api_usage', 'api_usage_months'] loop
        execute format('alter table %I enable row level security', tenant);
        execute format('alter table %I force row level security', tenant);
        execute format('create policy below_me on %1$I for select to gantry_app
                        using (exists (select from organization_closure c
                                        where c.ancestor_id = (select scope_organization())
                                          and c.descendant_id = %1$I.organization_id))', tenant);
        execute format('create policy goes on %I for delete to gantry_app
                        using (organization_id = (select scope_organization()))', tenant);
        execute format('create policy adds on %I to gantry_tree using (true) with check (true)', tenant);
        execute format('grant select, delete on %I to gantry_app', tenant);
        execute format('grant select, insert, update on %I to gantry_tree', tenant);
    end loop;
end
$$;
create policy tells on api_usage_months for update to gantry_app
    using (organization_id = (select scope_organization()))
    with check (organization_id = (select scope_organization()));
grant update (calls_told, bytes_told) on api_usage_months to gantry_app;
-- Housekeeping forgets rows by their age, and reads nothing of them.
create policy forgets on api_usage to gantry_engine using (true);
grant select (step, starts_at), delete on api_usage to gantry_engine;

-- Histograms, added up; the shorter one goes on with zeros.
create function latency_add(one bigint[], other bigint[]) returns bigint[]
    language sql immutable parallel safe set search_path = pg_catalog, pg_temp
    as $$
        select array(select coalesce(a, 0) + coalesce(b, 0)
                       from unnest(one, other) with ordinality as pair (a, b, at) order by at)
    $$;
create aggregate latency_sum(bigint[]) (sfunc = latency_add, stype = bigint[], initcond = '{}', parallel = safe);

-- Adds what a process counted, of all organizations at once: that is the one thing it does for them all, and it reads
-- nothing of them but what they have used of the month, which the process enforces. Rows of the same place in the same
-- order, so that processes wait for each other and for nothing else. The function belongs to the role that nobody logs
-- in as.
create function api_usage_add(counted jsonb, months jsonb) returns setof api_usage_months
    language sql security definer set search_path = public, pg_temp
    as $$
        with added as (
            insert into api_usage as u
            select c.*
              from jsonb_to_recordset(counted) as c (
                       organization_id uuid, step text, starts_at timestamptz, credential_kind text, credential_id uuid,
                       operation text, calls bigint, refused bigint, limited bigint, failed bigint, bytes bigint,
                       microseconds bigint, latency bigint[])
              -- One may be gone since.
             where exists (select from organizations o where o.id = c.organization_id)
             order by c.organization_id, c.step, c.starts_at, c.credential_kind, c.credential_id, c.operation
                on conflict (organization_id, step, starts_at, credential_kind, credential_id, operation) do update
               set calls = u.calls + excluded.calls, refused = u.refused + excluded.refused,
                   limited = u.limited + excluded.limited, failed = u.failed + excluded.failed,
                   bytes = u.bytes + excluded.bytes, microseconds = u.microseconds + excluded.microseconds,
                   latency = latency_add(u.latency, excluded.latency))
        insert into api_usage_months as m (organization_id, starts_at, calls, bytes)
        select c.* from jsonb_to_recordset(months) as c (organization_id uuid, starts_at timestamptz, calls bigint, bytes bigint)
         where exists (select from organizations o where o.id = c.organization_id)
         order by c.organization_id, c.starts_at
            on conflict (organization_id, starts_at) do update
           set calls = m.calls + excluded.calls, bytes = m.bytes + excluded.bytes
        returning m.*
    $$;
-- Only to hand the function over; the role keeps no right to create.
grant create on schema public to gantry_tree;
alter function api_usage_add(jsonb, jsonb) owner to gantry_tree;
revoke create on schema public from gantry_tree;
revoke execute on function api_usage_add(jsonb, jsonb) from public;
grant execute on function api_usage_add(jsonb, jsonb) to gantry_app;
