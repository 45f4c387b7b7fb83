with waiting as (
    select d.job_id,
           bool_and(p.state = 'succeeded') as done,
           bool_or(p.state in ('discarded', 'cancelled')) as failed
      from job_dependencies d
      join jobs p on p.id = d.depends_on
     where d.job_id = any($1) and not d.resolved
     group by 1),
moved as (
    update jobs j
       set state = (case when w.failed then 'cancelled' when j.run_at > $2::timestamptz then 'scheduled' else 'available' end)::job_state,
           finished_at = case when w.failed then $2 end,
           failures = case when w.failed then j.failures || jsonb_build_object('attempt', 0, 'ended_at', $2,
                          'outcome', 'cancelled', 'error', 'a job it waited for did not succeed') else j.failures end
      from waiting w
     where j.id = w.job_id and j.state = 'waiting' and (w.done or w.failed)
 returning j.*, (j.concurrency_key is not null or j.rate_key is not null or j.unique_key is not null) as careful),
resolved as (
    update job_dependencies d set resolved = true from moved m where d.job_id = m.id),
dispatch as (
    insert into job_dispatch (id, organization_id, kind, queue, priority, due_at, careful, concurrency_key)
    select id, organization_id, kind, queue, priority, case when state = 'scheduled' then run_at end, careful,
           concurrency_key
      from moved where state <> 'cancelled'),
dead as (
    insert into job_unsuccessful (id, organization_id, kind, queue, state, finished_at)
    select id, organization_id, kind, queue, state, $2 from moved where state = 'cancelled'),
keys as (
    delete from job_unique u using moved m where u.job_id = m.id and m.state = 'cancelled')
select id as "id: JobId", organization_id as "organization: OrganizationId", queue, priority, state as "state: State", careful as "careful!"
  from moved
