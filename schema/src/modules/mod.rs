//! Modules that organizations bring: where they are from, what they ask for, and whether what they are given fits.

pub mod kind;
pub mod queries;

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use kind::Kind;

use crate::servers::UnknownWord;
use crate::words::words;
use crate::{ModuleId, ModuleVersionId};

words! {
    /// How far a version of a module is.
    ModuleState {
        /// It is looked at.
        Checking = "checking",
        /// Servers can be made of it.
        Ready = "ready",
        /// It is not taken.
        Refused = "refused",
    }
}

words! {
    /// Why a module is not taken; the sentence says what to do about it.
    ModuleProblem {
        /// Send a .tar.gz or a .zip, as base64.
        ArchiveMalformed = "archive_malformed",
        /// Pack plain files and directories only, with paths that stay inside; links, devices and `..` are not taken.
        ArchiveUnsafe = "archive_unsafe",
        /// Leave out what the module does not need; the message says how much there may be.
        ArchiveTooLarge = "archive_too_large",
        /// Look at the URL, the ref and the path; the platform fetches by https, without a password, from public addresses.
        FetchFailed = "fetch_failed",
        /// Put .tf or .tf.json files into the directory that `path` names, or into the uppermost one.
        Empty = "module_empty",
        /// See which line it is; `terraform validate` says more about it.
        Malformed = "module_malformed",
        /// Take out what the message names, and update the module.
        Policy = "module_policy",
        /// Add the outputs that the message names.
        Outputs = "module_outputs",
        /// Change the input that the message names.
        Inputs = "module_inputs",
        /// The operator turns modules on with GANTRY_MODULES.
        Off = "modules_off",
        /// Update the module, which has it looked at again; where it happens again, the operator looks at the workers' log.
        GaveUp = "gave_up",
    }
}

macro_rules! read_back {
    ($($type:ident),*) => {
        $(impl FromStr for $type {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                Self::ALL.iter().copied().find(|it| it.as_str() == word).ok_or_else(|| UnknownWord(word.to_owned()))
            }
        })*
    };
}
read_back!(ModuleState, ModuleProblem);

/// Where a version of a module is from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// It was sent.
    Archive,
    /// It is fetched.
    Git {
        /// Where the repository is.
        url: String,
        /// A branch, a tag or a commit.
        #[serde(rename = "ref")]
        reference: String,
        /// The directory in it; `None`: the uppermost one.
        path: Option<String>,
    },
}

/// What a module asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// Its name.
    pub name: String,
    /// What it takes, as Terraform writes types in JSON.
    pub kind: Kind,
    /// What it is for.
    pub description: String,
    /// What it is where it is not given; null: nothing, or what is not shown.
    pub default: Value,
    /// Whether it has to be given.
    pub required: bool,
    /// Whether nobody may see it.
    pub sensitive: bool,
}

/// What a module answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Its name.
    pub name: String,
    /// What it is.
    pub description: String,
    /// Whether nobody may see it.
    pub sensitive: bool,
}

/// What a server is made of, where that is no template of the platform's own.
#[derive(Debug, Clone, PartialEq)]
pub struct Used {
    /// The module.
    pub module: ModuleId,
    /// The version of it.
    pub version: ModuleVersionId,
    /// That version's number.
    pub number: i32,
    /// What it was given, without what nobody may see.
    pub inputs: BTreeMap<String, Value>,
}

/// What a module is given.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Given {
    /// What may be seen.
    pub plain: BTreeMap<String, Value>,
    /// What nobody may see.
    pub secret: BTreeMap<String, Value>,
}

/// An input that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// Which.
    pub name: String,
    /// Why, and what to do about it.
    pub why: String,
}

/// Inputs that the platform gives, where a module asks for them.
const OF_PLATFORM: &[&str] = &["region"];

/// Whether the platform gives an input of this name.
#[must_use]
pub fn is_of_platform(name: &str) -> bool {
    name.starts_with("gantry_") || OF_PLATFORM.contains(&name)
}

/// Holds what a module is given against what it asks for. Null is as if it were not given.
///
/// # Errors
/// The first input that does not fit.
pub fn fit(asked: &[Input], given: BTreeMap<String, Value>) -> Result<Given, Unfit> {
    let mut fitting = Given::default();
    for (name, value) in given {
        let unfit = |why: String| Unfit { name: name.clone(), why };
        if is_of_platform(&name) {
            return Err(unfit("the platform gives this one; leave it out".to_owned()));
        }
        let Some(input) = asked.iter().find(|input| input.name == name) else {
            let known: Vec<&str> =
                asked.iter().map(|input| input.name.as_str()).filter(|name| !is_of_platform(name)).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(unfit(format!("the module asks for no such input; there are {known}")));
        };
        if value.is_null() {
            continue;
        }
        input.kind.check(&value).map_err(unfit)?;
        let kept = if input.sensitive { &mut fitting.secret } else { &mut fitting.plain };
        kept.insert(name, value);
    }
    let missing = asked.iter().find(|input| {
        let is_given = fitting.plain.contains_key(&input.name) || fitting.secret.contains_key(&input.name);
        input.required && !is_given && !is_of_platform(&input.name)
    });
    match missing {
        Some(input) => {
            let why = format!("the module asks for it, and it has no default; write a {}", input.kind);
            Err(Unfit { name: input.name.clone(), why })
        }
        None => Ok(fitting),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn input(name: &str, kind: &Value, required: bool, sensitive: bool) -> Input {
        Input {
            name: name.to_owned(),
            kind: serde_json::from_value(kind.clone()).unwrap(),
            description: String::new(),
            default: Value::Null,
            required,
            sensitive,
        }
    }

    fn given(value: Value) -> BTreeMap<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_is_given_has_to_be_what_is_asked_for() {
        let asked = [
            input("size", &json!("string"), true, false),
            input("password", &json!("string"), true, true),
            input("disks", &json!(["list", "number"]), false, false),
            input("gantry_name", &json!("string"), true, false),
            input("region", &json!("string"), true, false),
        ];
        let fine = fit(&asked, given(json!({ "size": "s", "password": "hunter22", "disks": null }))).unwrap();
        assert_eq!(fine.plain, given(json!({ "size": "s" })));
        assert_eq!(fine.secret, given(json!({ "password": "hunter22" })));
        for (wrong, name) in [
            (json!({ "size": "s" }), "password"),
            (json!({ "size": null, "password": "p" }), "size"),
            (json!({ "size": 1, "password": "p" }), "size"),
            (json!({ "size": "s", "password": "p", "disks": [1, "2"] }), "disks"),
            (json!({ "size": "s", "password": "p", "sizes": "s" }), "sizes"),
            (json!({ "size": "s", "password": "p", "gantry_name": "x" }), "gantry_name"),
            (json!({ "size": "s", "password": "p", "region": "x" }), "region"),
        ] {
            assert_eq!(fit(&asked, given(wrong)).unwrap_err().name, name);
        }
    }

    #[test]
    fn every_word_is_read_back_and_says_what_to_do() {
        for problem in ModuleProblem::ALL {
            assert_eq!(problem.as_str().parse(), Ok(*problem));
            assert!(problem.describe().ends_with('.'));
        }
        for state in ModuleState::ALL {
            assert_eq!(state.as_str().parse(), Ok(*state));
        }
        let git = Source::Git { url: "https://a.example/b".to_owned(), reference: "v1".to_owned(), path: None };
        let kept = json!({ "git": { "url": "https://a.example/b", "ref": "v1", "path": null } });
        assert_eq!(serde_json::to_value(&git).unwrap(), kept);
        assert_eq!(serde_json::to_value(Source::Archive).unwrap(), json!("archive"));
    }
}
