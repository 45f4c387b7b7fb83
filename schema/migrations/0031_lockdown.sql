-- An organization and all below it locked down: nobody may do anything there until it is unlocked.
create table lockdowns (
    id              uuid primary key,
    organization_id uuid not null references organizations (id),
    reason          text not null check (length(reason) between 1 and 500),
    -- Whose jobs are not begun meanwhile.
    queues          text[] not null,
    started_at      timestamptz not null,
    started_by      text not null,
    ended_at        timestamptz,
    ended_by        text,
    end_reason      text check (length(end_reason) between 1 and 500),
    check ((ended_at is null) = (ended_by is null) and (ended_at is null) = (end_reason is null))
);
-- One at a time.
create unique index lockdowns_in_force on lockdowns (organization_id) where ended_at is null;
create index lockdowns_organization_id on lockdowns (organization_id, id);

-- Queues of which an organization's jobs are not begun, by the lockdown of itself or one above it.
create table job_holds (
    organization_id uuid not null references organizations (id),
    queue           text not null,
    lockdown_id     uuid not null references lockdowns (id) on delete cascade,
    primary key (lockdown_id, organization_id, queue)
);
create index job_holds_organization_id on job_holds (organization_id);

alter table lockdowns enable row level security;
alter table lockdowns force row level security;
alter table job_holds enable row level security;
alter table job_holds force row level security;
create policy bootstrap on lockdowns to current_user using (true) with check (true);
create policy bootstrap on job_holds to current_user using (true) with check (true);
-- By itself or from above; below it is known that it holds.
create policy at_or_below on lockdowns to gantry_app
    using (exists (select from organization_closure c
                    where c.ancestor_id = (select scope_organization()) and c.descendant_id = lockdowns.organization_id))
    with check (exists (select from organization_closure c
                    where c.ancestor_id = (select scope_organization()) and c.descendant_id = lockdowns.organization_id));
create policy holds_below on lockdowns for select to gantry_app
    using (organization_id in (select ancestor_id from organization_closure
                                where descendant_id = (select scope_organization())));
create policy at_or_below on job_holds to gantry_app
    using (exists (select from organization_closure c
                    where c.ancestor_id = (select scope_organization()) and c.descendant_id = job_holds.organization_id))
    with check (exists (select from organization_closure c
                    where c.ancestor_id = (select scope_organization()) and c.descendant_id = job_holds.organization_id));
create policy engine on job_holds to gantry_engine using (true) with check (true);
grant select, insert, delete, update (ended_at, ended_by, end_reason) on lockdowns to gantry_app;
grant select, insert, delete on job_holds to gantry_app;
grant select on job_holds to gantry_engine;

-- What is put below an organization whose jobs are held is held as well.
create function job_holds_inherit() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
    as $$
begin
    insert into job_holds (organization_id, queue, lockdown_id)
    select new.id, queue, lockdown_id from job_holds where organization_id = new.parent_id;
    return null;
end
$$;
create policy inherits on job_holds to gantry_tree using (true) with check (true);
grant select, insert on job_holds to gantry_tree;
create trigger job_holds_inherit after insert on organizations
    for each row execute function job_holds_inherit();
grant create on schema public to gantry_tree;
alter function job_holds_inherit() owner to gantry_tree;
revoke create on schema public from gantry_tree;
