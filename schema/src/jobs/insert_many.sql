with new as materialized (
    select * from unnest($3::uuid[], $4::job_state[], $5::text[], $6::text[], $7::smallint[], $8::int[], $9::int[],
                         $10::timestamptz[], $11::timestamptz[], $12::text[], $13::text[], $14::smallint[],
                         $15::text[], $16::bool[], $17::text[], $18::text[], $19::text[])
        as new (id, state, kind, queue, priority, max_attempts, lease_seconds, run_at, expires_at, unique_key,
                concurrency_key, concurrency_limit, rate_key, careful, payload, traceparent, requested_by)),
dispatch as (
    insert into job_dispatch (id, organization_id, kind, queue, priority, due_at, careful, concurrency_key)
    select id, $1::uuid, kind, queue, priority, case when state = 'scheduled' then run_at end, careful, concurrency_key
      from new where state <> 'waiting')
insert into jobs (id, organization_id, kind, queue, priority, state, max_attempts, lease_seconds, run_at, expires_at,
                  unique_key, concurrency_key, concurrency_limit, rate_key, payload, traceparent, requested_by,
                  created_at)
select id, $1, kind, queue, priority, state, max_attempts, lease_seconds, run_at, expires_at, unique_key,
       concurrency_key, concurrency_limit, rate_key, payload::jsonb, traceparent, requested_by, $2::timestamptz
  from new
