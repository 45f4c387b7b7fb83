-- Events are written down, and matched with the endpoints that want them, in one statement. What an endpoint cannot
-- take right now goes to its backlog here; the rest is answered, and becomes jobs.
with fresh as (
    insert into events (id, organization_id, type, payload, channels, key, created_at)
    select e.id, $1, e.type, e.payload::jsonb, string_to_array(e.channels, ' '), e.key, $7
      from unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[]) as e (id, type, payload, channels, key)
    on conflict (organization_id, key) where key is not null do nothing
    returning id, type, channels
), wanted as (
    select f.id as event_id, w.id as endpoint_id, w.ordered,
           w.ordered or w.rate_per_second is not null or coalesce(greatest(w.open_until, w.behind_until) > $7, false)
               as held,
           w.ordered or coalesce(greatest(w.open_until, w.behind_until) > $7, false) as waits
      from fresh f
      join webhook_endpoints w
        on w.organization_id = $1 and w.enabled
       and (w.event_types = '{}' or exists (
               select from unnest(w.event_types) as pattern
                where pattern = f.type or (right(pattern, 2) = '.*' and starts_with(f.type, left(pattern, -1)))))
       and (w.channels = '{}' or w.channels && f.channels)
), locked as (
    -- In one order for everybody, or two postings could wait for each other.
    select id, sequence from webhook_endpoints
     where id in (select endpoint_id from wanted where ordered) order by id for no key update
), numbered as (
    update webhook_endpoints w set sequence = w.sequence + c.count
      from locked l join (select endpoint_id, count(*) as count from wanted where ordered group by endpoint_id) c
        on c.endpoint_id = l.id
     where w.id = l.id
    returning w.id, w.sequence - c.count as before
), held as (
    insert into webhook_backlog (endpoint_id, organization_id, event_id, number, due_at)
    select w.endpoint_id, $1, w.event_id,
           case when w.ordered then n.before + row_number() over (partition by w.endpoint_id order by w.event_id) end, $7
      from wanted w left join numbered n on n.id = w.endpoint_id
     where w.held
     order by w.endpoint_id, w.event_id
)
select f.id as "event!: EventId", w.endpoint_id as "endpoint?: EndpointId",
       coalesce(w.held, false) as "held!", coalesce(w.waits, false) as "waits!"
  from fresh f left join wanted w on w.event_id = f.id
 order by f.id, w.endpoint_id
