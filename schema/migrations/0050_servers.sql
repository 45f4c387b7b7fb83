-- Servers on the cloud accounts of organizations: the credentials, the stacks of Terraform behind servers, what was run on
-- them, and the states that Terraform keeps.

create table cloud_credentials (
    id              uuid primary key,
    organization_id uuid not null references organizations (id),
    name            text not null check (length(name) between 1 and 200),
    cloud           text not null check (cloud in ('aws', 'gcp', 'azure', 'digitalocean', 'hetzner', 'sandbox')),
    -- By which people recognise it: an account, a project, the last characters of a token.
    hint            text not null check (length(hint) <= 200),
    -- JSON, sealed for this row.
    secret          bytea not null,
    created_at      timestamptz not null,
    rotated_at      timestamptz
);
create unique index cloud_credentials_name_key on cloud_credentials (organization_id, lower(name));
create index cloud_credentials_organization_id on cloud_credentials (organization_id, id);

-- With what the platform gets into an organization's servers.
create table ssh_keys (
    id              uuid primary key,
    organization_id uuid not null references organizations (id),
    -- As `authorized_keys` has it, without a comment.
    public_key      text not null check (length(public_key) <= 1000),
    -- The 32 bytes an Ed25519 key is made of, sealed for this row.
    secret          bytea not null,
    created_at      timestamptz not null,
    constraint ssh_keys_organization_key unique (organization_id)
);

create table servers (
    id              uuid primary key,
    organization_id uuid not null references organizations (id),
    name            text not null check (length(name) between 1 and 63),
    cloud           text not null check (cloud in ('aws', 'gcp', 'azure', 'digitalocean', 'hetzner', 'sandbox')),
    region          text not null check (length(region) <= 100),
    size            text not null check (length(size) <= 100),
    image           text not null check (length(image) <= 200),
    labels          jsonb not null,
    state           text not null check (state in ('provisioning', 'awaiting_approval', 'ready', 'failed', 'destroying',
                                                   'destroyed')),
    address         text,
    port            integer check (port between 1 and 65535),
    username        text,
    -- The one that is believed, as `known_hosts` has it.
    host_key        text,
    -- What was looked at when it was registered, and what was found.
    checks          jsonb,
    problem_code    text,
    problem         text,
    -- In the smallest unit of the currency, per month.
    monthly_cost    bigint,
    currency        text check (length(currency) = 3),
    created_at      timestamptz not null,
    ready_at        timestamptz,
    destroyed_at    timestamptz
);
create unique index servers_name_key on servers (organization_id, lower(name)) where state <> 'destroyed';
create index servers_organization_id on servers (organization_id, id);

-- What Terraform looks after: one for each server.
create table stacks (
    id              uuid primary key,
    organization_id uuid not null references organizations (id),
    server_id       uuid not null references servers (id) on delete cascade,
    -- Null: what it made is gone, and the credential may go.
    credential_id   uuid,
    ssh_key_id      uuid not null,
    -- Whoever holds a lower number may not write any more.
    fence           bigint not null default 0,
    -- Terraform's own lock, and what its holder says of himself.
    lock_id         text,
    lock_info       jsonb,
    lock_fence      bigint,
    created_at      timestamptz not null,
    constraint stacks_server_key unique (server_id),
    constraint stacks_credential_fkey foreign key (credential_id) references cloud_credentials (id),
    constraint stacks_ssh_key_fkey foreign key (ssh_key_id) references ssh_keys (id)
);
create index stacks_credential_id on stacks (credential_id);
create index stacks_ssh_key_id on stacks (ssh_key_id);
create index stacks_organization_id on stacks (organization_id, id);

create table runs (
    id              uuid primary key,
    organization_id uuid not null references organizations (id),
    stack_id        uuid not null references stacks (id) on delete cascade,
    kind            text not null check (kind in ('provision', 'mend', 'destroy')),
    state           text not null check (state in ('queued', 'planning', 'awaiting_approval', 'approved', 'applying',
                                                   'verifying', 'succeeded', 'failed', 'cancelled')),
    job_id          uuid,
    requested_by    text not null,
    -- How much is made, changed and removed, and what.
    plan_summary    jsonb,
    -- What Terraform planned, packed and sealed for this row; gone when the run has ended.
    plan            bytea,
    plan_sha256     bytea check (length(plan_sha256) = 32),
    monthly_cost    bigint,
    currency        text check (length(currency) = 3),
    approved_by     text,
    approved_at     timestamptz,
    problem_code    text,
    problem         text,
    created_at      timestamptz not null,
    started_at      timestamptz,
    finished_at     timestamptz
);
create index runs_stack_id on runs (stack_id, id);
create index runs_organization_id on runs (organization_id, id);

-- Every version is a row of its own; the oldest ones are forgotten when there are many.
create table terraform_states (
    id              uuid primary key,
    organization_id uuid not null references organizations (id),
    stack_id        uuid not null references stacks (id) on delete cascade,
    version         bigint not null check (version > 0),
    -- Terraform's own number, which never goes back, and what it belongs to.
    serial          bigint not null,
    lineage         text not null,
    -- Of the state as Terraform wrote it.
    sha256          bytea not null check (length(sha256) = 32),
    size            integer not null,
    -- Packed, and sealed for this row.
    state           bytea not null,
    run_id          uuid,
    created_at      timestamptz not null,
    constraint terraform_states_version_key unique (stack_id, version)
);
create index terraform_states_organization_id on terraform_states (organization_id, id);

do $$
declare
    tenant text;
begin
    foreach tenant in array array['cloud_credentials', 'ssh_keys', 'servers', 'stacks', 'runs', 'terraform_states'] loop
        execute format('alter table %I enable row level security', tenant);
        execute format('alter table %I force row level security', tenant);
        execute format('create policy bootstrap on %I to %I using (true) with check (true)', tenant, current_user);
        execute format('create policy own on %I to gantry_app using (organization_id = (select scope_organization()))
                        with check (organization_id = (select scope_organization()))', tenant);
        execute format('grant select, insert, update, delete on %I to gantry_app', tenant);
    end loop;
end
$$;
