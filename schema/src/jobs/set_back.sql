with setback as materialized (
    select * from unnest($1::uuid[], $2::int[], $3::job_state[], $4::timestamptz[], $5::int[], $6::jsonb[])
        as setback (id, attempt, state, run_at, uncounted, failure)),
settled as (
    update jobs j
       set state = case when s.state in ('scheduled', 'available') and j.cancel_requested_at is not null
                        then 'cancelled' else s.state end,
           run_at = coalesce(s.run_at, j.run_at),
           uncounted = j.uncounted + s.uncounted,
           -- The worker knows when it began; of many failures the last fifty are kept.
           failures = case when jsonb_array_length(j.failures) >= 50 then j.failures - 0 else j.failures end
                      || (s.failure || jsonb_build_object('started_at', j.started_at)),
           finished_at = case when s.state in ('discarded', 'cancelled') or j.cancel_requested_at is not null
                              then $7::timestamptz end
      from setback s
     where j.id = s.id and j.attempt = s.attempt and j.state = 'running'
 returning j.*),
again as (
    insert into job_dispatch (id, organization_id, kind, queue, priority, due_at, careful, concurrency_key)
    select id, organization_id, kind, queue, priority, case when state = 'scheduled' then run_at end,
           concurrency_key is not null or rate_key is not null or unique_key is not null, concurrency_key
      from settled where state in ('scheduled', 'available')),
dead as (
    insert into job_unsuccessful (id, organization_id, kind, queue, state, finished_at)
    select id, organization_id, kind, queue, state, $7 from settled where state in ('discarded', 'cancelled')
        on conflict (id) do update set state = excluded.state, finished_at = excluded.finished_at)
select id, organization_id, queue, priority, state as "state: State", has_dependents,
       state in ('discarded', 'cancelled') as "ended!",
       (concurrency_key is not null or rate_key is not null or unique_key is not null) as "keyed!"
  from settled
