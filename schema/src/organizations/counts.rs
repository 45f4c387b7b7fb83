//! What is counted of organizations, each and together with all below it.

/// Something that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Its name.
    pub kind: &'static str,
    /// While there are some, the organization is not deleted: they run or cost something.
    pub keeps: bool,
}

/// What is counted, one line each, and a line with `organizations_count_rows_of` in the table's migration.
pub const COUNTED: &[Counted] = &[
    Counted { kind: "organizations", keeps: false },
    Counted { kind: "members", keeps: false },
    Counted { kind: "api_keys", keeps: false },
    Counted { kind: "schedules", keeps: true },
    Counted { kind: "webhook_endpoints", keeps: false },
    Counted { kind: "cloud_accounts", keeps: false },
    Counted { kind: "servers", keeps: true },
];

/// How many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Of what.
    pub kind: &'static str,
    /// The organization's own.
    pub own: i64,
    /// Together with those of all below it.
    pub total: i64,
}

/// The counts of an organization from their stored form, `{kind: [own, total]}`.
pub(super) fn read(stored: &serde_json::Value) -> Vec<Count> {
    let number = |kind: &str, place: usize| stored[kind][place].as_i64().unwrap_or(0);
    COUNTED.iter().map(|&Counted { kind, .. }| Count { kind, own: number(kind, 0), total: number(kind, 1) }).collect()
}
