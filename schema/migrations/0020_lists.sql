-- squawk-ignore-file require-concurrent-index-creation
-- because no release has these tables yet: there is nothing to block.
-- What lists are filtered by, beside the time that every id begins with. Each of these finds few rows among many.
--
-- Neither the kind of a job nor the type of an event changes, so updates of a job's life stay heap-only.
create index jobs_kind on jobs (organization_id, kind, id);
create index events_type on events (organization_id, type, id) where endpoint_id is null;
create index webhook_attempts_event_id on webhook_attempts (event_id, endpoint_id, id);
create index webhook_attempts_failed on webhook_attempts (endpoint_id, id) where not succeeded;
create index schedules_organization_id on schedules (organization_id, id);

-- What runs is known to the engine's leases only, which name no tenant; a tenant is told of its own. The function
-- belongs to the role that owns what looks over the border for somebody, and nobody logs in as it.
create function running_jobs() returns setof uuid
    language sql stable security definer set search_path = public, pg_temp
    as $$
        select j.id from job_leases l cross join unnest(l.job_ids) as held (id) join jobs j on j.id = held.id
         where j.organization_id = scope_organization() and j.state = 'running'
    $$;
grant select (job_ids) on job_leases to gantry_tree;
grant select (id, organization_id, state) on jobs to gantry_tree;
create policy runs on jobs for select to gantry_tree using (true);
-- Only to hand the function over; the role keeps no right to create.
grant create on schema public to gantry_tree;
alter function running_jobs() owner to gantry_tree;
revoke create on schema public from gantry_tree;
revoke execute on function running_jobs() from public;
grant execute on function running_jobs() to gantry_app;

-- Where few organizations have nearly all rows, the planner would look for the rows of a small one among everybody's:
-- it is told to expect that an organization has few. What is told holds from the next analysis on, for each partition.
alter table events alter column organization_id set (n_distinct = 10000);
do $$
declare
    part regclass;
begin
    for part in select inhrelid::regclass from pg_inherits where inhparent in ('jobs'::regclass, 'job_logs'::regclass) loop
        execute format('alter table %s alter column organization_id set (n_distinct = 10000)', part);
    end loop;
end
$$;
create or replace function job_partition_add(day date) returns void
    language plpgsql security definer set search_path = public, pg_temp
    as $$
declare
    parent text;
    child  text;
    key    text;
    first  uuid := id_at(day::timestamp at time zone 'UTC');
    next   uuid := id_at((day + 1)::timestamp at time zone 'UTC');
begin
    foreach parent in array array['jobs', 'job_logs'] loop
        child := parent || '_' || to_char(day, 'YYYYMMDD');
        if to_regclass(child) is null then
            key := case parent when 'jobs' then 'id' else 'job_id' end;
            -- A queue must not wait behind this; it comes again.
            set local lock_timeout = '2s';
            execute format('create table %I (like %I including all) with (fillfactor = 60)', child, parent);
            execute format('alter table %I alter column organization_id set (n_distinct = 10000)', child);
            execute format('lock table %I in access exclusive mode', parent || '_other');
            execute format('with moved as (delete from %I where %I >= $1 and %I < $2 returning *)
                            insert into %I select * from moved', parent || '_other', key, key, child) using first, next;
            execute format('alter table %I attach partition %I for values from (%L) to (%L)',
                           parent, child, first, next);
        end if;
    end loop;
end
$$;
