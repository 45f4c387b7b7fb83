-- squawk-ignore-file adding-foreign-key-constraint, constraint-missing-not-valid
-- because no release has these tables yet: there is nothing to block.
-- What was told of a license, each once: that it ends, and that much of what it allows is used.
create table license_alerts (
    organization_id uuid not null references organizations (id),
    license_id      uuid not null references licenses (id),
    what            text not null check (length(what) between 1 and 100),
    told_at         timestamptz not null,
    primary key (organization_id, license_id, what)
);
alter table license_alerts enable row level security;
alter table license_alerts force row level security;
create policy own on license_alerts to gantry_app
    using (organization_id = (select scope_organization()))
    with check (organization_id = (select scope_organization()));
grant select, insert, delete on license_alerts to gantry_app;

-- Which organizations have a license, for the job that looks after them all: ids, and nothing else.
create function licenses_watched(after uuid, at_most integer) returns setof uuid
    language sql stable security definer set search_path = public, pg_temp
    as $$
        select distinct organization_id from license_counters
         where after is null or organization_id > after order by organization_id limit at_most
    $$;

-- Whoever counts what is there counts the rows of these tables again.
create function organizations_counted_again(counted regclass, over text) returns void
    language plpgsql set search_path = public, pg_temp
    as $$
begin
    execute format('create policy counted on %s for select to gantry_tree using (true)', counted);
    execute format('grant select (organization_id%s) on %s to gantry_tree', coalesce(', ' || quote_ident(over), ''), counted);
end
$$;
revoke execute on function organizations_counted_again(regclass, text) from public;
select organizations_counted_again('memberships', null), organizations_counted_again('api_keys', 'revoked_at'),
       organizations_counted_again('schedules', 'paused'), organizations_counted_again('webhook_endpoints', null);

create or replace function organizations_count_rows_of(counted regclass, kind text, over text) returns void
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
    perform organizations_counted_again(counted, over);
end
$$;

-- Counts everything again from the rows themselves, whatever was counted before, and puts right what differs. What comes
-- meanwhile is seen with its count or without both. Answers how many counts were wrong.
create function organizations_recount() returns bigint
    language plpgsql security definer set search_path = public, pg_temp
    as $$
declare
    counted record;
    rows    text;
    wrong   bigint;
    mended  bigint := 0;
begin
    -- Nothing is moved meanwhile.
    perform pg_advisory_xact_lock_shared(6083295);
    for counted in
        select t.tgrelid::regclass as source, split_part(encode(t.tgargs, 'escape'), '\000', 1) as kind,
               -- A trigger's argument that is null is the word.
               nullif(nullif(split_part(encode(t.tgargs, 'escape'), '\000', 2), ''), 'null') as over
          from pg_trigger t
         where t.tgname = 'count_added' and t.tgfoid = 'organizations_count'::regproc and t.tgparentid = 0
        union all
        select 'organizations'::regclass, 'organizations', 'deleted_at'
    loop
        rows := case counted.kind
            when 'organizations' then 'select parent_id as organization_id from organizations
                                        where parent_id is not null and deleted_at is null'
            else format('select organization_id from %s', counted.source)
                || case when counted.over is null then ''
                        else format(' where coalesce(%I::text, ''false'') = ''false''', counted.over) end
            end;
        execute format($count$
            with parts as (
                select organization_id, 1::bigint as own from (%s) as there
                union all
                select organization_id, -delta from organization_changes where kind = $1),
            truth as (
                select c.ancestor_id as organization_id, sum(parts.own) filter (where c.depth = 0) as own,
                       sum(parts.own) as total
                  from parts join organization_closure c on c.descendant_id = parts.organization_id
                 group by c.ancestor_id),
            known as (select organization_id, own, total from organization_totals where kind = $1),
            differing as (
                select organization_id, coalesce(truth.own, 0) - coalesce(known.own, 0) as own,
                       coalesce(truth.total, 0) - coalesce(known.total, 0) as total
                  from truth full join known using (organization_id)
                 where (coalesce(truth.own, 0), coalesce(truth.total, 0))
                    <> (coalesce(known.own, 0), coalesce(known.total, 0))
                 order by organization_id),
            put_right as (
                insert into organization_totals as t (organization_id, kind, own, total)
                select organization_id, $1, own, total from differing
                    on conflict (organization_id, kind) do update
                   set own = t.own + excluded.own, total = t.total + excluded.total
                returning 1)
            select count(*) from put_right $count$, rows) into wrong using counted.kind;
        mended := mended + wrong;
    end loop;
    return mended;
end
$$;
revoke execute on function licenses_watched(uuid, integer), organizations_recount() from public;
grant execute on function licenses_watched(uuid, integer), organizations_recount() to gantry_engine;
grant create on schema public to gantry_tree;
alter function licenses_watched(uuid, integer) owner to gantry_tree;
alter function organizations_recount() owner to gantry_tree;
revoke create on schema public from gantry_tree;
