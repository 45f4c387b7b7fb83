-- Events, the endpoints that want them, and every attempt to deliver one. A delivery itself is a job.
create table webhook_endpoints (
    id              uuid primary key,
    organization_id uuid not null references organizations (id),
    url             text not null check (length(url) <= 2048),
    description     text not null default '' check (length(description) <= 1000),
    -- Exact types, or prefixes that end in `.*`; empty: every type.
    event_types     text[] not null,
    enabled         boolean not null default true,
    -- The signing secret, sealed for this row.
    secret          bytea not null,
    created_at      timestamptz not null
);
create index webhook_endpoints_organization_id on webhook_endpoints (organization_id, id);

create table events (
    id              uuid primary key,
    organization_id uuid not null,
    type            text not null,
    payload         jsonb not null,
    created_at      timestamptz not null
);
create index events_organization_id on events (organization_id, id);

create table webhook_attempts (
    job_id          uuid not null,
    attempt         integer not null,
    organization_id uuid not null,
    event_id        uuid not null,
    endpoint_id     uuid not null,
    attempted_at    timestamptz not null,
    latency_ms      integer not null,
    -- The receiver's answer, or
    status          smallint,
    answer          text,
    -- why there was none.
    error           text,
    primary key (job_id, attempt)
);
create index webhook_attempts_organization_id on webhook_attempts (organization_id, endpoint_id, attempted_at desc);

do $$
declare
    tenant text;
begin
    foreach tenant in array array['webhook_endpoints', 'events', 'webhook_attempts'] loop
        execute format('alter table %I enable row level security', tenant);
        execute format('alter table %I force row level security', tenant);
        execute format('create policy own on %I to gantry_app using (organization_id = (select scope_organization()))
                        with check (organization_id = (select scope_organization()))', tenant);
        execute format('grant select, insert, update, delete on %I to gantry_app', tenant);
    end loop;
end
$$;
