-- squawk-ignore-file adding-foreign-key-constraint, constraint-missing-not-valid, require-concurrent-index-creation
-- because no release has these tables yet: there is nothing to block.
-- Modules that organizations bring: what Terraform makes their servers of, in the place of the platform's own.

create table modules (
    id              uuid primary key,
    organization_id uuid not null references organizations (id),
    name            text not null check (length(name) between 1 and 200),
    cloud           text not null check (cloud in ('aws', 'gcp', 'azure', 'digitalocean', 'hetzner', 'sandbox')),
    description     text not null check (length(description) <= 1000),
    created_at      timestamptz not null
);
create unique index modules_name_key on modules (organization_id, lower(name));
create index modules_organization_id on modules (organization_id, id);

-- What a module once was: a server stays what it was made of.
create table module_versions (
    id              uuid primary key,
    organization_id uuid not null references organizations (id),
    module_id       uuid not null references modules (id) on delete cascade,
    number          integer not null check (number > 0),
    state           text not null check (state in ('checking', 'ready', 'refused')),
    -- Where it is from.
    source          jsonb not null,
    -- What was sent, until it has been read.
    archive         bytea check (length(archive) <= 1048576),
    -- Its files, packed, and the directory among them that is the module.
    content         bytea,
    directory       text,
    files           integer,
    size            integer,
    -- Of its files and their names.
    sha256          bytea check (length(sha256) = 32),
    resolved_commit text check (length(resolved_commit) <= 64),
    inputs          jsonb,
    outputs         jsonb,
    -- The plugins it uses: its name for each, and where that is.
    providers       jsonb,
    problem_code    text,
    problem         text,
    job_id          uuid,
    created_at      timestamptz not null,
    checked_at      timestamptz,
    constraint module_versions_number_key unique (module_id, number)
);
create index module_versions_organization_id on module_versions (organization_id, id);

alter table stacks
    -- What it is made of; null: the platform's own template.
    add column module_version_id uuid,
    -- What it was given.
    add column module_inputs     jsonb,
    -- What it was given and nobody may see, JSON, sealed for this row.
    add column module_secrets    bytea,
    add constraint stacks_module_version_fkey foreign key (module_version_id) references module_versions (id);
create index stacks_module_version_id on stacks (module_version_id) where module_version_id is not null;

do $$
declare
    tenant text;
begin
    foreach tenant in array array['modules', 'module_versions'] loop
        execute format('alter table %I enable row level security', tenant);
        execute format('alter table %I force row level security', tenant);
        execute format('create policy bootstrap on %I to %I using (true) with check (true)', tenant, current_user);
        execute format('create policy own on %I to gantry_app using (organization_id = (select scope_organization()))
                        with check (organization_id = (select scope_organization()))', tenant);
        execute format('grant select, insert, update, delete on %I to gantry_app', tenant);
    end loop;
end
$$;
