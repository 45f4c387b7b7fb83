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
      from new),
asked as (
    insert into jobs (id, organization_id, kind, queue, priority, state, max_attempts, lease_seconds, run_at, expires_at,
                      concurrency_key, concurrency_limit, rate_key, payload, traceparent, requested_by, created_at)
    select id, organization_id, kind, queue, priority, state, max_attempts, lease_seconds, run_at, expires_at,
           concurrency_key, concurrency_limit, rate_key, payload::jsonb, traceparent, requested_by, $2::timestamptz
      from new),
-- As in audit/write.sql.
recorded as (
    insert into audit_entries (organization_id, id, occurred_at, actor, action, target, outcome, record, actor_subject, key_id,
                               mac)
    select organization_id, id, occurred_at, actor, action, target, 'allowed', record, actor_subject, $27, mac
      from scope, unnest($19::uuid[], $20::timestamptz[], $21::text[], $22::text[], $23::text[], $24::text[], $25::uuid[],
                         $26::bytea[])
           as entry (id, occurred_at, actor, action, target, record, actor_subject, mac))
insert into audit_tallies as tally (organization_id, lane, entries, high, low)
select organization_id, (pg_backend_pid() % 16)::smallint, $28::bigint, $29::bigint, $30::bigint from scope
    on conflict (organization_id, lane) do update
   set entries = tally.entries + excluded.entries, high = tally.high # excluded.high, low = tally.low # excluded.low
