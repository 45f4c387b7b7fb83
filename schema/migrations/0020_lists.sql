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
