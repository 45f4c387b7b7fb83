-- squawk-ignore-file require-concurrent-index-creation
-- because no release has these tables yet: there is nothing to block.
-- What people are entitled to: a copy of what is known of them, and to be forgotten.

-- A copy, as long as it lasts. There is one of a person; another takes its place.
create table personal_exports (
    id         uuid primary key,
    person_id  uuid not null references people (id),
    job_id     uuid not null,
    asked_at   timestamptz not null,
    expires_at timestamptz not null,
    made_at    timestamptz,
    -- Sealed for this row.
    content    bytea,
    -- Of what was sealed: what is signed.
    bytes      bigint check (bytes >= 0),
    statement  text,
    key_id     uuid,
    public_key bytea,
    signature  bytea,
    constraint personal_exports_person_id_key unique (person_id),
    constraint personal_exports_made check (
        (made_at is null) = (content is null) and (made_at is null) = (bytes is null) and (made_at is null) = (statement is null)
        and (made_at is null) = (key_id is null) and (made_at is null) = (public_key is null)
        and (made_at is null) = (signature is null))
);
create index personal_exports_expires_at on personal_exports (expires_at);

-- That somebody is to be forgotten, and was: the platform's own organization keeps it, for he is nobody's member any more.
create table erasures (
    id              uuid primary key,
    organization_id uuid not null references organizations (id),
    person_id       uuid not null references people (id),
    job_id          uuid not null,
    asked_at        timestamptz not null,
    state           text not null default 'pending' check (state in ('pending', 'refused', 'done')),
    ended_at        timestamptz,
    -- The certificate.
    statement       text,
    key_id          uuid,
    public_key      bytea,
    signature       bytea,
    check ((state = 'pending') = (ended_at is null)),
    check ((state = 'done') = (statement is not null) and (state = 'done') = (key_id is not null)
           and (state = 'done') = (public_key is not null) and (state = 'done') = (signature is not null))
);
create unique index erasures_pending on erasures (person_id) where state = 'pending';
create index erasures_person_id on erasures (person_id);
create index erasures_organization_id on erasures (organization_id, id);

alter table personal_exports enable row level security;
alter table personal_exports force row level security;
alter table erasures enable row level security;
alter table erasures force row level security;
create policy bootstrap on personal_exports to current_user using (true) with check (true);
create policy bootstrap on erasures to current_user using (true) with check (true);
create policy himself on personal_exports to gantry_app using (person_id = (select scope_person()))
    with check (person_id = (select scope_person()));
create policy own on erasures to gantry_app using (organization_id = (select scope_organization()))
    with check (organization_id = (select scope_organization()));
grant select, insert, update, delete on personal_exports to gantry_app;
grant select, insert, delete on erasures to gantry_app;
grant update (state, ended_at, statement, key_id, public_key, signature) on erasures to gantry_app;

-- Sealing again is done for the platform, for nobody in particular.
create policy reseals on personal_exports for select to gantry_app
    using (content is not null and (select scope_person()) is null
           and (select scope_organization()) = '00000000-0000-7000-8000-000000000000');
create policy reseals_again on personal_exports for update to gantry_app
    using (content is not null and (select scope_person()) is null
           and (select scope_organization()) = '00000000-0000-7000-8000-000000000000');

-- Housekeeping forgets rows by their age, and reads nothing of them.
create policy forgets on personal_exports to gantry_engine using (true);
grant select (id, expires_at), delete on personal_exports to gantry_engine;

-- Whoever is to be forgotten is looked for where he left something: in records, and in invitations.
create policy himself on audit_subjects for select to gantry_app using (subject_id = (select scope_person()));
create index audit_subjects_subject_id on audit_subjects (subject_id);
create policy to_himself on invitations for select to gantry_app
    using (accepted_by = (select scope_person())
           or email_key = (select email_key from people where id = (select scope_person())));
create index invitations_accepted_by on invitations (accepted_by) where accepted_by is not null;
create index invitations_email_key on invitations (email_key);
