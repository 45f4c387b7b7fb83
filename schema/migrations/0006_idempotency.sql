-- What was answered to requests that carry an Idempotency-Key, written in the transaction of their effect: a request
-- that is sent again gets the same answer and has no second effect. Rows are forgotten a day later.
create table idempotency_keys (
    organization_id uuid not null,
    key             text not null check (length(key) between 1 and 255),
    -- What the body is sealed for.
    id              uuid not null,
    api_key_id      uuid not null,
    -- Method and path, for people.
    operation       text not null,
    -- SHA-256 of method, path, query and body.
    fingerprint     bytea not null,
    status          smallint not null,
    headers         jsonb not null,
    -- Sealed, for it may show a secret that is shown once; null: it was too large to be kept.
    body            bytea,
    created_at      timestamptz not null,
    primary key (organization_id, key)
);
create index idempotency_keys_created_at on idempotency_keys (created_at);

alter table idempotency_keys enable row level security;
alter table idempotency_keys force row level security;
create policy own on idempotency_keys to gantry_app
    using (organization_id = (select scope_organization()))
    with check (organization_id = (select scope_organization()));
grant select, insert, update, delete on idempotency_keys to gantry_app;
-- Housekeeping forgets rows by their age, and reads nothing of them.
create policy forgets on idempotency_keys to gantry_engine using (true);
grant select (organization_id, key, created_at), delete on idempotency_keys to gantry_engine;
