-- squawk-ignore-file adding-required-field, ban-drop-constraint, constraint-missing-not-valid
-- because no release has these tables yet: there is nothing to block.
-- Old states come back as new versions, half-made servers may be kept, servers are changed, and what was planned is kept.

alter table terraform_states
    -- The version whose content it has again; null: Terraform wrote it.
    add column restored_from bigint;

alter table servers
    -- What becomes of what was half made when something goes wrong.
    add column on_failure text not null default 'remove' check (on_failure in ('remove', 'keep'));

alter table runs
    drop constraint runs_kind_check,
    add constraint runs_kind_check check (kind in ('provision', 'update', 'mend', 'destroy', 'connect', 'forget')),
    -- What a server is to be like when it is changed.
    add column wanted    jsonb,
    -- What is to be thought about before it is done.
    add column warnings  jsonb,
    -- What Terraform says of the plan to people, without secrets; packed and sealed for this row, and kept with it.
    add column plan_text bytea;
