-- squawk-ignore-file constraint-missing-not-valid, ban-drop-constraint, ban-drop-not-null
-- because no release has these tables yet: there is nothing to block.
-- Machines that are there already are looked after as well: nobody makes them, and nobody removes them.

alter table servers
    add column kind    text not null default 'made' check (kind in ('made', 'connected')),
    -- What is missing on it may be installed.
    add column install boolean not null default false,
    alter column cloud drop not null,
    alter column region drop not null,
    alter column size drop not null,
    alter column image drop not null,
    -- What was made was made somewhere, out of something.
    add constraint servers_made_check check
        (kind = 'connected' or (cloud is not null and region is not null and size is not null and image is not null)),
    -- What is connected is somewhere, and who has to answer there is known before.
    add constraint servers_connected_check check
        (kind = 'made' or (cloud is null and region is null and size is null and image is null
                           and address is not null and port is not null and username is not null and host_key is not null));
-- Of a machine that is connected a stack has the key and the runs: it has no credential, and no state.
alter table runs drop constraint runs_kind_check;
alter table runs add constraint runs_kind_check check (kind in ('provision', 'mend', 'destroy', 'connect', 'forget'));
