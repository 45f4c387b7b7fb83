-- squawk-ignore-file adding-foreign-key-constraint, constraint-missing-not-valid, require-concurrent-index-creation
-- because no release has these tables yet: there is nothing to block.
-- Licenses that wait for somebody who has their code, how much of licenses was used when and what was signed of it, and
-- licenses that their issuers revoked elsewhere.

alter table licenses
    -- Its own id, and those of the licenses it was made of.
    add column chain uuid[] not null default '{}',
    -- The name of the key with which the first of them was signed.
    add column anchor text not null default '' check (length(anchor) <= 100),
    -- For how long it goes on without news of what its issuer revoked; null: for ever.
    add column offline_seconds bigint check (offline_seconds >= 0),
    -- Who decided about it last: only he, or one above him, takes that back.
    add column decided_by uuid;
create index licenses_anchor on licenses (anchor) where state <> 'replaced';

-- A license that is put in force by whoever has its code.
create table license_claims (
    id              uuid primary key,
    organization_id uuid not null references organizations (id),
    -- The organization that gives it.
    issuer_id       uuid not null,
    license_id      uuid not null,
    number          bigint not null,
    tier            text not null check (length(tier) <= 50),
    code_hash       bytea not null check (length(code_hash) = 32),
    key             text not null check (length(key) <= 65536),
    created_at      timestamptz not null,
    created_by      text not null check (length(created_by) between 1 and 200),
    expires_at      timestamptz not null,
    claimed_at      timestamptz,
    claimed_by      text check (length(claimed_by) between 1 and 200),
    withdrawn_at    timestamptz
);
create index license_claims_organization_id on license_claims (organization_id, id);
create unique index license_claims_code_key on license_claims (organization_id, code_hash);

-- The most there was of something on a day, UTC, under a license.
create table license_usage (
    organization_id uuid not null references organizations (id),
    day             date not null,
    limit_name      text not null check (length(limit_name) <= 50),
    license_id      uuid not null,
    used            bigint not null check (used >= 0),
    -- How many there might be; null: any number.
    most            bigint check (most >= 0),
    primary key (organization_id, day, limit_name, license_id)
);

-- What was signed of that, each naming the one before.
create table license_statements (
    id              uuid primary key,
    organization_id uuid not null references organizations (id),
    number          bigint not null check (number > 0),
    statement       text not null check (length(statement) <= 4194304),
    digest          bytea not null check (length(digest) = 32),
    first_day       date not null,
    last_day        date not null,
    made_at         timestamptz not null,
    constraint license_statements_number_key unique (organization_id, number)
);
create index license_statements_organization_id on license_statements (organization_id, id);

do $$
declare
    tenant text;
begin
    foreach tenant in array array['license_claims', 'license_usage', 'license_statements'] loop
        execute format('alter table %I enable row level security', tenant);
        execute format('alter table %I force row level security', tenant);
        execute format('create policy own on %I to gantry_app using (organization_id = (select scope_organization()))
                        with check (organization_id = (select scope_organization()))', tenant);
        execute format('grant select, insert, update, delete on %I to gantry_app', tenant);
    end loop;
end
$$;

-- What issuers revoked, the newest list of each of their keys, and each license that one of theirs ever named. The
-- platform's; every organization's licenses are held against it.
create table license_revocation_lists (
    key_id          text primary key check (length(key_id) <= 100),
    organization_id uuid not null default '00000000-0000-7000-8000-000000000000'
                    check (organization_id = '00000000-0000-7000-8000-000000000000'),
    -- Counts the lists of the key: an older one is not taken.
    epoch           bigint not null check (epoch >= 0),
    list            text not null check (length(list) <= 262144),
    made_at         timestamptz not null,
    imported_at     timestamptz not null
);
create table license_revocations (
    license_id      uuid not null,
    key_id          text not null references license_revocation_lists (key_id),
    organization_id uuid not null default '00000000-0000-7000-8000-000000000000'
                    check (organization_id = '00000000-0000-7000-8000-000000000000'),
    revoked_at      timestamptz not null,
    primary key (license_id, key_id)
);
create index license_revocations_key_id on license_revocations (key_id);

do $$
declare
    platforms text;
begin
    foreach platforms in array array['license_revocation_lists', 'license_revocations'] loop
        execute format('alter table %I enable row level security', platforms);
        execute format('alter table %I force row level security', platforms);
        execute format('create policy own on %I to gantry_app using (organization_id = (select scope_organization()))
                        with check (organization_id = (select scope_organization()))', platforms);
        execute format('create policy everybody on %I for select to gantry_app
                        using ((select scope_organization()) is not null)', platforms);
        execute format('grant select, insert, update, delete on %I to gantry_app', platforms);
    end loop;
end
$$;

-- The organizations whose license in force began with this key, and is one of these or was made of one of them; and those whose
-- license goes on for a while without news, which this is. For the platform, which is told what was revoked.
create function licenses_made_of(named uuid[], signed_with text)
    returns table (organization_id uuid, revoked boolean)
    language sql stable security definer set search_path = public, pg_temp
    as $$
        select l.organization_id, l.chain && named from licenses l
         where (select scope_organization()) = '00000000-0000-7000-8000-000000000000'
           and l.state <> 'replaced' and l.anchor = signed_with and (l.chain && named or l.offline_seconds is not null)
         order by l.organization_id
    $$;
revoke execute on function licenses_made_of(uuid[], text) from public;
grant execute on function licenses_made_of(uuid[], text) to gantry_app;
create policy names on licenses for select to gantry_tree using (true);
grant select (organization_id, state, anchor, chain, offline_seconds) on licenses to gantry_tree;

-- The key that signs the record signs what is said of usage as well, and the API makes it if nobody has yet.
grant insert on audit_keys to gantry_app;

-- The most there was since somebody looked: what is written down of a day is exact, however short it was so.
alter table license_counters add column peak bigint not null default 0;

create or replace function licenses_count() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
    as $$
declare
    moment timestamptz := coalesce(nullif(current_setting('gantry.now', true), '')::timestamptz, now());
    full_up license_counters;
begin
    if new.delta > 0 then
        select u.* into full_up from organization_closure c join license_counters u on u.organization_id = c.ancestor_id
         where c.descendant_id = new.organization_id and u.kind = new.kind and u.grows_until <= moment
         order by c.depth limit 1;
        if found then
            raise exception 'the license % allows no more %; what is there stays, and a license in force lets it grow again',
                case full_up.organization_id when scope_organization() then 'in force' else 'above' end,
                replace(full_up.limit_name, '_', ' ')
                using errcode = 'check_violation', constraint = 'license_state', table = 'license_counters';
        end if;
    end if;
    -- From the top, by everybody.
    perform from organization_closure c join license_counters u on u.organization_id = c.ancestor_id
      where c.descendant_id = new.organization_id and u.kind = new.kind and u.most is not null
      order by c.depth desc for update of u;
    update license_counters u set used = u.used + new.delta, peak = greatest(u.peak, u.used + new.delta)
      from organization_closure c
     where c.descendant_id = new.organization_id and u.organization_id = c.ancestor_id and u.kind = new.kind
       and u.most is not null;
    if new.delta > 0 then
        select u.* into full_up from organization_closure c join license_counters u on u.organization_id = c.ancestor_id
         where c.descendant_id = new.organization_id and u.kind = new.kind and u.used > u.most
         order by c.depth limit 1;
        if found then
            if full_up.organization_id = scope_organization() then
                raise exception 'the license allows % %, and % are used; remove some, or get a license for more',
                    full_up.most, replace(full_up.limit_name, '_', ' '), full_up.used - new.delta
                    using errcode = 'check_violation', constraint = 'license_limit', table = 'license_counters';
            end if;
            raise exception 'a license above allows no more %; remove some, or ask whoever gave it',
                replace(full_up.limit_name, '_', ' ')
                using errcode = 'check_violation', constraint = 'license_limit', table = 'license_counters';
        end if;
    end if;
    return null;
end
$$;

grant create on schema public to gantry_tree;
alter function licenses_made_of(uuid[], text) owner to gantry_tree;
revoke create on schema public from gantry_tree;
