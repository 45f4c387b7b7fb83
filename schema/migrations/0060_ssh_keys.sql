-- squawk-ignore-file require-concurrent-index-creation, ban-drop-constraint, ban-drop-default, ban-drop-not-null
-- because no release has these tables yet: there is nothing to block.
-- An organization has as many keys as it likes, one of which gets into what nobody chose another for.

alter table ssh_keys drop constraint ssh_keys_organization_key;
alter table ssh_keys
    add column name       text not null default 'Default' check (length(name) between 1 and 200),
    -- What gets into a server for which none is chosen.
    add column is_default boolean not null default true;
alter table ssh_keys
    alter column name drop default,
    alter column is_default drop default;
create unique index ssh_keys_name_key on ssh_keys (organization_id, lower(name));
create unique index ssh_keys_default_key on ssh_keys (organization_id) where is_default;
create index ssh_keys_organization_id on ssh_keys (organization_id, id);

-- Null: what it made is gone, and the key may go.
alter table stacks alter column ssh_key_id drop not null;
update stacks set ssh_key_id = null
 where server_id in (select id from servers where state = 'destroyed');
