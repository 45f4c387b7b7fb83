-- The last statement of a transaction: its lane of the tallies is locked until the commit, and nothing is waited for then.
with written as (
    insert into audit_entries (organization_id, id, occurred_at, actor, action, target, outcome, record, actor_subject,
                               target_subject, key_id, mac)
    select $1, new.id, new.occurred_at, new.actor, new.action, new.target, new.outcome, new.record, new.actor_subject,
           new.target_subject, $12, new.mac
      from unnest($2::uuid[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::audit_outcome[], $8::text[],
                  $9::uuid[], $10::uuid[], $11::bytea[])
           as new (id, occurred_at, actor, action, target, outcome, record, actor_subject, target_subject, mac))
insert into audit_tallies as tally (organization_id, lane, entries, high, low)
values ($1, (pg_backend_pid() % 16)::smallint, $13::bigint, $14::bigint, $15::bigint)
    on conflict (organization_id, lane) do update
   set entries = tally.entries + excluded.entries, high = tally.high # excluded.high, low = tally.low # excluded.low
