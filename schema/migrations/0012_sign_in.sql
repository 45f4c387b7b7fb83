-- Signing in: the sessions it begins, the tokens that open them, the links that are good once, and invitations.

-- What a transaction presents before it is known for whom it acts: the SHA-256 of a key or token.
create function presented_key() returns bytea
    language sql stable parallel safe
    as $$ select decode(nullif(current_setting('gantry.presented_key', true), ''), 'hex') $$;

-- Whether the password may be the only proof: it is long enough for that. And whether a pepper went into its hash.
alter table passwords add column stands_alone boolean not null default true;
alter table passwords add column peppered boolean not null default false;

create table sessions (
    id               uuid primary key,
    person_id        uuid not null references people (id),
    -- For which of his organizations he acts; null: for none.
    organization_id  uuid references organizations (id) on delete set null,
    kind             text not null check (kind in ('browser', 'program')),
    -- When he last proved who he is, and how (the words of RFC 8176).
    authenticated_at timestamptz not null,
    methods          text[] not null,
    -- From where, as last seen.
    address          text,
    user_agent       text check (length(user_agent) <= 400),
    created_at       timestamptz not null,
    last_used_at     timestamptz not null,
    -- It ends after so long a silence, and at the latest at this moment.
    idle_seconds     integer not null check (idle_seconds > 0),
    expires_at       timestamptz not null,
    ended_at         timestamptz,
    ended_because    text
);
create index sessions_person_id on sessions (person_id, id);
create index sessions_expires_at on sessions (expires_at);

-- What opens a session, as hashes. Exchanged refresh tokens stay, so that one that comes again is known as stolen.
create table session_tokens (
    hash       bytea primary key check (length(hash) = 32),
    session_id uuid not null references sessions (id) on delete cascade,
    person_id  uuid not null references people (id),
    kind       text not null check (kind in ('cookie', 'access', 'refresh')),
    created_at timestamptz not null,
    expires_at timestamptz not null,
    used_at    timestamptz
);
create index session_tokens_session_id on session_tokens (session_id);
create index session_tokens_person_id on session_tokens (person_id);

-- Whose token a transaction presents.
create function presented_person() returns uuid
    language sql stable parallel safe
    as $$ select person_id from session_tokens where hash = presented_key() $$;

-- What was sent to somebody, to prove that it reached him: good once, and not for long. They belong to the platform's
-- own organization, for whoever presents one is nobody's member yet.
create table one_time_tokens (
    id              uuid primary key,
    organization_id uuid not null references organizations (id),
    purpose         text not null check (purpose in ('sign_up', 'reset_password', 'change_email', 'bootstrap')),
    hash            bytea not null check (length(hash) = 32),
    -- Where it was sent to.
    email           text not null,
    email_key       text not null,
    -- Who has an account already.
    person_id       uuid references people (id),
    -- Of a sign-up: what he is called, and what is written to him in.
    name            text,
    locale          text,
    created_at      timestamptz not null,
    expires_at      timestamptz not null,
    used_at         timestamptz,
    constraint one_time_tokens_hash_key unique (hash)
);
create index one_time_tokens_email_key on one_time_tokens (email_key, purpose, created_at);
create index one_time_tokens_expires_at on one_time_tokens (expires_at);

create table invitations (
    id              uuid primary key,
    organization_id uuid not null references organizations (id),
    email           text not null,
    email_key       text not null,
    role            text not null,
    -- On whose behalf, as jobs have it.
    invited_by      text not null,
    hash            bytea not null check (length(hash) = 32),
    created_at      timestamptz not null,
    expires_at      timestamptz not null,
    accepted_at     timestamptz,
    accepted_by     uuid references people (id),
    revoked_at      timestamptz,
    constraint invitations_hash_key unique (hash)
);
-- Of those that stand, one for an address.
create unique index invitations_standing on invitations (organization_id, email_key)
    where accepted_at is null and revoked_at is null;
create index invitations_organization_id on invitations (organization_id, id);

do $$
declare
    name text;
begin
    foreach name in array array['sessions', 'session_tokens', 'one_time_tokens', 'invitations'] loop
        execute format('alter table %I enable row level security', name);
        execute format('alter table %I force row level security', name);
        execute format('create policy bootstrap on %I to %I using (true) with check (true)', name, current_user);
        execute format('grant select, insert, update on %I to gantry_app', name);
    end loop;
    foreach name in array array['sessions', 'session_tokens'] loop
        execute format('create policy himself on %I to gantry_app using (person_id = (select scope_person()))
                        with check (person_id = (select scope_person()))', name);
    end loop;
    foreach name in array array['one_time_tokens', 'invitations'] loop
        execute format('create policy own on %I to gantry_app using (organization_id = (select scope_organization()))
                        with check (organization_id = (select scope_organization()))', name);
        execute format('grant delete on %I to gantry_app', name);
    end loop;
end
$$;
grant delete on session_tokens to gantry_app;

-- A request is known by its token, in one statement: the session, the person and what he is there.
create policy presented on session_tokens for select to gantry_app using (hash = (select presented_key()));
create policy presented on sessions for select to gantry_app using (person_id = (select presented_person()));
create policy presented_person on people for select to gantry_app using (id = (select presented_person()));
create policy presented on memberships for select to gantry_app using (person_id = (select presented_person()));
-- An invitation is found before it is known where to.
create policy presented on invitations for select to gantry_app using (hash = (select presented_key()));

-- Housekeeping forgets rows by their age, and reads nothing of them.
create policy forgets on sessions to gantry_engine using (true);
create policy forgets on one_time_tokens to gantry_engine using (true);
create policy forgets on invitations to gantry_engine using (true);
grant select (id, expires_at), delete on sessions, one_time_tokens, invitations to gantry_engine;
