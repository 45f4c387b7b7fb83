-- squawk-ignore-file adding-foreign-key-constraint, constraint-missing-not-valid, require-concurrent-index-creation
-- because no release has these tables yet: there is nothing to block.
-- What clouds say of the accounts of organizations: whose they are, what they permit, and what there is to be had.

alter table cloud_credentials
    add column state      text not null default 'unchecked' check (state in ('unchecked', 'valid', 'refused')),
    -- By what the cloud knows the account.
    add column account    text check (length(account) <= 200),
    -- What is needed, each with whether it is permitted, as far as the cloud says so.
    add column permitted  jsonb,
    -- Why it is refused.
    add column problem    text,
    add column checked_at timestamptz,
    -- When it is checked again; null: it is not.
    add column check_at   timestamptz;
create index cloud_credentials_check_at on cloud_credentials (check_at) where check_at is not null;
create policy watches on cloud_credentials for select to gantry_engine using (check_at is not null);
grant select (id, organization_id, check_at) on cloud_credentials to gantry_engine;

-- What there is to be had, as it was last read. Where sizes are asked for region by region, a row for each region.
create table cloud_catalogues (
    organization_id uuid not null references organizations (id),
    credential_id   uuid not null,
    -- Empty: all of them.
    region          text not null check (length(region) <= 100),
    catalogue       jsonb not null,
    read_at         timestamptz not null,
    primary key (organization_id, credential_id, region),
    constraint cloud_catalogues_credential_fkey foreign key (credential_id) references cloud_credentials (id)
        on delete cascade
);
create index cloud_catalogues_credential_id on cloud_catalogues (credential_id);
alter table cloud_catalogues enable row level security;
alter table cloud_catalogues force row level security;
create policy bootstrap on cloud_catalogues to current_user using (true) with check (true);
create policy own on cloud_catalogues to gantry_app
    using (organization_id = (select scope_organization())) with check (organization_id = (select scope_organization()));
grant select, insert, update, delete on cloud_catalogues to gantry_app;

-- What is wanted of a server besides where, how large and with what it begins.
alter table servers add column options jsonb not null default '{}';
