-- squawk-ignore-file constraint-missing-not-valid
-- because no release has these tables yet: there is nothing to block.
-- How many sessions of a person go on in an organization, and what counts there as a second factor.
alter table defence_policies
    -- Null: as many as there may be anywhere.
    add column most_sessions          integer check (most_sessions between 1 and 100),
    -- With one more, the longest unused one ends, or nobody is let in.
    add column refuses_more_sessions  boolean not null default false,
    add column second_factor_kinds    text[] not null default '{totp,passkey,sms}'
        check (cardinality(second_factor_kinds) between 1 and 4
               and second_factor_kinds <@ array['totp', 'passkey', 'sms', 'email']);
