-- squawk-ignore-file adding-foreign-key-constraint, ban-drop-constraint, constraint-missing-not-valid, require-concurrent-index-creation
-- because no release has these tables yet: there is nothing to block.
-- What members may do: roles that organizations make themselves, the owner an organization always keeps, and the
-- support that one above it gives for a while.
create table custom_roles (
    id              uuid primary key,
    organization_id uuid not null references organizations (id),
    name            text not null check (length(name) between 1 and 100),
    description     text not null default '' check (length(description) <= 500),
    -- Entries of the catalogue; a word a release does not know allows nothing.
    permissions     text[] not null,
    created_at      timestamptz not null,
    updated_at      timestamptz not null,
    constraint custom_roles_organization_key unique (organization_id, id)
);
create unique index custom_roles_name_key on custom_roles (organization_id, lower(name));

alter table memberships
    add column custom_role_id uuid,
    drop constraint memberships_role,
    add constraint memberships_role
        check (role in ('owner', 'admin', 'member', 'viewer', 'custom') and (role = 'custom') = (custom_role_id is not null)),
    add constraint memberships_custom_role_fkey
        foreign key (organization_id, custom_role_id) references custom_roles (organization_id, id);
create index memberships_custom_role_id on memberships (organization_id, custom_role_id) where custom_role_id is not null;
create index memberships_owners on memberships (organization_id) where role = 'owner' and state = 'active';

-- Who is behind a key: it allows no more than he may himself. Null: the organization.
alter table api_keys add column owner_id uuid references people (id);
create index api_keys_owner_id on api_keys (owner_id) where owner_id is not null;

-- Once it has an owner, an organization has one until it is deleted.
create function memberships_keep_an_owner() returns trigger
    language plpgsql set search_path = public, pg_temp
    as $$
begin
    if tg_op = 'UPDATE' and new.role = 'owner' and new.state = 'active'
       and new.organization_id = old.organization_id and new.person_id = old.person_id then
        return new;
    end if;
    -- One after the other, and each sees what was committed before its turn.
    if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
        raise exception 'owners are changed in read committed only' using errcode = 'feature_not_supported';
    end if;
    perform pg_advisory_xact_lock(hashtextextended(old.organization_id::text, 6083296));
    if not exists (select from memberships
                    where organization_id = old.organization_id and role = 'owner' and state = 'active'
                      and person_id <> old.person_id)
       and exists (select from organizations where id = old.organization_id and deleted_at is null) then
        raise exception 'an organization keeps an owner'
            using errcode = 'check_violation', constraint = 'memberships_last_owner', table = 'memberships';
    end if;
    return case tg_op when 'UPDATE' then new else old end;
end
$$;
create trigger memberships_keep_an_owner before update or delete on memberships
    for each row when (old.role = 'owner' and old.state = 'active') execute function memberships_keep_an_owner();

-- What one above an organization may do in it for a while, who holds it, and why.
create table support_grants (
    id              uuid primary key,
    organization_id uuid not null references organizations (id),
    -- The one above it; it may be gone when this is read.
    granted_to      uuid not null,
    -- Who may use it, as jobs name on whose behalf they are.
    holder          text not null check (length(holder) between 1 and 200),
    permissions     text[] not null,
    reason          text not null check (length(reason) between 1 and 500),
    created_at      timestamptz not null,
    expires_at      timestamptz not null,
    ended_at        timestamptz,
    ended_by        text,
    constraint support_grants_lasts check (expires_at > created_at and expires_at <= created_at + interval '1 day'),
    constraint support_grants_from_above check (organization_id <> granted_to)
);
create index support_grants_organization_id on support_grants (organization_id, id);
create index support_grants_granted_to on support_grants (granted_to, organization_id, holder);

do $$
declare
    tenant text;
begin
    foreach tenant in array array['custom_roles', 'support_grants'] loop
        execute format('alter table %I enable row level security', tenant);
        execute format('alter table %I force row level security', tenant);
        execute format('create policy bootstrap on %I to %I using (true) with check (true)', tenant, current_user);
    end loop;
end
$$;
create policy own on custom_roles to gantry_app
    using (organization_id = (select scope_organization()))
    with check (organization_id = (select scope_organization()));
grant select, insert, update, delete on custom_roles to gantry_app;

create policy own on support_grants to gantry_app
    using (organization_id = (select scope_organization()))
    with check (organization_id = (select scope_organization()));
create policy from_above on support_grants to gantry_app
    using (granted_to = (select scope_organization()))
    with check (granted_to = (select scope_organization())
            and exists (select from organization_closure c
                         where c.ancestor_id = (select scope_organization())
                           and c.descendant_id = support_grants.organization_id and c.depth > 0));
grant select, insert, delete, update (ended_at, ended_by) on support_grants to gantry_app;

-- A key is known together with what its owner may do now, in one statement.
create policy behind_key on memberships for select to gantry_app
    using (exists (select from api_keys k
                    where k.hash = (select presented_key())
                      and k.organization_id = memberships.organization_id and k.owner_id = memberships.person_id));
create policy behind_key on custom_roles for select to gantry_app
    using (exists (select from api_keys k
                     join memberships m on m.organization_id = k.organization_id and m.person_id = k.owner_id
                    where k.hash = (select presented_key())
                      and m.organization_id = custom_roles.organization_id and m.custom_role_id = custom_roles.id));
create policy of_presented on custom_roles for select to gantry_app
    using (exists (select from memberships m
                    where m.person_id = (select presented_person())
                      and m.organization_id = custom_roles.organization_id and m.custom_role_id = custom_roles.id));
create policy of_himself on custom_roles for select to gantry_app
    using (exists (select from memberships m
                    where m.person_id = (select scope_person())
                      and m.organization_id = custom_roles.organization_id and m.custom_role_id = custom_roles.id));

-- Every API process hears, when it is committed, of organizations whose keys and members may do something else than
-- before, and of those that are held or go on. What it hears of it looks up again.
create function access_changed() returns trigger
    language plpgsql set search_path = public, pg_temp
    as $$
begin
    perform pg_notify('gantry_access', old.organization_id::text);
    return null;
end
$$;
create trigger access_changed after update or delete on memberships
    for each row execute function access_changed();
create trigger access_changed after update on custom_roles
    for each row when (old.permissions is distinct from new.permissions) execute function access_changed();
create trigger access_changed after update of revoked_at, expires_at, scopes, owner_id on api_keys
    for each row execute function access_changed();

create function organizations_standing_changed() returns trigger
    language plpgsql set search_path = public, pg_temp
    as $$
begin
    perform pg_notify('gantry_standing', new.id::text);
    return null;
end
$$;
create trigger standing_changed after update on organizations
    for each row when (old.held_by is distinct from new.held_by) execute function organizations_standing_changed();
