-- The record: who did what, on whose authority, from where, and what changed. One entry per change and per refused
-- permission, in the transaction of the change; nobody who serves requests can alter one.
--
--   audit_entries      what was recorded; only ever added to
--   audit_tallies      how many entries there are, and a sum over them that only the keys of the installation make:
--                      what is removed before it was sealed is missed
--   audit_seals        the entry's number and its link of the organization's chain of hashes
--   audit_heads        where the chain ends
--   audit_nodes        hashes of whole subtrees of the organization's Merkle tree (RFC 6962)
--   audit_checkpoints  signed heads, for whoever wants to hold the platform to them
--   audit_subjects     the keys of people: what identifies a person opens with his key, and with nothing once it is gone
--
-- gantry_auditor seals; nobody logs in as it, the engine's connection becomes it for that and inherits nothing of it.
do $$
begin
    begin
        execute 'create role gantry_auditor nologin';
    exception
        when duplicate_object or unique_violation then null;
    end;
    if not pg_has_role('gantry_engine', 'gantry_auditor', 'member') then
        if current_setting('server_version_num')::int >= 160000 then
            execute 'grant gantry_auditor to gantry_engine with inherit false, set true';
        else
            execute 'alter role gantry_engine noinherit';
            execute 'grant gantry_auditor to gantry_engine';
        end if;
    end if;
exception
    -- Another database of the server does the same at this moment.
    when unique_violation or internal_error then null;
end
$$;
grant usage on schema public to gantry_auditor;

create type audit_outcome as enum ('allowed', 'denied', 'failed');

create table audit_entries (
    organization_id uuid not null,
    id              uuid not null,
    -- Of which transaction it is: what is new is found by it.
    position        xid8 not null default pg_current_xact_id(),
    occurred_at     timestamptz not null,
    -- The id of who did it, or a word.
    actor           text not null,
    action          text not null,
    -- The id of what it was done to, or `kind:name`.
    target          text,
    outcome         audit_outcome not null,
    -- Everything else, JSON as it was written: hashes are over this text, so it is none of PostgreSQL's JSON types.
    record          text not null,
    -- Whose keys open what is sealed in it.
    actor_subject   uuid,
    target_subject  uuid,
    -- The key of the installation that vouches for the entry until the chain does.
    key_id          text not null,
    mac             bytea not null,
    primary key (organization_id, id)
) partition by range (id);
create index audit_entries_position on audit_entries (position);
create index audit_entries_actor on audit_entries (organization_id, actor, id);
create index audit_entries_target on audit_entries (organization_id, target, id) where target is not null;
create index audit_entries_action on audit_entries (organization_id, action, id);
create index audit_entries_actor_subject on audit_entries (organization_id, actor_subject, id)
    where actor_subject is not null;
create index audit_entries_target_subject on audit_entries (organization_id, target_subject, id)
    where target_subject is not null;

-- One row would make writers of an organization wait for each other, so each connection has a lane of a few.
create table audit_tallies (
    organization_id uuid not null,
    lane            smallint not null,
    entries         bigint not null,
    high            bigint not null,
    low             bigint not null,
    primary key (organization_id, lane)
) with (fillfactor = 50);

create table audit_seals (
    organization_id uuid not null,
    -- From 1, without a gap.
    sequence        bigint not null check (sequence > 0),
    entry_id        uuid not null,
    hash            bytea not null,
    primary key (organization_id, sequence),
    constraint audit_seals_entry_key unique (organization_id, entry_id)
);

create table audit_heads (
    organization_id uuid primary key,
    sequence        bigint not null,
    hash            bytea not null,
    -- The roots of the whole subtrees of the Merkle tree, the largest first.
    frontier        bytea not null,
    -- The sum over the sealed entries.
    high            bigint not null,
    low             bigint not null,
    sealed_at       timestamptz not null,
    -- The key of the installation that vouches for this row.
    key_id          text not null,
    mac             bytea not null
);

create table audit_nodes (
    organization_id uuid not null,
    -- The subtree has 2^level leaves, and is the number-th of its size, from 0.
    level           smallint not null,
    number          bigint not null,
    hash            bytea not null,
    primary key (organization_id, level, number)
);

create table audit_checkpoints (
    organization_id uuid not null,
    -- The last entry it covers.
    sequence        bigint not null,
    hash            bytea not null,
    root            bytea not null,
    made_at         timestamptz not null,
    key_id          uuid not null,
    public_key      bytea not null,
    signature       bytea not null,
    primary key (organization_id, sequence)
);

create table audit_subjects (
    organization_id uuid not null,
    subject_id      uuid not null,
    -- Sealed for this row; null: it was shredded, and nothing of the person opens any more.
    key             bytea,
    created_at      timestamptz not null,
    shredded_at     timestamptz,
    primary key (organization_id, subject_id),
    check ((key is null) = (shredded_at is not null))
);

-- What checkpoints are signed with. The platform's own.
create table audit_keys (
    id         uuid primary key,
    public_key bytea not null,
    -- Sealed for this row.
    secret     bytea not null,
    created_at timestamptz not null
);

-- One row, which is also the lock of whoever seals: transactions before this one have been seen to.
create table audit_sealing (
    one boolean primary key default true check (one),
    low xid8 not null
);
insert into audit_sealing (low) values ('0');

do $$
declare
    tenant text;
begin
    foreach tenant in array array['audit_entries', 'audit_tallies', 'audit_seals', 'audit_heads', 'audit_nodes',
                                  'audit_checkpoints', 'audit_subjects'] loop
        execute format('alter table %I enable row level security', tenant);
        execute format('alter table %I force row level security', tenant);
        execute format('create policy own on %I to gantry_app using (organization_id = (select scope_organization()))
                        with check (organization_id = (select scope_organization()))', tenant);
        execute format('create policy seals on %I to gantry_auditor using (true) with check (true)', tenant);
        execute format('grant select on %I to gantry_app, gantry_auditor', tenant);
    end loop;
end
$$;
alter table audit_keys enable row level security;
alter table audit_keys force row level security;
create policy platform on audit_keys to gantry_app
    using ((select scope_organization()) = '00000000-0000-7000-8000-000000000000');
create policy seals on audit_keys to gantry_auditor using (true) with check (true);

grant insert on audit_entries to gantry_app;
grant insert, update on audit_tallies to gantry_app;
grant insert, update (key, shredded_at) on audit_subjects to gantry_app;
grant select, update (secret) on audit_keys to gantry_app;
grant insert on audit_seals, audit_nodes, audit_checkpoints, audit_keys to gantry_auditor;
grant insert, update on audit_heads to gantry_auditor;
grant select on audit_keys to gantry_auditor;
grant select, update on audit_sealing to gantry_auditor;

-- One partition per month. Entries of a month that nobody had prepared lie in the default partition; they move.
create function audit_partition_add(day date) returns void
    language plpgsql security definer set search_path = public, pg_temp
    as $$
declare
    month date := date_trunc('month', day)::date;
    child text := 'audit_entries_' || to_char(month, 'YYYYMM');
    first uuid := id_at(month::timestamp at time zone 'UTC');
    next  uuid := id_at((month + interval '1 month')::timestamp at time zone 'UTC');
begin
    if to_regclass(child) is null then
        -- Requests must not wait behind this; it comes again.
        set local lock_timeout = '2s';
        execute format('create table %I (like audit_entries including all)', child);
        execute 'lock table audit_entries_other in access exclusive mode';
        execute format('with moved as (delete from audit_entries_other where id >= $1 and id < $2 returning *)
                        insert into %I select * from moved', child) using first, next;
        execute format('alter table audit_entries attach partition %I for values from (%L) to (%L)', child, first, next);
    end if;
end
$$;
revoke execute on function audit_partition_add(date) from public;
grant execute on function audit_partition_add(date) to gantry_auditor;

create table audit_entries_other partition of audit_entries default;
-- To see which months are to be made after all.
grant select on audit_entries_other to gantry_auditor;
select audit_partition_add((now() at time zone 'UTC' + make_interval(months => ahead))::date)
  from generate_series(0, 2) ahead;
