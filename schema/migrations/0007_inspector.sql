-- Receiving bins: a URL that takes any request and shows it, so that webhooks can be tried without a server of one's own.
create table inspector_bins (
    id              uuid primary key,
    organization_id uuid not null references organizations (id),
    name            text not null check (length(name) between 1 and 200),
    -- What its URL ends in. Who has it may send to the bin, and see nothing.
    token           text not null,
    -- What it answers, and after how long.
    status          smallint not null default 200 check (status between 200 and 599),
    delay_ms        integer not null default 0 check (delay_ms between 0 and 10000),
    created_at      timestamptz not null,
    constraint inspector_bins_token_key unique (token)
);
create index inspector_bins_organization_id on inspector_bins (organization_id, id);

create table inspector_requests (
    id              uuid primary key,
    organization_id uuid not null,
    bin_id          uuid not null references inspector_bins (id) on delete cascade,
    method          text not null,
    path            text not null,
    query           text,
    -- [[name, value], ..] as they came.
    headers         jsonb not null,
    body            bytea not null,
    -- The body was longer than what is kept.
    truncated       boolean not null,
    received_at     timestamptz not null
);
create index inspector_requests_bin_id on inspector_requests (bin_id, id);

do $$
declare
    tenant text;
begin
    foreach tenant in array array['inspector_bins', 'inspector_requests'] loop
        execute format('alter table %I enable row level security', tenant);
        execute format('alter table %I force row level security', tenant);
        execute format('create policy own on %I to gantry_app using (organization_id = (select scope_organization()))
                        with check (organization_id = (select scope_organization()))', tenant);
        execute format('grant select, insert, update, delete on %I to gantry_app', tenant);
    end loop;
end
$$;
-- A bin is found before its organization is known, by the token that is presented.
create policy presented on inspector_bins for select to gantry_app
    using (token = nullif(current_setting('gantry.presented_bin', true), ''));
