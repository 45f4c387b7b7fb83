-- Whether what was counted may come into being, for a job that does it later: what the trigger says of a row, of the
-- organization of the scope, and of how many there are nothing.
create function licenses_full(counted text) returns text
    language sql stable security definer set search_path = public, pg_temp
    as $$
        select case when bool_or(u.grows_until <= coalesce(nullif(current_setting('gantry.now', true), '')::timestamptz, now()))
                    then 'license_state'
                    when bool_or(u.used > u.most) then 'license_limit' end
          from organization_closure c join license_counters u on u.organization_id = c.ancestor_id and u.kind = counted
         where c.descendant_id = scope_organization()
    $$;
revoke execute on function licenses_full(text) from public;
grant execute on function licenses_full(text) to gantry_app;
grant create on schema public to gantry_tree;
alter function licenses_full(text) owner to gantry_tree;
revoke create on schema public from gantry_tree;
