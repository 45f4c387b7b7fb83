-- Second factors: what people prove themselves with beside their password, or in place of it; the codes that are left when
-- a device is lost; and what lies between the first step of signing in and the second.

-- One row per device or address. They are a person's, whatever he is a member of.
create table factors (
    id              uuid primary key,
    person_id       uuid not null references people (id),
    kind            text not null check (kind in ('totp', 'passkey', 'sms', 'email')),
    name            text not null check (length(name) between 1 and 200),
    -- Of a TOTP device: what its codes follow from, sealed for this row.
    secret          bytea,
    -- Of a TOTP device: the time step of the last code. None up to it is good again.
    last_step       bigint,
    -- Of a passkey: what the browser knows it by, and what is known of it: its public key, its count, what it can do.
    credential_id   bytea check (length(credential_id) between 1 and 1023),
    passkey         jsonb check (pg_column_size(passkey) <= 8192),
    -- Of a passkey: it has left the device it was made on.
    backed_up       boolean not null default false,
    -- Of a passkey: when its count last went backwards, as that of a copy would.
    suspected_at    timestamptz,
    -- Where codes are sent to.
    address         text check (length(address) <= 254),
    -- Wrong codes since the last right one.
    failures        integer not null default 0 check (failures >= 0),
    created_at      timestamptz not null,
    -- Null: it was begun and not shown to work. It counts for nothing, and is forgotten when it expires.
    confirmed_at    timestamptz,
    expires_at      timestamptz,
    last_used_at    timestamptz,
    check ((kind = 'totp') = (secret is not null)),
    check ((kind = 'passkey') = (credential_id is not null and passkey is not null)),
    check ((kind in ('sms', 'email')) = (address is not null)),
    check ((confirmed_at is null) = (expires_at is not null)),
    constraint factors_credential_id_key unique (credential_id)
);
create index factors_person_id on factors (person_id, id);
create index factors_expires_at on factors (expires_at) where expires_at is not null;

-- Each is good once. All of a person's are made at once, with one salt.
create table recovery_codes (
    person_id  uuid not null references people (id),
    -- Argon2id of the code.
    hash       bytea not null check (length(hash) = 32),
    salt       bytea not null check (length(salt) = 16),
    -- A pepper went into the hash.
    peppered   boolean not null,
    created_at timestamptz not null,
    used_at    timestamptz,
    primary key (person_id, hash)
);

-- Somebody knew his password and has not shown the second factor yet: no session, and not for long.
create table pending_sign_ins (
    id              uuid primary key,
    person_id       uuid not null references people (id),
    hash            bytea not null check (length(hash) = 32),
    kind            text not null check (kind in ('browser', 'program')),
    organization_id uuid references organizations (id) on delete cascade,
    -- A digest of the code that was sent by mail, where the sign-in looked wrong and he has no factor.
    mailed_code     bytea check (length(mailed_code) = 32),
    -- What he has proven (RFC 8176).
    methods         text[] not null,
    -- What the client calls itself; another one does not go on with it.
    user_agent      bytea not null check (length(user_agent) = 32),
    -- What was tried as the second step.
    tries           integer not null default 0 check (tries >= 0),
    created_at      timestamptz not null,
    expires_at      timestamptz not null,
    used_at         timestamptz,
    constraint pending_sign_ins_hash_key unique (hash)
);
create index pending_sign_ins_person_id on pending_sign_ins (person_id);
create index pending_sign_ins_organization_id on pending_sign_ins (organization_id) where organization_id is not null;
create index pending_sign_ins_expires_at on pending_sign_ins (expires_at);

-- What a passkey is to sign: good once. They belong to the platform's own organization, for a passkey that is the only
-- factor says itself whose it is.
create table passkey_challenges (
    id              uuid primary key,
    organization_id uuid not null references organizations (id),
    purpose         text not null check (purpose in ('register', 'sign_in', 'second_step', 'prove')),
    hash            bytea not null check (length(hash) = 32),
    -- Whose passkey is to answer; null: whoever's.
    person_id       uuid references people (id),
    -- What the answer is verified with.
    state           jsonb not null check (pg_column_size(state) <= 65536),
    created_at      timestamptz not null,
    expires_at      timestamptz not null,
    used_at         timestamptz,
    constraint passkey_challenges_hash_key unique (hash)
);
create index passkey_challenges_expires_at on passkey_challenges (expires_at);
create index passkey_challenges_person_id on passkey_challenges (person_id) where person_id is not null;
create index passkey_challenges_organization_id on passkey_challenges (organization_id);

-- With which kinds of factors a session was proven.
alter table sessions add column factors text[] not null default '{}';

do $$
declare
    name text;
begin
    foreach name in array array['factors', 'recovery_codes', 'pending_sign_ins', 'passkey_challenges'] loop
        execute format('alter table %I enable row level security', name);
        execute format('alter table %I force row level security', name);
        execute format('create policy bootstrap on %I to %I using (true) with check (true)', name, current_user);
        execute format('grant select, insert, update, delete on %I to gantry_app', name);
    end loop;
    foreach name in array array['factors', 'recovery_codes', 'pending_sign_ins'] loop
        execute format('create policy himself on %I to gantry_app using (person_id = (select scope_person()))
                        with check (person_id = (select scope_person()))', name);
    end loop;
end
$$;
create policy own on passkey_challenges to gantry_app using (organization_id = (select scope_organization()))
    with check (organization_id = (select scope_organization()));

-- What is presented is found before it is known whose it is: the token of a sign-in, or the id of a passkey.
create policy presented on pending_sign_ins for select to gantry_app using (hash = (select presented_key()));
create policy presented on factors for select to gantry_app
    using (credential_id is not null and sha256(credential_id) = (select presented_key()));
create index factors_presented on factors (sha256(credential_id)) where credential_id is not null;

-- Sealing again is done for the platform, for nobody in particular.
create policy reseals on factors for select to gantry_app
    using (secret is not null and (select scope_person()) is null
           and (select scope_organization()) = '00000000-0000-7000-8000-000000000000');
create policy reseals_again on factors for update to gantry_app
    using (secret is not null and (select scope_person()) is null
           and (select scope_organization()) = '00000000-0000-7000-8000-000000000000');

-- Housekeeping forgets rows by their age, and reads nothing of them.
create policy forgets on factors to gantry_engine using (expires_at is not null);
create policy forgets on pending_sign_ins to gantry_engine using (true);
create policy forgets on passkey_challenges to gantry_engine using (true);
grant select (id, expires_at), delete on factors, pending_sign_ins, passkey_challenges to gantry_engine;
