-- squawk-ignore-file adding-foreign-key-constraint, constraint-missing-not-valid
-- because no release has these tables yet: there is nothing to block.
-- Licenses that wait for somebody who has their code, and how much of licenses was used when.
create table license_claims (
    organization_id uuid not null references organizations (id),
    code_hash       bytea not null check (length(code_hash) = 32),
    key             text not null check (length(key) <= 65536),
    created_at      timestamptz not null,
    expires_at      timestamptz not null,
    claimed_at      timestamptz,
    primary key (organization_id, code_hash)
);

-- The most there was of something on a day, UTC, as it was looked at every hour.
create table license_usage (
    organization_id uuid not null references organizations (id),
    day             date not null,
    limit_name      text not null,
    used            bigint not null,
    -- How many there might be; null: any number.
    most            bigint,
    primary key (organization_id, day, limit_name)
);

do $$
declare
    tenant text;
begin
    foreach tenant in array array['license_claims', 'license_usage'] loop
        execute format('alter table %I enable row level security', tenant);
        execute format('alter table %I force row level security', tenant);
        execute format('create policy own on %I to gantry_app using (organization_id = (select scope_organization()))
                        with check (organization_id = (select scope_organization()))', tenant);
        execute format('grant select, insert, update, delete on %I to gantry_app', tenant);
    end loop;
end
$$;
