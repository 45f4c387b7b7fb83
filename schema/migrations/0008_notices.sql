-- What people must know, and who does not keep up.
create table notices (
    id              uuid primary key,
    organization_id uuid not null references organizations (id),
    -- The type of the event that tells programs the same.
    kind            text not null,
    -- Whom it concerns: the id of an endpoint, as people see it.
    subject         text not null check (length(subject) between 1 and 200),
    -- As in the event; of the last one, where it happened again.
    facts           jsonb not null,
    created_at      timestamptz not null,
    dismissed_at    timestamptz,
    -- Null though dismissed: it is no longer so.
    dismissed_by    text
);
create index notices_organization_id on notices (organization_id, id);
-- Nobody is told twice of what he has not dismissed.
create unique index notices_open on notices (organization_id, kind, subject) where dismissed_at is null;

alter table notices enable row level security;
alter table notices force row level security;
create policy own on notices to gantry_app using (organization_id = (select scope_organization()))
    with check (organization_id = (select scope_organization()));
grant select, insert, update, delete on notices to gantry_app;
-- As events and attempts, they are forgotten for everybody at once, by id alone.
create policy forgets on notices to gantry_engine using (true);
grant select (id), delete on notices to gantry_engine;

-- It took longer than others could wait for: until then, what is for it goes to its backlog as soon as it is asked for.
alter table webhook_endpoints add column behind_until timestamptz;
