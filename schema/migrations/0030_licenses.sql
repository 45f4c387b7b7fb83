-- squawk-ignore-file adding-foreign-key-constraint, constraint-missing-not-valid, require-concurrent-index-creation
-- because no release has these tables yet: there is nothing to block.
-- Licenses: what organizations may use and how many of it there may be. The keys say it, these tables say which one is in force.

-- What a license of a tier has, unless whoever gives it says otherwise. The platform's, as data.
create table license_tiers (
    tier            text primary key check (tier ~ '^[a-z][a-z0-9_]{0,49}$'),
    organization_id uuid not null default '00000000-0000-7000-8000-000000000000'
                    check (organization_id = '00000000-0000-7000-8000-000000000000'),
    features        text[] not null,
    -- By name; null: any number.
    limits          jsonb not null check (jsonb_typeof(limits) = 'object'),
    -- From the smallest.
    place           smallint not null
);
insert into license_tiers (tier, features, limits, place) values
    ('starter', array['api_access', 'server_provisioning'],
     '{"servers": 5, "applications": 10, "domains": 3, "users": 3, "cloud_accounts": 1, "concurrent_provisioning": 1,
       "child_organizations": 0, "deployments_per_month": 50}', 1),
    ('professional', array['api_access', 'bulk_operations', 'domain_management', 'infrastructure_provisioning',
                           'payment_processing', 'server_provisioning', 'ssl_management', 'terraform_integration'],
     '{"servers": 25, "applications": 100, "domains": 25, "users": 10, "cloud_accounts": 3, "concurrent_provisioning": 3,
       "child_organizations": 4, "deployments_per_month": null}', 2),
    ('enterprise', array['advanced_monitoring', 'api_access', 'audit_logging', 'backup_management', 'bulk_operations',
                         'domain_management', 'infrastructure_provisioning', 'load_balancing', 'multi_cloud_support',
                         'payment_processing', 'server_provisioning', 'ssl_management', 'sso_integration',
                         'terraform_integration', 'white_label_branding'],
     '{"servers": null, "applications": null, "domains": null, "users": null, "cloud_accounts": null,
       "concurrent_provisioning": 10, "child_organizations": null, "deployments_per_month": null}', 3);

-- What the organization signs licenses with. A public key is believed because its secret opens.
create table license_issuers (
    id              uuid primary key,
    organization_id uuid not null references organizations (id),
    secret          bytea not null,
    created_at      timestamptz not null
);
create index license_issuers_organization_id on license_issuers (organization_id, id);

-- Keys that were given. One of an organization is in force: the one with the highest number.
create table licenses (
    id              uuid primary key,
    organization_id uuid not null references organizations (id),
    key             text not null check (length(key) <= 65536),
    number          bigint not null check (number >= 0),
    state           text not null check (state in ('active', 'suspended', 'revoked', 'replaced')),
    reason          text check (length(reason) between 1 and 500),
    -- The latest moment at which it was looked at: clocks that go back gain nothing.
    seen_at         timestamptz not null,
    created_at      timestamptz not null,
    updated_at      timestamptz not null,
    constraint licenses_number_key unique (organization_id, number)
);
create unique index licenses_in_force_key on licenses (organization_id) where state <> 'replaced';

-- How many there may be of what is counted in the tree, in the organization and below it, and until when something is
-- added: what licenses mean for a row that is inserted.
create table license_counters (
    organization_id uuid not null references organizations (id),
    -- The kind of the tree's counts.
    kind            text not null,
    limit_name      text not null,
    -- Null: any number, and then nothing is counted here.
    most            bigint check (most >= 0),
    used            bigint not null default 0,
    -- Null: for good.
    grows_until     timestamptz,
    primary key (organization_id, kind)
);

do $$
declare
    tenant text;
begin
    foreach tenant in array array['license_tiers', 'license_issuers', 'licenses', 'license_counters'] loop
        execute format('alter table %I enable row level security', tenant);
        execute format('alter table %I force row level security', tenant);
        execute format('create policy own on %I to gantry_app using (organization_id = (select scope_organization()))
                        with check (organization_id = (select scope_organization()))', tenant);
        execute format('create policy bootstrap on %I to %I using (true) with check (true)', tenant, current_user);
        execute format('grant select, insert, update, delete on %I to gantry_app', tenant);
    end loop;
end
$$;
create policy everybody on license_tiers for select to gantry_app
    using ((select scope_organization()) is not null);
-- What is above may be what a license was made of, or what an organization without one has.
create policy inherited on licenses for select to gantry_app
    using (organization_id in (select ancestor_id from organization_closure
                                where descendant_id = (select scope_organization())));
create policy maintains on license_counters to gantry_tree using (true) with check (true);
grant select, update on license_counters to gantry_tree;

-- Whatever is counted passes here, by whichever statement it came, and holds the counters of all that are above until the
-- transaction ends: two that come at once cannot both have the last place.
create function licenses_count() returns trigger
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
    update license_counters u set used = u.used + new.delta
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
create trigger licenses_count after insert on organization_changes
    for each row execute function licenses_count();

-- Counts anew what the organization's license limits, from what the tree has counted.
create function licenses_recount(root uuid) returns void
    language plpgsql security definer set search_path = public, pg_temp
    as $$
begin
    perform from license_counters where organization_id = root order by kind for update;
    update license_counters u set used = (
        select coalesce(sum(part.total), 0) from (
            select t.total from organization_totals t where t.organization_id = root and t.kind = u.kind
            union all
            select changes.delta from organization_closure c
              join organizations o on o.id = c.descendant_id and o.deleted_at is null
              join organization_changes changes on changes.organization_id = o.id
             where c.ancestor_id = root and changes.kind = u.kind
            union all
            select -t.own from organization_closure c
              join organizations o on o.id = c.descendant_id and o.deleted_at is not null
              join organization_totals t on t.organization_id = o.id
             where c.ancestor_id = root and c.depth > 0 and t.kind = u.kind) as part)
     where u.organization_id = root and u.most is not null;
end
$$;
revoke execute on function licenses_recount(uuid) from public;

-- The same of whoever asks, and of nobody else.
create function licenses_recount() returns void
    language sql security definer set search_path = public, pg_temp
    as $$ select licenses_recount(scope_organization()) $$;
revoke execute on function licenses_recount() from public;
grant execute on function licenses_recount() to gantry_app;

-- Before other limits are in force, what is being added comes to its end, and what comes then waits: it is counted by the
-- ones or by the others.
create function licenses_settle() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
    as $$
begin
    lock table organization_changes in share row exclusive mode;
    return null;
end
$$;
create trigger settle before insert or delete on license_counters
    for each statement execute function licenses_settle();

-- What moves, is deleted or restored takes along what it has.
create function licenses_moved() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
    as $$
declare
    place record;
begin
    for place in
        select distinct u.organization_id, u.depth from (
            select c.ancestor_id as organization_id, max(c.depth) over (partition by c.ancestor_id) as depth
              from organization_closure c where c.descendant_id in (new.id, old.parent_id)) u
         where exists (select from license_counters k where k.organization_id = u.organization_id)
         order by u.depth desc, u.organization_id
    loop
        perform licenses_recount(place.organization_id);
    end loop;
    if new.parent_id is distinct from old.parent_id and exists (
        select from organization_closure c join license_counters u on u.organization_id = c.ancestor_id
         where c.descendant_id = new.parent_id and u.used > u.most
           and not exists (select from organization_closure was
                            where was.ancestor_id = u.organization_id and was.descendant_id = old.parent_id)) then
        raise exception 'a license above the new place allows no more; remove some, or get a license for more'
            using errcode = 'check_violation', constraint = 'license_limit', table = 'license_counters';
    end if;
    return null;
end
$$;
create trigger recounted after update of parent_id, deleted_at on organizations
    for each row when (old.parent_id is distinct from new.parent_id
                    or (old.deleted_at is null) <> (new.deleted_at is null))
    execute function licenses_moved();

grant create on schema public to gantry_tree;
alter function licenses_count() owner to gantry_tree;
alter function licenses_recount(uuid) owner to gantry_tree;
alter function licenses_recount() owner to gantry_tree;
alter function licenses_moved() owner to gantry_tree;
alter function licenses_settle() owner to gantry_tree;
revoke create on schema public from gantry_tree;
