-- Somebody lost what he proves himself with: one who may asks that it be removed, and another one agrees.
create table factor_resets (
    id              uuid primary key,
    organization_id uuid not null references organizations (id),
    -- Whose.
    person_id       uuid not null references people (id),
    reason          text not null check (length(reason) between 1 and 500),
    asked_by        uuid not null references people (id),
    asked_at        timestamptz not null,
    expires_at      timestamptz not null,
    state           text not null default 'pending' check (state in ('pending', 'approved', 'withdrawn')),
    decided_by      uuid references people (id),
    decided_at      timestamptz,
    check ((state = 'pending') = (decided_at is null) and (state = 'pending') = (decided_by is null)),
    -- Two people, neither of whom it is about.
    constraint factor_resets_somebody_else check (asked_by <> person_id),
    constraint factor_resets_two_people check (state <> 'approved' or (decided_by <> asked_by and decided_by <> person_id))
);
create unique index factor_resets_pending on factor_resets (organization_id, person_id) where state = 'pending';
create index factor_resets_organization_id on factor_resets (organization_id, id);
create index factor_resets_person_id on factor_resets (person_id);
create index factor_resets_asked_by on factor_resets (asked_by);
create index factor_resets_decided_by on factor_resets (decided_by) where decided_by is not null;

alter table factor_resets enable row level security;
alter table factor_resets force row level security;
create policy bootstrap on factor_resets to current_user using (true) with check (true);
create policy own on factor_resets to gantry_app using (organization_id = (select scope_organization()))
    with check (organization_id = (select scope_organization()));
grant select, insert, delete, update (state, decided_by, decided_at) on factor_resets to gantry_app;
