//! What is written for Terraform to make a server of a module: a configuration of ours that calls it, gives it what it asks
//! for, and answers what it answers. Where the state is kept, and with what credential, is none of the module's business.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::policy::provider_sources;
use super::{GIVEN, NEEDED, Tree, USER_DATA};
use crate::clouds::cloud_init::{self, FirstKey};
use crate::clouds::template::{LABEL, PATIENCE, clean, literal};
use crate::clouds::{Blueprint, File, Refusal, Template, Vendor};

/// Where what the module is given lies: beside the configuration, in a directory that nobody else looks into.
const VALUES: &str = "inputs.auto.tfvars.json";

/// How long a machine of the sandbox may take until it lets us in.
const IN_SANDBOX: Duration = Duration::from_secs(10);

/// What an organization wrote, beside the configuration that calls it.
#[derive(Debug, Clone, PartialEq)]
pub struct Laid {
    /// Its files.
    pub tree: Arc<Tree>,
    /// What it is given and nobody may see.
    pub secrets: Vec<String>,
    /// Plugins it may use.
    pub providers: Vec<String>,
}

/// A module, and what it is given.
#[derive(Debug, Clone)]
pub struct Given<'a> {
    /// Its files.
    pub tree: Arc<Tree>,
    /// The directory among them that is the module; [`super::is_plain`].
    pub directory: &'a str,
    /// The cloud it is for; `None`: the sandbox.
    pub vendor: Option<Vendor>,
    /// What it asks for, by name.
    pub asks: Vec<&'a str>,
    /// What it answers, by name.
    pub answers: Vec<&'a str>,
    /// The plugins it uses: its name for each, and where that is.
    pub providers: &'a [(String, String)],
    /// What it is given and may be seen.
    pub plain: &'a BTreeMap<String, Value>,
    /// What it is given and nobody may see.
    pub secret: &'a BTreeMap<String, Value>,
    /// Plugins that the operator lets modules use besides.
    pub more: &'a [String],
}

/// What Terraform is given to make a server of a module.
///
/// # Errors
/// When the platform cannot give it what it asks for.
pub fn template(wanted: &Blueprint<'_>, given: &Given<'_>) -> Result<Template, Refusal> {
    let answers_key = given.answers.contains(&"host_key");
    let asks_user_data = given.asks.contains(&USER_DATA);
    let first = if asks_user_data { Some(FirstKey::of(wanted.options.secret, wanted.label)?) } else { None };
    let user_data = first.as_ref().map(|first| cloud_init::user_data(wanted, first, None)).transpose()?;

    let mut values: Map<String, Value> =
        given.plain.iter().chain(given.secret).map(|(name, value)| (name.clone(), value.clone())).collect();
    for name in GIVEN.iter().filter(|name| given.asks.contains(name)) {
        let value = match *name {
            "gantry_labels" => json!(labels(wanted)),
            "gantry_name" => json!(wanted.name),
            "gantry_server_id" => json!(wanted.label),
            "gantry_ssh_public_key" => json!(wanted.authorized_key),
            USER_DATA => json!(user_data),
            _ => json!(wanted.region),
        };
        values.insert((*name).to_owned(), value);
    }
    let is_secret = |name: &str| name == USER_DATA || given.secret.contains_key(name);
    let variables: Map<String, Value> =
        values.keys().map(|name| (name.clone(), json!({ "sensitive": is_secret(name) }))).collect();
    let mut call: Map<String, Value> =
        values.keys().map(|name| (name.clone(), json!(format!("${{var.{name}}}")))).collect();
    let place = if given.directory.is_empty() { String::new() } else { format!("/{}", given.directory) };
    call.insert("source".to_owned(), json!(format!("./{}{place}", crate::terraform::MODULE)));

    // What somebody may not see may be in any of them, as far as Terraform knows.
    let output = |name: &str| json!({ "value": format!("${{module.server.{name}}}"), "sensitive": true });
    let mut outputs: Map<String, Value> = NEEDED.iter().map(|name| ((*name).to_owned(), output(name))).collect();
    let host_key = match (&first, answers_key) {
        (Some(first), false) => json!({ "value": literal(&first.public) }),
        _ => output("host_key"),
    };
    outputs.insert("host_key".to_owned(), host_key);

    let plugins: Map<String, Value> =
        given.providers.iter().map(|(name, source)| (name.clone(), json!({ "source": source }))).collect();
    let mut configuration = json!({
        "terraform": { "required_version": ">= 1.5" },
        "module": { "server": call },
        "output": outputs,
    });
    if !variables.is_empty() {
        configuration["variable"] = variables.into();
    }
    if !plugins.is_empty() {
        configuration["terraform"]["required_providers"] = plugins.into();
    }
    for (name, source) in given.providers {
        match source.as_str() {
            "hashicorp/aws" => configuration["provider"][name]["region"] = json!(literal(wanted.region)),
            "hashicorp/azurerm" => configuration["provider"][name]["features"] = json!({}),
            _ => {}
        }
    }
    let mut secrets = Vec::new();
    for (_, value) in values.iter().filter(|(name, _)| is_secret(name)) {
        texts(value, &mut secrets);
    }
    Ok(Template {
        configuration,
        files: vec![File { name: VALUES, contents: Value::Object(values).to_string() }],
        environment: Vec::new(),
        monthly_cost: 0,
        currency: "USD",
        patience: if given.vendor.is_some() { PATIENCE } else { IN_SANDBOX },
        needs_docker: asks_user_data,
        first_key: asks_user_data && !answers_key,
        confined: true,
        module: Some(Laid {
            tree: Arc::clone(&given.tree),
            secrets,
            providers: provider_sources(given.vendor, given.more),
        }),
    })
}

/// What everything that is made should carry, so that it is found when Terraform has lost sight of it.
fn labels(wanted: &Blueprint<'_>) -> BTreeMap<String, String> {
    let theirs = wanted.labels.iter().take(20);
    let theirs = theirs.map(|(name, text)| (clean(&name.to_ascii_lowercase(), "_-", 60), clean(text, "_-.", 60)));
    let options = &wanted.options;
    let ours = [(LABEL, wanted.label), ("gantry-organization", options.organization), ("gantry-run", options.run)];
    let ours = ours.into_iter().filter(|(_, text)| !text.is_empty());
    theirs
        .filter(|(name, _)| !name.is_empty())
        .chain(ours.map(|(name, text)| (name.to_owned(), text.to_owned())))
        .collect()
}

/// Every text in a value.
fn texts(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Number(number) => found.push(number.to_string()),
        Value::Array(list) => list.iter().for_each(|one| texts(one, found)),
        Value::Object(members) => members.values().for_each(|one| texts(one, found)),
        Value::Null | Value::Bool(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clouds::Options;

    fn made(asks: Vec<&str>, answers: Vec<&str>) -> Template {
        let labels = BTreeMap::from([("team".to_owned(), "shop".to_owned())]);
        let wanted = Blueprint {
            label: "srv_1",
            run: "run_1",
            name: "web-1",
            region: "nbg1",
            size: "",
            image: "",
            authorized_key: "ssh-ed25519 AAAA",
            labels: &labels,
            options: Options { secret: &[7; 32], ..Options::default() },
        };
        let plain = BTreeMap::from([("size".to_owned(), json!("${path.root}"))]);
        let secret = BTreeMap::from([("password".to_owned(), json!({ "a": ["hunter22"] }))]);
        let providers = [("hcloud".to_owned(), "hetznercloud/hcloud".to_owned())];
        let given = Given {
            tree: Arc::default(),
            directory: "modules/web",
            vendor: Some(Vendor::Hetzner),
            asks,
            answers,
            providers: &providers,
            plain: &plain,
            secret: &secret,
            more: &[],
        };
        template(&wanted, &given).unwrap()
    }

    #[test]
    fn a_module_is_called_with_what_it_asks_for_and_no_secret_is_in_the_configuration() {
        let template = made(
            vec!["size", "password", "region", "gantry_name", "gantry_labels"],
            vec!["address", "port", "user", "host_key"],
        );
        let call = &template.configuration["module"]["server"];
        assert_eq!(call["source"], "./module/modules/web");
        assert_eq!(call["password"], "${var.password}");
        assert_eq!(template.configuration["variable"]["password"]["sensitive"], true);
        assert_eq!(template.configuration["variable"]["size"]["sensitive"], false);
        assert_eq!(template.configuration["output"]["host_key"]["value"], "${module.server.host_key}");
        assert_eq!(
            template.configuration["terraform"]["required_providers"]["hcloud"]["source"],
            "hetznercloud/hcloud"
        );
        assert!(!template.configuration.to_string().contains("hunter22"));
        let values: Value = serde_json::from_str(&template.files[0].contents).unwrap();
        assert_eq!(values["size"], "${path.root}", "in this file a text is what it is");
        assert_eq!((&values["region"], &values["gantry_name"]), (&json!("nbg1"), &json!("web-1")));
        assert_eq!(values["gantry_labels"]["gantry-server"], "srv_1");
        assert_eq!(template.module.unwrap().secrets, ["hunter22"]);
        assert!(!template.first_key && !template.needs_docker);
    }

    #[test]
    fn a_machine_that_is_told_how_to_begin_has_the_platforms_first_host_key() {
        let template = made(vec![USER_DATA], vec!["address", "port", "user"]);
        let first = FirstKey::of(&[7; 32], "srv_1").unwrap();
        assert_eq!(template.configuration["output"]["host_key"]["value"], first.public);
        assert!(template.first_key && template.needs_docker);
        assert!(template.module.unwrap().secrets[0].contains("#cloud-config"));
    }
}
