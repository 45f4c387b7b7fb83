-- squawk-ignore-file adding-foreign-key-constraint, constraint-missing-not-valid, disallowed-unique-constraint
-- because no release has these tables yet: there is nothing to block.
-- Keys that are narrowed to networks, follow one another, and say when they were last used.
alter table api_keys
    -- The template its scopes were made of, for people.
    add column template     text check (template in ('read_only', 'read_write', 'deploy', 'full')),
    -- From where it may be used; none: from anywhere.
    add column networks     cidr[] not null default '{}' check (cardinality(networks) <= 50),
    -- The key that takes its place; it stops working after an overlap.
    add column replaced_by  uuid,
    -- To the minute; and from where.
    add column last_used_at timestamptz,
    add column last_used_from inet,
    add constraint api_keys_organization_key unique (organization_id, id),
    add constraint api_keys_replaced_by_fkey foreign key (organization_id, replaced_by)
        references api_keys (organization_id, id) on delete set null (replaced_by);

drop trigger access_changed on api_keys;
create trigger access_changed after update of revoked_at, expires_at, scopes, owner_id, networks on api_keys
    for each row execute function access_changed();
