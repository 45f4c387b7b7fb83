-- What is below an organization is looked up for the row at hand. Without `offset 0` PostgreSQL makes a table of everything
-- below it first: ten thousand rows are read so that one is found.
alter policy below_me on organizations
    using (exists (select from organization_closure c
                    where c.ancestor_id = (select scope_organization()) and c.descendant_id = organizations.id offset 0))
    with check (id = scope_organization() or exists (select from organization_closure c
                    where c.ancestor_id = (select scope_organization())
                      and c.descendant_id = organizations.parent_id offset 0));
alter policy below_me on organization_totals
    using (exists (select from organization_closure c
                    where c.ancestor_id = (select scope_organization()) and c.descendant_id = organization_id offset 0));
alter policy below_me on organization_changes
    using (exists (select from organization_closure c
                    where c.ancestor_id = (select scope_organization()) and c.descendant_id = organization_id offset 0));
