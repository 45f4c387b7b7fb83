//! What operations cost. One that is not named here costs one, of reads when its method changes nothing, else of writes.

use gantry_schema::limits::Class;
use poem::http::Method;

/// What a request is counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Charge {
    pub class: Class,
    pub cost: u32,
    /// It is refused when the month is used up.
    pub metered: bool,
}

impl Default for Charge {
    fn default() -> Self {
        Self { class: Class::Read, cost: 1, metered: true }
    }
}

/// Operations that cost something else, one line each.
const CHARGES: &[(&str, Class, u32)] = &[
    ("askForJobs", Class::Write, 10),
    ("postEvents", Class::Write, 10),
    ("retryJobs", Class::Write, 5),
    ("discardJobs", Class::Write, 5),
    ("recoverWebhooks", Class::Write, 5),
    ("replayWebhooks", Class::Write, 5),
    ("previewSchedule", Class::Read, 1),
];

/// What is done when the month is used up all the same: looking why, and ending what somebody else may use.
const UNMETERED: &[&str] = &[
    "getApiUsageSummary",
    "getApiUsageTimeline",
    "listApiUsageKeys",
    "listApiUsageOperations",
    "getRateLimits",
    "listApiKeys",
    "revokeApiKey",
    "listSessions",
    "endSession",
    "endOtherSessions",
    "signOut",
];

impl Charge {
    /// What an operation costs.
    pub(crate) fn of(operation: &str, method: &Method) -> Self {
        let metered = !UNMETERED.contains(&operation);
        if let Some((_, class, cost)) = CHARGES.iter().find(|(id, ..)| *id == operation) {
            return Self { class: *class, cost: *cost, metered };
        }
        let class = if method.is_safe() { Class::Read } else { Class::Write };
        Self { class, cost: 1, metered }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes;

    #[test]
    fn every_charge_is_an_operations() {
        for id in CHARGES.iter().map(|(id, ..)| id).chain(UNMETERED) {
            assert!(routes::ids().any(|known| known == *id), "there is no operation {id}");
        }
    }

    #[test]
    fn what_changes_nothing_is_a_read() {
        assert_eq!(Charge::of("getJob", &Method::GET), Charge { class: Class::Read, cost: 1, metered: true });
        assert_eq!(Charge::of("askForJob", &Method::POST), Charge { class: Class::Write, cost: 1, metered: true });
        assert_eq!(Charge::of("askForJobs", &Method::POST), Charge { class: Class::Write, cost: 10, metered: true });
        assert_eq!(Charge::of("previewSchedule", &Method::POST).class, Class::Read);
        assert!(!Charge::of("revokeApiKey", &Method::DELETE).metered);
    }
}
