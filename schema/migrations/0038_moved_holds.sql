-- An organization that is put below another takes over by which lockdowns its jobs are held, and leaves those of where it was.
-- And every process of the API looks again at what it may do: policies and lockdowns are inherited as well.
create function organizations_moved_holds() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
    as $$
begin
    delete from job_holds h
     using organization_closure moved
     where moved.ancestor_id = new.id and h.organization_id = moved.descendant_id
       and not exists (select from lockdowns l
                         join organization_closure above on above.ancestor_id = l.organization_id
                        where l.id = h.lockdown_id and above.descendant_id = h.organization_id);
    insert into job_holds (organization_id, queue, lockdown_id)
    select moved.descendant_id, held.queue, l.id
      from organization_closure moved
      join organization_closure above on above.descendant_id = new.id and above.depth > 0
      join lockdowns l on l.organization_id = above.ancestor_id and l.ended_at is null
     cross join unnest(l.queues) as held (queue)
     where moved.ancestor_id = new.id
        on conflict do nothing;
    perform pg_notify('gantry_control', 'settings');
    perform pg_notify('gantry_standing', 'all');
    return null;
end
$$;
-- By its name it comes after organizations_moved, which puts the closure right.
create trigger organizations_moved_holds after update of parent_id on organizations
    for each row when (old.parent_id is distinct from new.parent_id) execute function organizations_moved_holds();

create policy inherits on lockdowns for select to gantry_tree using (true);
grant select on lockdowns to gantry_tree;
grant delete on job_holds to gantry_tree;
grant create on schema public to gantry_tree;
alter function organizations_moved_holds() owner to gantry_tree;
revoke create on schema public from gantry_tree;
