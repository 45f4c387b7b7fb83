-- Messages to people: mail and text messages, written down in the transaction of what they tell, sent by a job.
create table messages (
    id                 uuid primary key,
    organization_id    uuid not null references organizations (id),
    -- What it tells: `invitation`, `password_changed`.
    kind               text not null check (length(kind) between 1 and 60),
    channel            text not null check (channel in ('mail', 'sms')),
    -- Sealed: whom it is for, and what it says. Links in it open accounts, so once a vendor has taken it nothing of
    -- what it says is kept.
    recipient          bytea not null,
    content            bytea,
    -- What it is about: an id, as people see it.
    reference          text check (length(reference) <= 200),
    state              text not null default 'queued' check (state in ('queued', 'sent', 'failed')),
    -- Who took it, and what he knows it by; or why nobody did.
    provider           text,
    provider_reference text check (length(provider_reference) <= 200),
    error              text check (length(error) <= 500),
    created_at         timestamptz not null,
    -- It is of no use to anybody after this moment, and not sent any more.
    expires_at         timestamptz,
    sent_at            timestamptz,
    keep_until         timestamptz not null
);
create index messages_organization_id on messages (organization_id, id);
create index messages_keep_until on messages (keep_until);

alter table messages enable row level security;
alter table messages force row level security;
create policy own on messages to gantry_app using (organization_id = (select scope_organization()))
    with check (organization_id = (select scope_organization()));
grant select, insert, update, delete on messages to gantry_app;
-- Housekeeping forgets rows by their age, and reads nothing of them.
create policy forgets on messages to gantry_engine using (true);
grant select (id, keep_until), delete on messages to gantry_engine;
