-- What clouds have that carries our labels and belongs to no server any more. Several installations may work on one account,
-- so what is made says which of them made it.

create table installation (
    is_only boolean primary key default true check (is_only),
    id      uuid not null default gen_random_uuid()
);
insert into installation default values;
grant select on installation to gantry_app;

create table cloud_orphans (
    organization_id uuid not null references organizations (id),
    credential_id   uuid not null,
    -- As the cloud calls it and knows it.
    kind            text not null check (length(kind) <= 200),
    thing_id        text not null check (length(thing_id) <= 1000),
    name            text not null check (length(name) <= 500),
    region          text not null check (length(region) <= 100),
    -- The server it was made for, by its label.
    server          text not null check (length(server) <= 100),
    -- When it was first seen.
    found_at        timestamptz not null,
    primary key (organization_id, credential_id, region, kind, thing_id),
    constraint cloud_orphans_credential_fkey foreign key (credential_id) references cloud_credentials (id)
        on delete cascade
);
create index cloud_orphans_credential_id on cloud_orphans (credential_id);
alter table cloud_orphans enable row level security;
alter table cloud_orphans force row level security;
create policy bootstrap on cloud_orphans to current_user using (true) with check (true);
create policy own on cloud_orphans to gantry_app
    using (organization_id = (select scope_organization())) with check (organization_id = (select scope_organization()));
grant select, insert, update, delete on cloud_orphans to gantry_app;

alter table cloud_credentials
    -- When its account was last compared with the record; null: it was not.
    add column orphans_at timestamptz;
