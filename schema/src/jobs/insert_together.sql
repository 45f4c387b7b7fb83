with scope as materialized (
    select set_config('gantry.organization', $1, true)::uuid as organization_id),
new as materialized (
    select * from scope, unnest($3::uuid[], $4::job_state[], $5::text[], $6::text[], $7::smallint[], $8::int[], $9::int[],
                                $10::timestamptz[], $11::timestamptz[], $12::text[], $13::smallint[], $14::text[],
                                $15::bool[], $16::text[], $17::text[], $18::text[])
        as new (id, state, kind, queue, priority, max_attempts, lease_seconds, run_at, expires_at,
                concurrency_key, concurrency_limit, rate_key, careful, payload, traceparent, requested_by)),
dispatch as (
    insert into job_dispatch (id, organization_id, kind, queue, priority, due_at, careful, concurrency_key)
    select id, organization_id, kind, queue, priority, case when state = 'scheduled' then run_at end, careful,
           concurrency_key
      from new)
insert into jobs (id, organization_id, kind, queue, priority, state, max_attempts, lease_seconds, run_at, expires_at,
                  concurrency_key, concurrency_limit, rate_key, payload, traceparent, requested_by, created_at)
select id, organization_id, kind, queue, priority, state, max_attempts, lease_seconds, run_at, expires_at,
       concurrency_key, concurrency_limit, rate_key, payload::jsonb, traceparent, requested_by, $2::timestamptz
  from new
