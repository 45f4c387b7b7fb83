-- squawk-ignore-file adding-serial-primary-key-field, ban-drop-constraint, constraint-missing-not-valid
-- because no release has these tables yet: there is nothing to block.
-- An organization is paused by itself, and apart from that by whoever stands above it: neither hides or lifts the
-- other's pause.
alter table job_pauses drop constraint job_pauses_pkey, add primary key (subject, name, organization_id);
-- Queues and kinds are everybody's.
alter table job_pauses add constraint job_pauses_platform
    check (subject = 'organization' or organization_id = '00000000-0000-7000-8000-000000000000');
drop policy own on job_pauses;
create policy own on job_pauses to gantry_app using (organization_id = (select scope_organization()))
    with check (organization_id = (select scope_organization())
                and (subject <> 'organization'
                     or name in (select descendant_id::text from organization_closure
                                  where ancestor_id = scope_organization())));
-- Whoever is paused from above is told so.
create policy told on job_pauses for select to gantry_app
    using (subject = 'organization' and name = (select scope_organization())::text);
