-- Codes that were sent to a telephone or an address which somebody proves himself with: each is good once, and not for long.
create table sent_codes (
    id         uuid primary key,
    person_id  uuid not null references people (id),
    -- Null: it was removed. How many were sent is counted all the same.
    factor_id  uuid references factors (id) on delete set null,
    -- A digest of the code, and of whose it is.
    hash       bytea not null check (length(hash) = 32),
    tries      integer not null default 0 check (tries >= 0),
    created_at timestamptz not null,
    expires_at timestamptz not null,
    used_at    timestamptz
);
create index sent_codes_person_id on sent_codes (person_id, created_at);
create index sent_codes_factor_id on sent_codes (factor_id) where factor_id is not null;
create index sent_codes_expires_at on sent_codes (expires_at);

alter table sent_codes enable row level security;
alter table sent_codes force row level security;
create policy bootstrap on sent_codes to current_user using (true) with check (true);
create policy himself on sent_codes to gantry_app using (person_id = (select scope_person()))
    with check (person_id = (select scope_person()));
grant select, insert, update, delete on sent_codes to gantry_app;
-- Housekeeping forgets rows by their age, and reads nothing of them.
create policy forgets on sent_codes to gantry_engine using (true);
grant select (id, expires_at), delete on sent_codes to gantry_engine;
