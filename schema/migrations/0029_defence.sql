-- From where an organization's keys, people and applications may ask, and what is done about sign-ins that look wrong.
create table defence_policies (
    organization_id     uuid primary key references organizations (id),
    -- None: from anywhere.
    networks            cidr[] not null default '{}' check (cardinality(networks) <= 200),
    -- ISO 3166-1; none allowed: all that are not denied.
    countries_allowed   text[] not null default '{}' check (cardinality(countries_allowed) <= 260),
    countries_denied    text[] not null default '{}' check (cardinality(countries_denied) <= 260),
    -- Of an address of which nobody knows where it is, where countries are restricted.
    refuses_unknown     boolean not null default false,
    new_device          text not null check (new_device in ('off', 'notice', 'step_up', 'refuse')),
    impossible_travel   text not null check (impossible_travel in ('off', 'notice', 'step_up', 'refuse')),
    credential_stuffing text not null check (credential_stuffing in ('off', 'notice', 'step_up', 'refuse')),
    -- Since when people need a second factor; null: they need none. And the days they have to enrol one, from then on, or
    -- from when they become members.
    second_factor_since      timestamptz,
    second_factor_grace_days integer not null default 0 check (second_factor_grace_days between 0 and 90),
    updated_at          timestamptz not null
);
alter table defence_policies enable row level security;
alter table defence_policies force row level security;
create policy own on defence_policies to gantry_app
    using (organization_id = (select scope_organization()))
    with check (organization_id = (select scope_organization()));
-- What holds above holds below.
create policy inherited on defence_policies for select to gantry_app
    using (organization_id in (select ancestor_id from organization_closure
                                where descendant_id = (select scope_organization())));
grant select, insert, update, delete on defence_policies to gantry_app;

-- What a person signed in with, and where: the last ones, to tell what is new and what cannot be.
create table sign_ins (
    id           uuid primary key,
    person_id    uuid not null references people (id) on delete cascade,
    occurred_at  timestamptz not null,
    -- A digest of what the program calls itself.
    device       bytea not null check (length(device) = 32),
    country      text check (country ~ '^[A-Z]{2}$'),
    latitude     double precision check (latitude between -90 and 90),
    longitude    double precision check (longitude between -180 and 180),
    -- How exact that is.
    radius_km    double precision check (radius_km >= 0),
    check ((latitude is null) = (longitude is null) and (latitude is null) = (radius_km is null))
);
create index sign_ins_person_id on sign_ins (person_id, id desc);
alter table sign_ins enable row level security;
alter table sign_ins force row level security;
create policy bootstrap on sign_ins to current_user using (true) with check (true);
create policy himself on sign_ins to gantry_app
    using (person_id = (select scope_person())) with check (person_id = (select scope_person()));
grant select, insert, delete on sign_ins to gantry_app;
