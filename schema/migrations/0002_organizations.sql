-- The tenants, and who stands above whom.
create table organizations (
    id         uuid primary key,
    parent_id  uuid references organizations (id),
    name       text not null check (length(name) between 1 and 200),
    -- Share of a queue this organization gets while others wait too.
    weight     smallint not null default 1 check (weight between 1 and 100),
    -- Jobs that may run at the same time; null: no limit.
    max_running integer check (max_running > 0),
    created_at timestamptz not null
);
create index organizations_parent_id on organizations (parent_id);

-- Every (ancestor, descendant) pair, the organization itself at depth 0 included.
create table organization_closure (
    ancestor_id   uuid not null references organizations (id),
    descendant_id uuid not null references organizations (id),
    depth         integer not null check (depth >= 0),
    primary key (ancestor_id, descendant_id)
);
create index organization_closure_descendant on organization_closure (descendant_id);

create function organizations_close() returns trigger
    language plpgsql security definer set search_path = public, pg_temp
    as $$
begin
    insert into organization_closure (ancestor_id, descendant_id, depth)
    select above.ancestor_id, new.id, above.depth + 1
      from organization_closure above
     where above.descendant_id = new.parent_id
    union all
    select new.id, new.id, 0;
    return null;
end
$$;
-- Only to hand the function over; the role keeps no right to create.
grant create on schema public to gantry_tree;
alter function organizations_close() owner to gantry_tree;
revoke create on schema public from gantry_tree;
create trigger organizations_close after insert on organizations
    for each row execute function organizations_close();

alter table organizations enable row level security;
alter table organizations force row level security;
alter table organization_closure enable row level security;
alter table organization_closure force row level security;

create policy below_me on organizations to gantry_app
    using (id in (select descendant_id from organization_closure where ancestor_id = scope_organization()))
    with check (parent_id in (select descendant_id from organization_closure where ancestor_id = scope_organization()));
create policy below_me on organization_closure to gantry_app
    using (ancestor_id = scope_organization());
create policy maintains on organization_closure to gantry_tree using (true) with check (true);
-- The engine needs to know how to share a queue, and nothing else about an organization.
create policy shares on organizations to gantry_engine using (true);

grant select, insert, update on organizations to gantry_app;
grant select on organization_closure to gantry_app;
grant select, insert on organization_closure to gantry_tree;
grant references on organizations to gantry_tree;
grant select (id, weight, max_running) on organizations to gantry_engine;

-- The platform itself is the organization that owns the platform's own jobs and schedules.
do $$
begin
    execute format('create policy bootstrap on organizations to %I using (true) with check (true)', current_user);
end
$$;
insert into organizations (id, parent_id, name, created_at)
values ('00000000-0000-7000-8000-000000000000', null, 'Platform', '2026-01-01T00:00:00Z');
