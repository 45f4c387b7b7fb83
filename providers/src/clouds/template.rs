//! What is written for Terraform to make a server, whatever the cloud: the frame, and how texts become part of it.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_lc_rs::hmac;
use ipnet::IpNet;
use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::Ed25519Keypair;
use serde_json::{Map, Value, json};

use super::account::Catalogue;
use super::cloud_init::{self, FirstKey, USER, VARIABLE};
use super::plausible::{self, Plausible};
use super::{Because, Blueprint, Protocol, Refusal, Rule, Template, Vendor, aws, azure, digitalocean, gcp, hetzner};

/// How long a machine may take from its making until it lets us in: it installs what it needs before.
pub(crate) const PATIENCE: Duration = Duration::from_mins(15);

/// The label by which everything that is made for a server is found.
pub(crate) const LABEL: &str = "gantry-server";

/// The label that says for whom it was made.
pub(super) const ORGANIZATION: &str = "gantry-organization";

/// The label that says who made it: several installations may work on one account.
pub(super) const INSTALLATION: &str = "gantry-installation";

/// What a template is made of.
pub(super) struct Parts<'a> {
    pub(super) wanted: &'a Blueprint<'a>,
    pub(super) of: Plausible<'a>,
    /// The name of what has no label, and of all that needs a name besides.
    pub(super) name: String,
}

/// What a cloud adds to the frame.
pub(super) struct Pieces {
    pub(super) resources: Value,
    pub(super) data: Value,
    /// Where it is reached.
    pub(super) address: String,
    /// The path at which the machine finds its volume.
    pub(super) volume: Option<&'static str>,
}

/// What Terraform is given to make a server.
///
/// # Errors
/// When it cannot be as it is wanted, going by the catalogue.
pub fn template(vendor: Vendor, wanted: &Blueprint<'_>, from: &Catalogue) -> Result<Template, Refusal> {
    let of = plausible::check(vendor, wanted, from)?;
    let estimate = from.estimate(wanted);
    let Some(monthly) = estimate.monthly else {
        let said = format!("{} does not say what {} costs, and no limit could be kept", vendor.title(), of.size.id);
        return Err(Refusal { because: Because::Price, said });
    };
    let parts = Parts { wanted, of, name: name(wanted.label) };
    let first = FirstKey::of(wanted.options.secret, wanted.label)?;
    let pieces = match vendor {
        Vendor::Hetzner => hetzner::pieces(&parts)?,
        Vendor::Digitalocean => digitalocean::pieces(&parts)?,
        Vendor::Aws => aws::pieces(&parts)?,
        Vendor::Gcp => gcp::pieces(&parts),
        Vendor::Azure => azure::pieces(&parts),
    };
    let volume = pieces.volume.filter(|_| wanted.options.volume_gib.is_some());
    let user_data = cloud_init::user_data(wanted, &first, volume)?;
    let mut configuration = frame(vendor);
    if vendor == Vendor::Aws {
        configuration["provider"]["aws"]["region"] = literal(wanted.region).into();
    }
    configuration["variable"] = json!({ VARIABLE: { "type": "string", "sensitive": true, "default": "" } });
    configuration["resource"] = pieces.resources;
    if !pieces.data.is_null() {
        configuration["data"] = pieces.data;
    }
    configuration["output"] = json!({
        "address": { "value": pieces.address },
        "port": { "value": 22 },
        "user": { "value": USER },
        "host_key": { "value": literal(&first.public) },
    });
    Ok(Template {
        configuration,
        files: Vec::new(),
        environment: vec![(format!("TF_VAR_{VARIABLE}"), user_data)],
        monthly_cost: monthly.cents(),
        currency: estimate.currency,
        patience: PATIENCE,
        needs_docker: true,
        first_key: true,
        module: None,
        confined: true,
    })
}

/// What Terraform is given where nothing is to be: the plugin of the cloud, and how it is set up.
#[must_use]
pub fn of_nothing(vendor: Vendor, region: &str) -> Template {
    let mut configuration = frame(vendor);
    if vendor == Vendor::Aws {
        configuration["provider"]["aws"]["region"] = literal(region).into();
    }
    Template { configuration, confined: true, ..Template::of_nothing() }
}

fn frame(vendor: Vendor) -> Value {
    let (plugin, source, version) = plugin(vendor);
    let settings = match vendor {
        Vendor::Azure => json!({ "features": {} }),
        _ => json!({}),
    };
    json!({
        "terraform": {
            "required_version": ">= 1.5",
            "required_providers": { plugin: { "source": source, "version": version } },
        },
        "provider": { plugin: settings },
    })
}

/// The plugin of a cloud: its name, where it is, and which of it. The next major may want something else.
pub(super) const fn plugin(vendor: Vendor) -> (&'static str, &'static str, &'static str) {
    match vendor {
        Vendor::Aws => ("aws", "hashicorp/aws", "~> 6.25"),
        Vendor::Gcp => ("google", "hashicorp/google", "~> 6.50"),
        Vendor::Azure => ("azurerm", "hashicorp/azurerm", "~> 4.55"),
        Vendor::Digitalocean => ("digitalocean", "digitalocean/digitalocean", "~> 2.71"),
        Vendor::Hetzner => ("hcloud", "hetznercloud/hcloud", "~> 1.68"),
    }
}

/// A text as Terraform takes it for itself. A `$` or a `%` before a brace would begin something else, and doubling it does
/// not help where two of them stand together; so each becomes a piece of its own.
pub(crate) fn literal(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '$' => written.push_str("${\"$\"}"),
            '%' => written.push_str("${\"%\"}"),
            other => written.push(other),
        }
    }
    written
}

/// The name of everything that is made for a server.
pub(super) fn name(label: &str) -> String {
    let label = clean(&label.to_ascii_lowercase(), "-", 50);
    format!("gantry-{label}")
}

/// What is left of a text where only letters, digits and some others may be, and not at its ends.
pub(crate) fn clean(text: &str, others: &str, most: usize) -> String {
    let fits = |it: char| it.is_ascii_alphanumeric() || others.contains(it);
    let text: String = text.chars().map(|it| if fits(it) { it } else { '-' }).take(most).collect();
    text.trim_matches(|it: char| !it.is_ascii_alphanumeric()).to_owned()
}

impl Parts<'_> {
    /// What everything carries: ours first, then the customer's. Names are what all clouds take; what a value may have
    /// besides letters and digits is the cloud's.
    pub(super) fn labels(&self, others: &str, most: usize, lower: bool) -> BTreeMap<String, String> {
        let value = |text: &str| {
            let text = clean(text, others, most);
            literal(&if lower { text.to_ascii_lowercase() } else { text })
        };
        let options = &self.wanted.options;
        let ours = [
            (LABEL, self.wanted.label),
            (ORGANIZATION, options.organization),
            (INSTALLATION, options.installation),
            ("gantry-run", options.run),
        ];
        let ours = ours.into_iter().filter(|(_, text)| !text.is_empty());
        let mut labels: BTreeMap<String, String> = BTreeMap::new();
        for (name, text) in self.wanted.labels.iter().take(20) {
            let name = clean(&name.to_ascii_lowercase(), "_-", 60);
            let is_name = name.starts_with(|first: char| first.is_ascii_lowercase());
            if is_name && !["gantry", "aws", "goog", "azure", "microsoft"].iter().any(|it| name.starts_with(it)) {
                labels.insert(name, value(text));
            }
        }
        labels.extend(ours.map(|(name, text)| (name.to_owned(), value(text))));
        labels
    }

    /// Everybody who is let in.
    pub(super) fn rules(&self) -> Vec<Rule> {
        let everywhere: Vec<IpNet> = ["0.0.0.0/0", "::/0"].iter().filter_map(|all| all.parse().ok()).collect();
        let options = &self.wanted.options;
        let ssh = options.ssh_sources.clone().unwrap_or_else(|| everywhere.clone());
        let rule = |port: u16, sources: Vec<IpNet>, what: &str| Rule {
            protocol: Protocol::Tcp,
            ports: Some((port, port)),
            sources,
            description: what.to_owned(),
        };
        let usual = [rule(22, ssh, "SSH"), rule(80, everywhere.clone(), "HTTP"), rule(443, everywhere, "HTTPS")];
        usual.into_iter().chain(options.rules.iter().cloned()).filter(|rule| !rule.sources.is_empty()).collect()
    }

    /// A key that nobody has the other half of. Some clouds send a password by mail to whom they find no key for, and take
    /// each key once; and the customer's is the machine's own business.
    pub(super) fn nobodys_key(&self) -> Result<String, Refusal> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.wanted.options.secret);
        let made = hmac::sign(&key, format!("nobody's key for {}", self.wanted.label).as_bytes());
        let seed: Option<[u8; 32]> = made.as_ref().try_into().ok();
        let key = seed.map(|seed| PrivateKey::from(Ed25519Keypair::from_seed(&seed)));
        let public = key.and_then(|key| key.public_key().to_openssh().ok());
        public.ok_or_else(|| Refusal { because: Because::Off, said: "no key can be made".to_owned() })
    }
}

/// The variable with the user data, as a value.
pub(super) fn user_data() -> String {
    format!("${{var.{VARIABLE}}}")
}

/// Ports as most clouds write them.
pub(super) fn ports((first, last): (u16, u16)) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

/// Members, as a value.
pub(super) fn object(members: BTreeMap<String, String>) -> Value {
    Value::Object(members.into_iter().map(|(name, value)| (name, value.into())).collect::<Map<_, _>>())
}
