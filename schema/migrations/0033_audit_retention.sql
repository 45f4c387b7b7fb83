-- What becomes of an organization's record besides lying there: its entries go on as events, and what is old enough and was
-- copied may be dropped.
create table audit_policies (
    organization_id uuid primary key references organizations (id),
    -- Each entry is an event too, once it is sealed.
    forwards        boolean not null default false,
    -- The number of the last entry that went on.
    forwarded       bigint not null default 0,
    -- Entries are kept for so many days at least; null: for ever.
    keep_days       integer check (keep_days between 90 and 36500),
    updated_at      timestamptz not null
);

-- Copies of everything that was sealed and not yet dropped, up to a checkpoint.
create table audit_archives (
    organization_id uuid not null references organizations (id),
    id              uuid not null,
    first           bigint not null,
    -- The number of the last entry in it: a checkpoint's.
    through         bigint not null check (through >= first),
    -- Of all of its bytes.
    sha256          bytea not null,
    made_at         timestamptz not null,
    -- When somebody told its digest, who therefore has it.
    confirmed_at    timestamptz,
    primary key (organization_id, id)
);

-- Where the record begins since older entries were dropped: what the sealing keys vouch for takes their place.
create table audit_beginnings (
    organization_id uuid primary key,
    -- The last entry that was dropped, its link, the tree and the sum up to it.
    sequence        bigint not null check (sequence > 0),
    hash            bytea not null,
    frontier        bytea not null,
    -- Null: of some of it, what it added is not known.
    high            bigint,
    low             bigint,
    dropped_at      timestamptz not null,
    key_id          text not null,
    mac             bytea not null
);

do $$
declare
    tenant text;
begin
    foreach tenant in array array['audit_policies', 'audit_archives', 'audit_beginnings'] loop
        execute format('alter table %I enable row level security', tenant);
        execute format('alter table %I force row level security', tenant);
        execute format('create policy own on %I to gantry_app using (organization_id = (select scope_organization()))
                        with check (organization_id = (select scope_organization()))', tenant);
        execute format('create policy retains on %I to gantry_auditor using (true) with check (true)', tenant);
        execute format('grant select on %I to gantry_app, gantry_auditor', tenant);
    end loop;
end
$$;
grant insert, update, delete on audit_policies to gantry_app;
grant insert, delete on audit_archives to gantry_app;
grant update (confirmed_at) on audit_archives to gantry_app;
grant insert, update on audit_beginnings to gantry_auditor;
-- Whoever drops what was copied is the auditor, never who serves requests.
grant delete on audit_entries, audit_seals to gantry_auditor;
create policy young on audit_entries as restrictive for delete to gantry_auditor
    using (id_moment(id) < now() - interval '90 days');
create policy young on audit_seals as restrictive for delete to gantry_auditor
    using (id_moment(entry_id) < now() - interval '90 days');
