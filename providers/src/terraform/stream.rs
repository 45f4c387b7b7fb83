//! What Terraform says while it works: one JSON object a line (`-json`).

use serde::Deserialize;
use serde_json::Value;

/// Something that Terraform says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Something is to be done.
    Planned {
        /// The resource.
        address: String,
        /// What.
        action: String,
    },
    /// It is being done.
    Began {
        /// The resource.
        address: String,
        /// What.
        action: String,
    },
    /// It was done.
    Done {
        /// The resource.
        address: String,
        /// What.
        action: String,
        /// How long it took.
        seconds: u64,
    },
    /// It could not be done.
    Gave {
        /// The resource.
        address: String,
    },
    /// What it comes to.
    Summary {
        /// Things made.
        add: u32,
        /// Things changed.
        change: u32,
        /// Things removed.
        remove: u32,
        /// `plan`, `apply`, `destroy`.
        operation: String,
    },
    /// Something is wrong.
    Diagnostic(Diagnostic),
    /// Something for people.
    Line(String),
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Diagnostic {
    /// `error` or `warning`.
    pub severity: String,
    /// In a few words.
    pub summary: String,
    /// In more.
    #[serde(default)]
    pub detail: String,
    /// The resource.
    #[serde(default)]
    pub address: Option<String>,
}

impl Diagnostic {
    /// Whether nothing came of it.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == "error"
    }
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(address) = &self.address {
            write!(f, "{address}: ")?;
        }
        f.write_str(&self.summary)?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}

/// Reads a line; `None`: it says nothing of interest. What is no JSON is for people.
#[must_use]
pub fn read(line: &str) -> Option<Event> {
    let Ok(value) = serde_json::from_str::<Value>(line) else {
        let line = line.trim();
        return (!line.is_empty()).then(|| Event::Line(line.to_owned()));
    };
    let message = || Event::Line(value["@message"].as_str().unwrap_or_default().to_owned());
    let text = |at: &Value| at.as_str().unwrap_or_default().to_owned();
    let count = |name: &str| u32::try_from(value["changes"][name].as_u64().unwrap_or_default()).unwrap_or(u32::MAX);
    let (hook, change) = (&value["hook"], &value["change"]);
    Some(match value["type"].as_str().unwrap_or_default() {
        "planned_change" => {
            Event::Planned { address: text(&change["resource"]["addr"]), action: text(&change["action"]) }
        }
        "apply_start" => Event::Began { address: text(&hook["resource"]["addr"]), action: text(&hook["action"]) },
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a float becomes the nearest there is"
        )]
        "apply_complete" => Event::Done {
            address: text(&hook["resource"]["addr"]),
            action: text(&hook["action"]),
            seconds: hook["elapsed_seconds"].as_f64().unwrap_or_default() as u64,
        },
        "apply_errored" => Event::Gave { address: text(&hook["resource"]["addr"]) },
        "change_summary" => Event::Summary {
            add: count("add"),
            change: count("change"),
            remove: count("remove"),
            operation: text(&value["changes"]["operation"]),
        },
        "diagnostic" => {
            serde_json::from_value(value["diagnostic"].clone()).map_or_else(|_| message(), Event::Diagnostic)
        }
        "apply_progress" | "refresh_start" | "provision_start" | "resource_drift" => message(),
        "provision_progress" => Event::Line(format!(
            "{}: {}",
            hook["resource"]["addr"].as_str().unwrap_or_default(),
            hook["output"].as_str().unwrap_or_default()
        )),
        // Values of outputs may be secret; the rest is said by others of these.
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_terraform_says_is_read_and_values_of_outputs_are_not() {
        let began = r#"{"@level":"info","@message":"terraform_data.machine: Creating...","type":"apply_start","hook":{"resource":{"addr":"terraform_data.machine"},"action":"create"}}"#;
        let (address, action) = ("terraform_data.machine".to_owned(), "create".to_owned());
        assert_eq!(read(began), Some(Event::Began { address: address.clone(), action: action.clone() }));
        let done = r#"{"type":"apply_complete","hook":{"resource":{"addr":"terraform_data.machine"},"action":"create","elapsed_seconds":2}}"#;
        assert_eq!(read(done), Some(Event::Done { address, action, seconds: 2 }));
        let summary =
            r#"{"type":"change_summary","changes":{"add":2,"change":0,"import":0,"remove":1,"operation":"plan"}}"#;
        let wanted = Event::Summary { add: 2, change: 0, remove: 1, operation: "plan".to_owned() };
        assert_eq!(read(summary), Some(wanted));
        assert_eq!(read(r#"{"type":"outputs","outputs":{"password":{"sensitive":true,"value":"hunter2"}}}"#), None);
        assert_eq!(read("  Killed  "), Some(Event::Line("Killed".to_owned())));
        assert_eq!(read(""), None);
    }

    #[test]
    fn what_is_wrong_is_told_with_where() {
        let line = r#"{"type":"diagnostic","diagnostic":{"severity":"error","summary":"No such size","detail":"Try small.","address":"a.b"}}"#;
        let Some(Event::Diagnostic(diagnostic)) = read(line) else { panic!("it is one") };
        assert!(diagnostic.is_error());
        assert_eq!(diagnostic.to_string(), "a.b: No such size: Try small.");
    }
}
