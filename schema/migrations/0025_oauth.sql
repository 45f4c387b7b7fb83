-- OAuth 2.0: the applications that organizations register, the keys their tokens are signed with, what people let them
-- do, and what is handed out on the way. An application works in its organization and in those below it, so what it was
-- given belongs to the organization in which it acts.

-- The application a transaction asks about, before it is known whose it is.
create function presented_client() returns uuid
    language sql stable parallel safe
    as $$ select nullif(current_setting('gantry.presented_client', true), '')::uuid $$;

-- What tokens are signed with. The keys are the platform's: one signs, the next one is shown already, and those before
-- are shown until the last token they signed has expired.
create table oauth_signing_keys (
    id              uuid primary key,
    organization_id uuid not null references organizations (id),
    algorithm       text not null check (algorithm = 'ES256'),
    -- A point of P-256, uncompressed.
    public_key      bytea not null check (length(public_key) = 65),
    -- PKCS #8, sealed for this row.
    secret          bytea not null,
    created_at      timestamptz not null,
    signs_from      timestamptz not null,
    -- Nothing it signed is believed afterwards; null: there is no later key.
    expires_at      timestamptz
);

create table oauth_clients (
    id              uuid primary key,
    organization_id uuid not null references organizations (id),
    name            text not null check (length(name) between 1 and 200),
    description     text not null default '' check (length(description) <= 1000),
    homepage        text check (length(homepage) <= 2000),
    -- It can keep a secret.
    confidential    boolean not null,
    redirect_uris   text[] not null,
    grants          text[] not null check (grants <@ array['authorization_code', 'client_credentials', 'device_code']),
    -- The most it can be given.
    scopes          text[] not null,
    enabled         boolean not null default true,
    created_at      timestamptz not null,
    updated_at      timestamptz not null,
    check (confidential or not grants @> array['client_credentials'])
);
create index oauth_clients_organization_id on oauth_clients (organization_id, id);

-- What a confidential application proves itself with: the current secret, and those it replaced until they expire.
create table oauth_client_secrets (
    id              uuid primary key,
    organization_id uuid not null,
    client_id       uuid not null references oauth_clients (id) on delete cascade,
    -- The first characters, by which people recognise it.
    hint            text not null,
    hash            bytea not null check (length(hash) = 32),
    created_at      timestamptz not null,
    -- Null: the current one.
    expires_at      timestamptz
);
create unique index oauth_client_secrets_current on oauth_client_secrets (client_id) where expires_at is null;
create index oauth_client_secrets_client_id on oauth_client_secrets (client_id, created_at desc);

-- What a person lets an application do in one of his organizations. Taken back, it is gone, and with it whatever it gave.
create table oauth_grants (
    id              uuid primary key,
    organization_id uuid not null references organizations (id),
    client_id       uuid not null references oauth_clients (id) on delete cascade,
    person_id       uuid not null references people (id),
    scopes          text[] not null,
    created_at      timestamptz not null,
    updated_at      timestamptz not null,
    constraint oauth_grants_key unique (organization_id, client_id, person_id)
);
create index oauth_grants_organization_id on oauth_grants (organization_id, id);
create index oauth_grants_client_id on oauth_grants (client_id);
create index oauth_grants_person_id on oauth_grants (person_id, id);

-- One run through a flow, to which everything belongs that came of it: a code, access tokens, a family of refresh tokens.
-- Ended, none of it works.
create table oauth_authorizations (
    id               uuid primary key,
    organization_id  uuid not null references organizations (id),
    client_id        uuid not null references oauth_clients (id) on delete cascade,
    -- Null: the application acts for itself.
    grant_id         uuid references oauth_grants (id) on delete cascade,
    person_id        uuid references people (id),
    scopes           text[] not null,
    -- When the person had last proved who he is, and how.
    authenticated_at timestamptz,
    methods          text[] not null default '{}',
    created_at       timestamptz not null,
    expires_at       timestamptz not null,
    ended_at         timestamptz,
    ended_because    text check (ended_because in ('revoked', 'code_reused', 'refresh_token_reused')),
    check ((grant_id is null) = (person_id is null))
);
create index oauth_authorizations_grant_id on oauth_authorizations (grant_id);
create index oauth_authorizations_client_id on oauth_authorizations (client_id);
create index oauth_authorizations_expires_at on oauth_authorizations (expires_at);

-- Codes stay when they were used, so that one that comes again is known as stolen.
create table oauth_codes (
    hash             bytea primary key check (length(hash) = 32),
    organization_id  uuid not null,
    authorization_id uuid not null references oauth_authorizations (id) on delete cascade,
    client_id        uuid not null,
    -- As the request had it.
    redirect_uri     text not null,
    -- RFC 7636, S256.
    challenge        text not null check (length(challenge) = 43),
    nonce            text,
    created_at       timestamptz not null,
    expires_at       timestamptz not null,
    used_at          timestamptz
);
create index oauth_codes_authorization_id on oauth_codes (authorization_id);

create table oauth_refresh_tokens (
    id               uuid primary key,
    organization_id  uuid not null,
    authorization_id uuid not null references oauth_authorizations (id) on delete cascade,
    hash             bytea not null check (length(hash) = 32),
    created_at       timestamptz not null,
    expires_at       timestamptz not null,
    used_at          timestamptz,
    constraint oauth_refresh_tokens_hash_key unique (hash)
);
create index oauth_refresh_tokens_authorization_id on oauth_refresh_tokens (authorization_id);
create index oauth_refresh_tokens_expires_at on oauth_refresh_tokens (expires_at);

-- Devices without a browser, which wait until somebody has decided elsewhere (RFC 8628). They belong to the
-- application's organization: it is not known yet where they will act.
create table oauth_device_codes (
    id               uuid primary key,
    organization_id  uuid not null,
    client_id        uuid not null references oauth_clients (id) on delete cascade,
    hash             bytea not null check (length(hash) = 32),
    user_code_hash   bytea not null check (length(user_code_hash) = 32),
    scopes           text[] not null,
    created_at       timestamptz not null,
    expires_at       timestamptz not null,
    -- The device asks so often at most; asked faster, it is longer.
    interval_seconds integer not null,
    polled_at        timestamptz,
    -- What was decided: an authorization, and where; or nothing.
    decided_at       timestamptz,
    authorization_id uuid references oauth_authorizations (id) on delete cascade,
    acts_in          uuid references organizations (id),
    used_at          timestamptz,
    constraint oauth_device_codes_hash_key unique (hash),
    constraint oauth_device_codes_user_code_key unique (user_code_hash)
);
create index oauth_device_codes_expires_at on oauth_device_codes (expires_at);
create index oauth_device_codes_client_id on oauth_device_codes (client_id);

do $$
declare
    name text;
begin
    foreach name in array array['oauth_signing_keys', 'oauth_clients', 'oauth_client_secrets', 'oauth_grants',
                                'oauth_authorizations', 'oauth_codes', 'oauth_refresh_tokens',
                                'oauth_device_codes'] loop
        execute format('alter table %I enable row level security', name);
        execute format('alter table %I force row level security', name);
        execute format('create policy own on %I to gantry_app using (organization_id = (select scope_organization()))
                        with check (organization_id = (select scope_organization()))', name);
        execute format('grant select, insert, update on %I to gantry_app', name);
    end loop;
    foreach name in array array['oauth_signing_keys', 'oauth_clients', 'oauth_client_secrets', 'oauth_grants'] loop
        execute format('grant delete on %I to gantry_app', name);
    end loop;
end
$$;

-- An application is found by its id before it is known whose it is, and seen by whoever lets it do something.
create policy presented on oauth_clients for select to gantry_app using (id = (select presented_client()));
create policy granted on oauth_clients for select to gantry_app
    using (exists (select from oauth_grants where oauth_grants.client_id = oauth_clients.id));
create policy himself on oauth_grants for select to gantry_app using (person_id = (select scope_person()));
create policy takes_back on oauth_grants for delete to gantry_app using (person_id = (select scope_person()));

-- What is presented is found before it is known where it belongs. Whoever has a user code decides about its device.
create policy presented on oauth_codes for select to gantry_app using (hash = (select presented_key()));
create policy presented on oauth_refresh_tokens for select to gantry_app using (hash = (select presented_key()));
create policy presented on oauth_device_codes for select to gantry_app
    using (hash = (select presented_key()) or user_code_hash = (select presented_key()));
create policy decides on oauth_device_codes for update to gantry_app
    using (user_code_hash = (select presented_key())) with check (user_code_hash = (select presented_key()));

-- Housekeeping forgets rows by their age, and reads nothing of them.
create policy forgets on oauth_authorizations to gantry_engine using (true);
create policy forgets on oauth_refresh_tokens to gantry_engine using (true);
create policy forgets on oauth_device_codes to gantry_engine using (true);
grant select (id, expires_at), delete on oauth_authorizations, oauth_refresh_tokens, oauth_device_codes to gantry_engine;
