-- API keys are stored as hashes. A key is found before its organization is known, so its row is visible
-- to a transaction that presents exactly this key's hash, and to its organization's.
create table api_keys (
    id              uuid primary key,
    organization_id uuid not null references organizations (id),
    name            text not null check (length(name) between 1 and 200),
    -- The first characters, shown in lists so that people recognise the key.
    hint            text not null,
    hash            bytea not null,
    scopes          text[] not null,
    created_at      timestamptz not null,
    expires_at      timestamptz,
    revoked_at      timestamptz,
    constraint api_keys_hash_key unique (hash)
);
create index api_keys_organization_id on api_keys (organization_id, id);

alter table api_keys enable row level security;
alter table api_keys force row level security;
create policy own on api_keys to gantry_app
    using (organization_id = scope_organization())
    with check (organization_id = scope_organization());
create policy presented on api_keys for select to gantry_app
    using (hash = decode(nullif(current_setting('gantry.presented_key', true), ''), 'hex'));
grant select, insert, update on api_keys to gantry_app;

do $$
begin
    execute format('create policy bootstrap on api_keys to %I using (true) with check (true)', current_user);
end
$$;
