-- People: who signs in. A person belongs to no organization and may be a member of several, so his rows are visible
-- to a transaction that acts for him, to one that presents his e-mail address, and to the organizations he is a
-- member of.

-- The person a transaction acts for. Without one, nothing that is only his is visible.
create function scope_person() returns uuid
    language sql stable parallel safe
    as $$ select nullif(current_setting('gantry.person', true), '')::uuid $$;

-- The e-mail address a transaction presents, as it is compared.
create function presented_email() returns text
    language sql stable parallel safe
    as $$ select convert_from(decode(nullif(current_setting('gantry.presented_email', true), ''), 'hex'), 'UTF8') $$;

create table people (
    id                uuid primary key,
    -- As he wrote it, where mail is sent to.
    email             text not null check (length(email) between 3 and 254),
    -- As it is compared.
    email_key         text not null,
    email_verified_at timestamptz,
    name              text not null check (length(name) between 1 and 200),
    -- A language tag (BCP 47), for what is written to him.
    locale            text not null default 'en' check (length(locale) between 2 and 35),
    state             text not null default 'active' check (state in ('active', 'suspended', 'erased')),
    created_at        timestamptz not null,
    updated_at        timestamptz not null,
    constraint people_email_key unique (email_key)
);

-- What he proves himself with alone: apart from the person, for nobody else has reason to read it.
create table passwords (
    person_id  uuid primary key references people (id),
    -- Argon2id, as a PHC string.
    hash       text not null,
    changed_at timestamptz not null,
    -- Wrong passwords since the last right one.
    failures   integer not null default 0 check (failures >= 0),
    failed_at  timestamptz
);

-- Who belongs where, and as what.
create table memberships (
    organization_id uuid not null references organizations (id),
    person_id       uuid not null references people (id),
    role            text not null,
    state           text not null default 'active' check (state in ('active', 'suspended')),
    created_at      timestamptz not null,
    primary key (organization_id, person_id),
    constraint memberships_role check (role in ('owner', 'admin', 'member', 'viewer'))
);
create index memberships_person_id on memberships (person_id, organization_id);

do $$
declare
    of_people text;
begin
    foreach of_people in array array['people', 'passwords', 'memberships'] loop
        execute format('alter table %I enable row level security', of_people);
        execute format('alter table %I force row level security', of_people);
        execute format('create policy bootstrap on %I to %I using (true) with check (true)', of_people, current_user);
    end loop;
end
$$;

create policy himself on people to gantry_app
    using (id = (select scope_person()))
    with check (id = (select scope_person()));
create policy presented on people for select to gantry_app
    using (email_key = (select presented_email()));
create policy members on people for select to gantry_app
    using (exists (select from memberships
                    where memberships.organization_id = (select scope_organization())
                      and memberships.person_id = people.id));

create policy himself on passwords to gantry_app
    using (person_id = (select scope_person()))
    with check (person_id = (select scope_person()));

create policy own on memberships to gantry_app
    using (organization_id = (select scope_organization()))
    with check (organization_id = (select scope_organization()));
create policy himself on memberships for select to gantry_app
    using (person_id = (select scope_person()));

grant select, insert, update on people to gantry_app;
grant select, insert, update, delete on passwords, memberships to gantry_app;
