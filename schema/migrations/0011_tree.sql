-- squawk-ignore-file adding-foreign-key-constraint, adding-not-nullable-field, ban-drop-constraint, constraint-missing-not-valid, disallowed-unique-constraint, require-concurrent-index-creation
-- because no release has these tables yet: there is nothing to block.
-- The tree of organizations: what may stand below what, moves, suspension, deletion; the settings that are inherited
-- down it, the counts that add up along it, and the host names by which organizations are reached.
--
--   platform        the operator's own organization, above all; the first migration of organizations made it
--   top_branch      only directly below the platform
--   master_branch   below any of the above, and below its own kind
--   sub_user        the same
--   end_user        below any of the above; nothing is below it
alter table organizations
    add column type             text,
    -- The parent's type. It follows the parent's, so that the rule below holds whoever changes which of the two.
    add column parent_type      text,
    -- A name for URLs; no two that are below the same one have the same.
    add column slug             text,
    -- Since when, and why, nothing is done in it or below it.
    add column suspended_at     timestamptz,
    add column suspended_reason text,
    -- Since when it can only be restored, until it is purged.
    add column deleted_at       timestamptz,
    -- The topmost that is suspended or deleted, of itself and those above it; null: it works.
    add column held_by          uuid,
    add column updated_at       timestamptz;

-- What there was: the platform, and what was made before organizations had types.
update organizations o
   set type = case when parent_id is null then 'platform'
                   else coalesce((array['top_branch', 'master_branch'])[
                        (select max(depth) from organization_closure c where c.descendant_id = o.id)], 'sub_user') end,
       slug = case when parent_id is null then 'platform' else 'o' || right(replace(id::text, '-', ''), 12) end,
       updated_at = created_at;
update organizations o set parent_type = p.type from organizations p where p.id = o.parent_id;

alter table organizations
    alter column type set not null,
    alter column slug set not null,
    alter column updated_at set not null,
    add constraint organizations_type_key unique (id, type),
    add constraint organizations_place_check check (coalesce(case type
        when 'platform'      then parent_id is null
        when 'top_branch'    then parent_type = 'platform'
        when 'master_branch' then parent_type in ('platform', 'top_branch', 'master_branch')
        when 'sub_user'      then parent_type in ('platform', 'top_branch', 'master_branch', 'sub_user')
        when 'end_user'      then parent_type in ('platform', 'top_branch', 'master_branch', 'sub_user')
    end, false) and (parent_id is null) = (parent_type is null)),
    add constraint organizations_slug_check check (slug ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    add constraint organizations_suspended_check
        check ((suspended_at is null) = (suspended_reason is null) and length(suspended_reason) between 1 and 500),
    drop constraint organizations_parent_id_fkey,
    add constraint organizations_parent_id_fkey
        foreign key (parent_id, parent_type) references organizations (id, type) on update cascade;
create unique index organizations_slug_key on organizations (parent_id, slug) where deleted_at is null;
create unique index organizations_platform_key on organizations ((parent_id is null)) where parent_id is null;
-- Asked about for every job that is claimed, so it has nothing but what is held.
create index organizations_held on organizations (id) where held_by is not null;
create index organizations_deleted_at on organizations (deleted_at) where deleted_at is not null;

alter table organization_closure
    drop constraint organization_closure_ancestor_id_fkey,
    drop constraint organization_closure_descendant_id_fkey,
    add constraint organization_closure_ancestor_id_fkey
        foreign key (ancestor_id) references organizations (id) on delete cascade,
    add constraint organization_closure_descendant_id_fkey
        foreign key (descendant_id) references organizations (id) on delete cascade;
-- A subtree from the top, level by level.
create index organization_closure_levels on organization_closure (ancestor_id, depth, descendant_id);

-- What an organization has, and what all below it and itself have together. Whatever is counted adds a row to
-- `organization_changes`, which nobody waits for; the engine adds them up along the tree now and then. What is asked for is the
-- sum of both, so it is exact at any moment.
create table organization_totals (
    organization_id uuid not null references organizations (id) on delete cascade,
    kind            text not null,
    own             bigint not null,
    total           bigint not null,
    primary key (organization_id, kind)
);
create table organization_changes (
    id              bigint generated by default as identity primary key,
    organization_id uuid not null,
    kind            text not null,
    delta           bigint not null
);

-- What an organization has set. Those below it inherit it unless they set it themselves, or it is enforced.
create table organization_settings (
    organization_id uuid not null references organizations (id),
    name            text not null check (length(name) between 1 and 100),
    value           jsonb not null,
    -- Those below cannot set it to something else.
    enforced        boolean not null default false,
    updated_at      timestamptz not null,
    primary key (organization_id, name)
);

-- The host names by which an organization and those below it are reached.
create table organization_hosts (
    host            text primary key check (host = lower(host) and length(host) between 1 and 253),
    organization_id uuid not null references organizations (id),
    created_at      timestamptz not null
);
create index organization_hosts_organization_id on organization_hosts (organization_id, host);

do $$
declare
    tenant text;
begin
    foreach tenant in array array['organization_totals', 'organization_changes', 'organization_settings',
                                  'organization_hosts'] loop
        execute format('alter table %I enable row level security', tenant);
        execute format('alter table %I force row level security', tenant);
    end loop;
end
$$;

-- Itself, those below it, and the line of those above it, of which it learns no more than the ids.
alter policy below_me on organization_closure
    using (ancestor_id = (select scope_organization()) or descendant_id = (select scope_organization()));
-- As before, and looked up one by one: an organization with ten thousand below it reads a page of them.
alter policy below_me on organizations
    using (exists (select from organization_closure c
                    where c.ancestor_id = (select scope_organization()) and c.descendant_id = organizations.id))
    -- What is above stays as it is; the trigger below sees to moves.
    with check (id = scope_organization() or exists (select from organization_closure c
                    where c.ancestor_id = (select scope_organization()) and c.descendant_id = organizations.parent_id));
create policy maintains on organizations to gantry_tree using (true) with check (true);
create policy maintains on organization_totals to gantry_tree using (true) with check (true);
create policy maintains on organization_changes to gantry_tree using (true) with check (true);
create policy below_me on organization_totals for select to gantry_app
    using (exists (select from organization_closure c
                    where c.ancestor_id = (select scope_organization()) and c.descendant_id = organization_id));
create policy below_me on organization_changes for select to gantry_app
    using (exists (select from organization_closure c
                    where c.ancestor_id = (select scope_organization()) and c.descendant_id = organization_id));
create policy own on organization_settings to gantry_app
    using (organization_id = (select scope_organization()))
    with check (organization_id = (select scope_organization()));
create policy inherited on organization_settings for select to gantry_app
    using (organization_id in (select ancestor_id from organization_closure
                                where descendant_id = (select scope_organization())));
create policy own on organization_hosts to gantry_app
    using (organization_id = (select scope_organization()))
    with check (organization_id = (select scope_organization()));
-- A host is looked up before anybody's scope is known.
create policy presented on organization_hosts for select to gantry_app
    using (host = nullif(current_setting('gantry.presented_host', true), ''));

grant select on organization_totals, organization_changes to gantry_app;
grant select, insert, update, delete on organization_settings, organization_hosts to gantry_app;
-- An organization that goes for good goes with all it had.
grant delete on organizations, api_keys to gantry_app;
grant select, update (held_by) on organizations to gantry_tree;
grant update, delete on organization_closure to gantry_tree;
grant select, insert, update, delete on organization_totals, organization_changes to gantry_tree;
grant select (held_by) on organizations to gantry_engine;

-- Whoever changes the tree does so one after the other; those who only add to it do so together.
create function organizations_take_turns() returns trigger
    language plpgsql set search_path = public, pg_temp
    as $$
begin
    -- With a view of the tree that is older than its turn, it could miss what was committed just before.
    if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
        raise exception 'the tree of organizations is changed in read committed only'
            using errcode = 'feature_not_supported';
    end if;
    if tg_op = 'INSERT' then
        perform pg_advisory_xact_lock_shared(6083295);
    else
        perform pg_advisory_xact_lock(6083295);
    end if;
    return null;
end
$$;
create trigger organizations_take_turns_to_add before insert on organizations
    for each statement execute function organizations_take_turns();
create trigger organizations_take_turns_to_change before update of parent_id, suspended_at, deleted_at or delete
    on organizations for each statement execute function organizations_take_turns();

-- Before a row gets its place, or gets it back: what it takes over from its parent, and whether that may be.
create function organizations_place() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
    as $$
declare
    parent organizations;
begin
    select * into parent from organizations where id = new.parent_id;
    if parent.deleted_at is not null then
        raise exception 'nothing is put below a deleted organization'
            using errcode = 'check_violation', constraint = 'organizations_parent_deleted', table = 'organizations';
    end if;
    if tg_op = 'INSERT' then
        new.held_by := parent.held_by;
    elsif new.parent_id is distinct from old.parent_id and scope_organization() is not null and not (
           exists (select from organization_closure
                    where ancestor_id = scope_organization() and descendant_id = old.parent_id)
       and exists (select from organization_closure
                    where ancestor_id = scope_organization() and descendant_id = new.parent_id)) then
        raise exception 'an organization is moved by one that both places are below of'
            using errcode = 'insufficient_privilege';
    end if;
    new.parent_type := parent.type;
    return new;
end
$$;
create trigger organizations_place_new before insert on organizations
    for each row execute function organizations_place();
create trigger organizations_place_moved before update of parent_id, deleted_at on organizations
    for each row when (old.parent_id is distinct from new.parent_id
                    or (old.deleted_at is not null and new.deleted_at is null))
    execute function organizations_place();

-- Nothing is left below a deleted organization but what was deleted before it.
create function organizations_end() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
    as $$
begin
    if exists (select from organizations where parent_id = new.id and deleted_at is null) then
        raise exception 'an organization with others below it is not deleted'
            using errcode = 'check_violation', constraint = 'organizations_has_children', table = 'organizations';
    end if;
    return new;
end
$$;
create trigger organizations_end before update of deleted_at on organizations
    for each row when (old.deleted_at is null and new.deleted_at is not null) execute function organizations_end();

-- Sets for an organization and those below it by what they are held.
create function organizations_hold(root uuid) returns void
    language sql security definer set search_path = public, pg_temp
    as $$
    with held as (
        select below.descendant_id as id,
               (select above.ancestor_id
                  from organization_closure above join organizations a on a.id = above.ancestor_id
                 where above.descendant_id = below.descendant_id
                   and (a.suspended_at is not null or a.deleted_at is not null)
                 order by above.depth desc limit 1) as held_by
          from organization_closure below where below.ancestor_id = root)
    update organizations o set held_by = held.held_by from held
     where o.id = held.id and o.held_by is distinct from held.held_by
    $$;
revoke execute on function organizations_hold(uuid) from public;

create function organizations_held() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
    as $$
begin
    if (old.deleted_at is null) <> (new.deleted_at is null) then
        insert into organization_changes (organization_id, kind, delta)
        values (new.parent_id, 'organizations', case when new.deleted_at is null then 1 else -1 end);
    end if;
    perform organizations_hold(new.id);
    return null;
end
$$;
create trigger organizations_held after update of suspended_at, deleted_at on organizations
    for each row when ((old.suspended_at is null) <> (new.suspended_at is null)
                    or (old.deleted_at is null) <> (new.deleted_at is null))
    execute function organizations_held();

create or replace function organizations_close() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
    as $$
begin
    insert into organization_closure (ancestor_id, descendant_id, depth)
    select above.ancestor_id, new.id, above.depth + 1
      from organization_closure above
     where above.descendant_id = new.parent_id
    union all
    select new.id, new.id, 0;
    insert into organization_changes (organization_id, kind, delta)
    select new.parent_id, 'organizations', 1 where new.parent_id is not null;
    return null;
end
$$;

-- After a move: the closure of everything that was moved, what it is held by, and the totals of those that got or lost it.
create function organizations_moved() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
    as $$
begin
    if exists (select from organization_closure where ancestor_id = new.id and descendant_id = new.parent_id) then
        raise exception 'an organization cannot be below itself'
            using errcode = 'check_violation', constraint = 'organizations_no_cycle', table = 'organizations';
    end if;
    -- One statement, so that no two of its parts can disagree about what the tree was.
    with moved as materialized (
        select descendant_id as id, depth from organization_closure where ancestor_id = new.id),
    above as materialized (
        select ancestor_id as id, depth + 1 as depth from organization_closure where descendant_id = new.parent_id),
    were_above as materialized (
        select ancestor_id as id from organization_closure where descendant_id = new.id and depth > 0),
    lost as (
        delete from organization_closure c using moved
         where c.descendant_id = moved.id and c.ancestor_id in (select id from were_above except select id from above)),
    gained as (
        insert into organization_closure as c (ancestor_id, descendant_id, depth)
        select above.id, moved.id, above.depth + moved.depth from above cross join moved
            on conflict (ancestor_id, descendant_id) do update set depth = excluded.depth
         where c.depth <> excluded.depth),
    shifts as (
        select id, -1 as sign from were_above where id not in (select id from above)
        union all
        select id, 1 from above where id not in (select id from were_above))
    insert into organization_totals as t (organization_id, kind, own, total)
    select shifts.id, its.kind, 0, shifts.sign * its.total
      from shifts cross join organization_totals its where its.organization_id = new.id
        on conflict (organization_id, kind) do update set total = t.total + excluded.total;
    insert into organization_changes (organization_id, kind, delta)
    select place.id, 'organizations', place.sign
      from (values (old.parent_id, -1), (new.parent_id, 1)) as place (id, sign) where new.deleted_at is null;
    perform organizations_hold(new.id);
    return null;
end
$$;
create trigger organizations_moved after update of parent_id on organizations
    for each row when (old.parent_id is distinct from new.parent_id) execute function organizations_moved();

-- The platform stays; others go after they were deleted, and their ids never change.
create function organizations_keep() returns trigger
    language plpgsql set search_path = public, pg_temp
    as $$
begin
    raise exception 'an organization is deleted before it is removed, the platform never, and ids stay'
        using errcode = 'restrict_violation', constraint = 'organizations_keep', table = 'organizations';
end
$$;
create trigger organizations_keep before delete on organizations
    for each row when (old.deleted_at is null) execute function organizations_keep();
create trigger organizations_keep_ids before update on organizations
    for each row when (old.id <> new.id or (new.parent_id is null and new.deleted_at is not null))
    execute function organizations_keep();

-- What an organization that goes for good has had leaves the totals of those above it.
create function organizations_removed() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
    as $$
begin
    update organization_totals t set total = t.total - gone.own
      from organization_totals gone, organization_closure c
     where gone.organization_id = old.id and c.descendant_id = old.id and c.depth > 0
       and t.organization_id = c.ancestor_id and t.kind = gone.kind;
    delete from organization_changes where organization_id = old.id;
    return old;
end
$$;
create trigger organizations_removed before delete on organizations
    for each row when (old.deleted_at is not null) execute function organizations_removed();

-- Counts the rows of a table for their organizations. The second argument names the column that says a row counts no
-- longer: a moment, or true.
create function organizations_count() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
    as $$
declare
    counted text := tg_argv[0];
    over    text := coalesce(tg_argv[1], '');
begin
    if tg_level = 'ROW' then
        insert into organization_changes (organization_id, kind, delta)
        values (new.organization_id, counted,
                case coalesce(to_jsonb(new) ->> over, 'false') when 'false' then 1 else -1 end);
    elsif tg_op = 'INSERT' then
        insert into organization_changes (organization_id, kind, delta)
        select organization_id, counted, count(*) from came
         where coalesce(to_jsonb(came) ->> over, 'false') = 'false' group by organization_id;
    else
        insert into organization_changes (organization_id, kind, delta)
        select organization_id, counted, -count(*) from went
         where coalesce(to_jsonb(went) ->> over, 'false') = 'false' group by organization_id;
    end if;
    return null;
end
$$;

-- Lets the rows of a table be counted, those that are there already too.
create function organizations_count_rows_of(counted regclass, kind text, over text) returns void
    language plpgsql set search_path = public, pg_temp
    as $$
begin
    execute format('create trigger count_added after insert on %s referencing new table as came
                    for each statement execute function organizations_count(%L, %L)', counted, kind, over);
    execute format('create trigger count_removed after delete on %s referencing old table as went
                    for each statement execute function organizations_count(%L, %L)', counted, kind, over);
    if over is not null then
        execute format('create trigger count_changed after update of %I on %s for each row
                        when ((coalesce(old.%1$I::text, ''false'') = ''false'') <> (coalesce(new.%1$I::text, ''false'') = ''false''))
                        execute function organizations_count(%3$L, %1$L)', over, counted, kind);
    end if;
end
$$;
revoke execute on function organizations_count_rows_of(regclass, text, text) from public;
select organizations_count_rows_of('memberships', 'members', null),
       organizations_count_rows_of('api_keys', 'api_keys', 'revoked_at'),
       organizations_count_rows_of('schedules', 'schedules', 'paused'),
       organizations_count_rows_of('webhook_endpoints', 'webhook_endpoints', null);
-- What there was before anything was counted.
insert into organization_changes (organization_id, kind, delta)
select parent_id, 'organizations', count(*) from organizations where parent_id is not null group by parent_id
union all
select organization_id, 'members', count(*) from memberships group by organization_id
union all
select organization_id, 'api_keys', count(*) from api_keys where revoked_at is null group by organization_id
union all
select organization_id, 'schedules', count(*) from schedules where not paused group by organization_id
union all
select organization_id, 'webhook_endpoints', count(*) from webhook_endpoints group by organization_id;

-- Adds the oldest changes up along the tree. Answers how many.
create function organizations_add_up(at_most integer) returns bigint
    language plpgsql security definer set search_path = public, pg_temp
    as $$
declare
    taken bigint;
begin
    -- Nothing is moved meanwhile.
    perform pg_advisory_xact_lock_shared(6083295);
    with oldest as (
        select id from organization_changes order by id limit at_most for update skip locked),
    gone as (
        delete from organization_changes c using oldest where c.id = oldest.id returning c.*),
    sums as (
        select organization_id, kind, sum(delta) as delta from gone group by organization_id, kind),
    -- In the same order by everybody.
    along as (
        select c.ancestor_id, sums.kind, sum(sums.delta) filter (where c.depth = 0) as own, sum(sums.delta) as total
          from sums join organization_closure c on c.descendant_id = sums.organization_id
         group by c.ancestor_id, sums.kind order by c.ancestor_id, sums.kind),
    added as (
        insert into organization_totals as t (organization_id, kind, own, total)
        select ancestor_id, kind, coalesce(own, 0), total from along
            on conflict (organization_id, kind) do update
           set own = t.own + excluded.own, total = t.total + excluded.total)
    select count(*) into taken from gone;
    return taken;
end
$$;
revoke execute on function organizations_add_up(integer) from public;
grant execute on function organizations_add_up(integer) to gantry_engine;

-- What is to be added to the totals of an organization of the scope: changes that were not added up yet, less what deleted
-- organizations have, which is not counted while they can only be restored.
create view organization_adjustments with (security_barrier) as
with scope as (
    select descendant_id as id from organization_closure where ancestor_id = (select scope_organization()))
select c.ancestor_id as organization_id, changes.kind,
       case c.depth when 0 then changes.delta else 0 end as own, changes.delta as total
  from organization_changes changes
  join organizations o on o.id = changes.organization_id and o.deleted_at is null
  join organization_closure c on c.descendant_id = o.id
 where c.ancestor_id in (select id from scope)
union all
select c.ancestor_id, t.kind, 0, -t.own
  from organizations o
  join organization_totals t on t.organization_id = o.id
  join organization_closure c on c.descendant_id = o.id and c.depth > 0
 where o.deleted_at is not null and c.ancestor_id in (select id from scope);
grant select on organization_adjustments to gantry_app;

-- Only to hand the functions over; the role keeps no right to create.
grant create on schema public to gantry_tree;
alter function organizations_place() owner to gantry_tree;
alter function organizations_end() owner to gantry_tree;
alter function organizations_hold(uuid) owner to gantry_tree;
alter function organizations_held() owner to gantry_tree;
alter function organizations_moved() owner to gantry_tree;
alter function organizations_removed() owner to gantry_tree;
alter function organizations_count() owner to gantry_tree;
alter function organizations_add_up(integer) owner to gantry_tree;
revoke create on schema public from gantry_tree;
