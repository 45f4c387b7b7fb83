//! What all templates keep, whatever the cloud: they are checked against what the plugins take, without any plugin.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::account::{Architecture, Catalogue, Extras, Image, Offer, Region, Size};
use super::price::Price;
use super::template::{literal, plugin};
use super::*;

const FACTS: &str = include_str!("../../fixtures/terraform-resources.json");

/// What all resources take.
const META: [&str; 4] = ["lifecycle", "depends_on", "count", "provider"];

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0v8hBPnhsq4z3vSaDTc7kW1cbH7lN5y9ZGbM2CtPqM acme";

fn image_of(vendor: Vendor) -> &'static str {
    match vendor {
        Vendor::Aws => "ubuntu-24.04",
        Vendor::Gcp => "debian-cloud/debian-12",
        Vendor::Azure => "Debian:debian-12:12-gen2",
        Vendor::Digitalocean => "debian-12-x64",
        Vendor::Hetzner => "debian-12",
    }
}

/// A catalogue with one region, one size and one image more than is wanted.
pub(super) fn catalogue(vendor: Vendor) -> Catalogue {
    let region = |id: &str| Region {
        id: id.to_owned(),
        name: String::new(),
        available: true,
        network_zone: "eu-central".to_owned(),
    };
    let size = |id: &str, cores: u32, available: bool| Size {
        id: id.to_owned(),
        cores,
        memory_mib: u64::from(cores) * 2_048,
        disk_gib: if matches!(vendor, Vendor::Hetzner | Vendor::Digitalocean) { 40 } else { 0 },
        architecture: Architecture::X86,
        family: String::new(),
        deprecated: false,
        offers: vec![Offer {
            region: "place-1".to_owned(),
            zones: vec!["place-1b".to_owned()],
            available,
            hourly: Price::read("0.0104"),
            monthly: Price::read("7.592"),
        }],
    };
    let image = |id: &str, architecture| Image { id: id.to_owned(), name: String::new(), architecture };
    Catalogue {
        currency: "USD",
        regions: vec![region("place-1"), region("place-2")],
        sizes: vec![size("small", 1, true), size("medium", 2, false), size("large", 4, true)],
        images: vec![image(image_of(vendor), Some(Architecture::X86)), image("other-1", Some(Architecture::Arm))],
        extras: Extras { volume_gib: Price::read("0.05"), disk_gib: Price::read("0.1"), address: Price::read("3.65") },
    }
}

pub(super) fn everything() -> Options<'static> {
    Options {
        organization: "org_1",
        run: "run_1",
        ssh_sources: Some(vec!["203.0.113.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()]),
        rules: vec![
            Rule {
                protocol: Protocol::Udp,
                ports: Some((51_820, 51_830)),
                sources: vec!["0.0.0.0/0".parse().unwrap()],
                description: "A tunnel ${file(\"/etc/passwd\")}".to_owned(),
            },
            Rule {
                protocol: Protocol::Icmp,
                ports: None,
                sources: vec!["198.51.100.7/32".parse().unwrap()],
                description: String::new(),
            },
        ],
        network: Some(Network { range: "10.20.0.0/16".parse().unwrap(), subnet: "10.20.0.0/16".parse().unwrap() }),
        static_address: true,
        volume_gib: Some(100),
        disk_gib: Some(80),
        secret: &[7; 32],
        ..Options::default()
    }
}

pub(super) fn with<T>(
    vendor: Vendor,
    options: Options<'_>,
    labels: &BTreeMap<String, String>,
    then: impl FnOnce(Blueprint<'_>) -> T,
) -> T {
    then(Blueprint {
        run: "",
        label: "srv_01JABCDEF",
        name: "web-1",
        region: "place-1",
        size: "small",
        image: image_of(vendor),
        authorized_key: KEY,
        labels,
        options,
    })
}

fn made(vendor: Vendor, options: Options<'_>) -> Template {
    let labels = BTreeMap::from([("team".to_owned(), "Über ${path.root} %{ if true }100%".to_owned())]);
    with(vendor, options, &labels, |wanted| template(vendor, &wanted, &catalogue(vendor)).unwrap())
}

fn variants(vendor: Vendor) -> [Template; 2] {
    [made(vendor, Options { secret: &[7; 32], ..Options::default() }), made(vendor, everything())]
}

/// Whether a resource or a block of one takes what it is given, and has what it needs.
fn check(given: &Map<String, Value>, facts: &Value, at: &str, wrong: &mut Vec<String>) {
    let named = |member: &str| facts[member].as_array().into_iter().flatten().filter_map(Value::as_str);
    let known: BTreeSet<&str> = named("required").chain(named("optional")).chain(META).collect();
    wrong
        .extend(given.keys().filter(|name| !known.contains(name.as_str())).map(|name| format!("{at} takes no {name}")));
    wrong.extend(named("required").filter(|name| !given.contains_key(*name)).map(|name| format!("{at} needs {name}")));
    for (name, block) in facts["blocks"].as_object().into_iter().flatten() {
        let Some(value) = given.get(name) else { continue };
        let Some(blocks) = value.as_array() else {
            wrong.push(format!("{at}.{name} is a list of blocks"));
            continue;
        };
        for one in blocks {
            match one.as_object() {
                Some(one) => check(one, block, &format!("{at}.{name}"), wrong),
                None => wrong.push(format!("{at}.{name} has something that is no block")),
            }
        }
    }
}

fn check_all(vendor: Vendor, configuration: &Value) -> Vec<String> {
    let facts: Value = serde_json::from_str(FACTS).unwrap();
    let (name, source, version) = plugin(vendor);
    let facts = &facts["plugins"][name];
    let mut wrong = Vec::new();
    assert_eq!(facts["source"], format!("registry.terraform.io/{source}"));
    // What was checked is a version that is taken.
    let (major, minor) = version.strip_prefix("~> ").unwrap().split_once('.').unwrap();
    assert!(facts["version"].as_str().unwrap().starts_with(&format!("{major}.{minor}.")), "{name}");
    for (section, kinds) in [("resource", "resources"), ("data", "data")] {
        for (kind, all) in configuration[section].as_object().into_iter().flatten() {
            match facts[kinds].get(kind) {
                None => wrong.push(format!("there is no {section} {kind}")),
                Some(facts) => {
                    for (name, given) in all.as_object().unwrap() {
                        check(given.as_object().unwrap(), facts, &format!("{kind}.{name}"), &mut wrong);
                    }
                }
            }
        }
    }
    for output in ["address", "port", "user", "host_key"] {
        if configuration["output"][output]["value"].is_null() {
            wrong.push(format!("there is no output {output}"));
        }
    }
    wrong
}

/// Every text in a value, and every name.
fn texts<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(all) => all.iter().for_each(|it| texts(it, found)),
        Value::Object(all) => all.iter().for_each(|(name, it)| {
            found.push(name);
            texts(it, found);
        }),
        _ => {}
    }
}

/// Reads a text as Terraform does, as far as ours go: what is between braces is a quoted character, or an expression, which
/// is told.
fn evaluate(text: &str) -> (String, Vec<String>) {
    let (mut plain, mut expressions, mut rest) = (String::new(), Vec::new(), text);
    while let Some(at) = rest.find(['$', '%']) {
        let (before, from) = rest.split_at(at);
        plain.push_str(before);
        if let Some(after) = from.strip_prefix("$${").or_else(|| from.strip_prefix("%%{")) {
            plain.push_str(if from.starts_with('$') { "${" } else { "%{" });
            rest = after;
        } else if let Some(inner) = from.strip_prefix("${").or_else(|| from.strip_prefix("%{")) {
            let (expression, after) = inner.split_once('}').unwrap();
            match expression {
                "\"$\"" => plain.push('$'),
                "\"%\"" => plain.push('%'),
                expression => expressions.push(expression.to_owned()),
            }
            rest = after;
        } else {
            let (sign, after) = from.split_at(1);
            plain.push_str(sign);
            rest = after;
        }
    }
    plain.push_str(rest);
    (plain, expressions)
}

#[test]
fn every_template_is_what_its_plugin_takes() {
    for vendor in Vendor::ALL {
        for template in variants(vendor) {
            let wrong = check_all(vendor, &template.configuration);
            assert!(wrong.is_empty(), "{vendor}: {wrong:#?}");
            assert_eq!(template.configuration["output"]["user"]["value"], "deploy");
            assert_eq!(template.configuration["output"]["port"]["value"], 22);
            let host_key = template.configuration["output"]["host_key"]["value"].as_str().unwrap();
            assert!(host_key.starts_with("ssh-ed25519 AAAA"));
            assert!(template.needs_docker && template.monthly_cost > 0);
        }
    }
}

#[test]
fn an_argument_that_is_unknown_or_missing_is_found() {
    for vendor in Vendor::ALL {
        let mut configuration = made(vendor, everything()).configuration;
        let kinds = configuration["resource"].as_object_mut().unwrap();
        let all = kinds.values_mut().next().unwrap().as_object_mut().unwrap();
        let first = all.values_mut().next().unwrap().as_object_mut().unwrap();
        first.insert("nonsense".to_owned(), json!(1));
        kinds.insert("nothing_such".to_owned(), json!({ "one": {} }));
        configuration["output"].as_object_mut().unwrap().remove("host_key");
        let wrong = check_all(vendor, &configuration).join("\n");
        for expected in ["takes no nonsense", "there is no resource nothing_such", "there is no output host_key"] {
            assert!(wrong.contains(expected), "{vendor}: {wrong}");
        }
    }
    let mut configuration = made(Vendor::Hetzner, everything()).configuration;
    configuration["resource"]["hcloud_server"]["server"].as_object_mut().unwrap().remove("server_type");
    configuration["resource"]["hcloud_firewall"]["firewall"]["rule"][0].as_object_mut().unwrap().remove("direction");
    let wrong = check_all(Vendor::Hetzner, &configuration);
    assert_eq!(wrong, ["hcloud_firewall.firewall.rule needs direction", "hcloud_server.server needs server_type"]);
}

#[test]
fn what_is_referred_to_is_there() {
    for vendor in Vendor::ALL {
        for template in variants(vendor) {
            let configuration = &template.configuration;
            let mut found = Vec::new();
            texts(configuration, &mut found);
            let mut references = 0;
            for expression in found.iter().flat_map(|text| evaluate(text).1) {
                let expression =
                    expression.strip_prefix("base64encode(").map_or(&*expression, |it| it.trim_end_matches(')'));
                let parts: Vec<&str> = expression.split('.').collect();
                let there = match parts[..] {
                    ["var", name] => &configuration["variable"][name],
                    ["data", kind, name, ..] => &configuration["data"][kind][name],
                    [kind, name, ..] => &configuration["resource"][kind][name],
                    _ => &Value::Null,
                };
                assert!(!there.is_null(), "{vendor}: {expression}");
                references += 1;
            }
            assert!(references > 4);
            for all in
                configuration["resource"].as_object().unwrap().values().flat_map(|it| it.as_object().unwrap().values())
            {
                for needed in all["depends_on"].as_array().into_iter().flatten() {
                    let (kind, name) = needed.as_str().unwrap().split_once('.').unwrap();
                    assert!(!configuration["resource"][kind][name].is_null(), "{vendor}: {needed}");
                }
            }
        }
    }
}

#[test]
fn secrets_and_user_data_are_in_the_environment_and_not_in_the_configuration() {
    for vendor in Vendor::ALL {
        for template in variants(vendor) {
            let [(name, user_data)] = &template.environment[..] else { panic!("{vendor}") };
            assert_eq!(name, "TF_VAR_user_data");
            assert!(user_data.starts_with("#cloud-config\n{") && user_data.contains("PRIVATE KEY"));
            let written = template.configuration.to_string();
            assert!(!written.contains("PRIVATE KEY") && !written.contains("cloud-config"), "{vendor}");
            assert_eq!(template.configuration["variable"]["user_data"]["sensitive"], true);
        }
    }
}

#[test]
fn people_get_in_beside_the_platform_on_every_cloud() {
    let other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea ada's ${key}";
    for vendor in Vendor::ALL {
        let template = made(vendor, Options { authorized_keys: vec![other.to_owned()], ..everything() });
        let data: Value =
            serde_json::from_str(template.environment[0].1.strip_prefix("#cloud-config\n").unwrap()).unwrap();
        let files = data["write_files"].as_array().unwrap();
        let keys = files.iter().find(|file| file["path"] == "/etc/ssh/gantry_authorized_keys").unwrap();
        assert_eq!(keys["content"], format!("{KEY}\n{other}\n"), "{vendor}");
        assert!(!template.configuration.to_string().contains("ada's"), "{vendor}");
    }
}

#[test]
fn everything_that_has_labels_carries_them() {
    let unlabelled = [
        "hcloud_network_subnet",
        "hcloud_volume_attachment",
        "digitalocean_ssh_key",
        "digitalocean_vpc",
        "digitalocean_firewall",
        "digitalocean_reserved_ip",
        "digitalocean_reserved_ip_assignment",
        "digitalocean_volume_attachment",
        "aws_route",
        "aws_route_table_association",
        "aws_eip_association",
        "aws_volume_attachment",
        "google_compute_network",
        "google_compute_subnetwork",
        "google_compute_firewall",
        "azurerm_subnet",
        "azurerm_network_security_rule",
        "azurerm_network_interface_security_group_association",
        "azurerm_virtual_machine_data_disk_attachment",
    ];
    for vendor in Vendor::ALL {
        let template = made(vendor, everything());
        for (kind, all) in template.configuration["resource"].as_object().unwrap() {
            for (name, given) in all.as_object().unwrap() {
                let written = given.to_string();
                let labelled = ["srv_01JABCDEF", "org_1", "run_1"].iter().all(|it| {
                    let it = if vendor == Vendor::Gcp { it.to_ascii_lowercase() } else { (*it).to_owned() };
                    written.contains(&it)
                });
                let named = written.contains("gantry-srv-01jabcdef");
                assert!(labelled || unlabelled.contains(&kind.as_str()), "{kind}.{name}");
                // What has neither is part of something, or holds two things together.
                let is_part =
                    kind.contains("attachment") || kind.contains("assignment") || kind.contains("association");
                let other =
                    ["hcloud_network_subnet", "aws_route", "digitalocean_reserved_ip", "azurerm_network_security_rule"];
                assert!(labelled || named || is_part || other.contains(&kind.as_str()), "{kind}.{name}");
            }
        }
    }
}

#[test]
fn the_firewall_lets_in_whom_it_is_told_to() {
    let template = made(Vendor::Hetzner, everything());
    let rules = template.configuration["resource"]["hcloud_firewall"]["firewall"]["rule"].clone();
    assert_eq!(rules[0]["port"], "22");
    assert_eq!(rules[0]["source_ips"], json!(["203.0.113.0/24", "2001:db8::/32"]));
    assert_eq!((&rules[1]["port"], &rules[2]["port"]), (&json!("80"), &json!("443")));
    assert_eq!(rules[3]["port"], "51820-51830");
    assert!(rules[4].get("port").is_none());
    let none = Options { ssh_sources: Some(Vec::new()), secret: &[7; 32], ..Options::default() };
    let closed = made(Vendor::Azure, none);
    let rules = closed.configuration["resource"]["azurerm_network_security_rule"].as_object().unwrap();
    assert!(rules.values().all(|rule| rule["destination_port_range"] != "22"));
}

#[test]
fn the_cost_is_that_of_the_server_its_address_and_its_disks() {
    let labels = BTreeMap::new();
    let estimate = |vendor, options| with(vendor, options, &labels, |wanted| catalogue(vendor).estimate(&wanted));
    let plain = estimate(Vendor::Hetzner, Options::default());
    assert_eq!(plain.monthly, Price::read("11.242"));
    assert!(plain.without.contains(&"taxes"));
    // Where the size has its disk, nobody pays for it again.
    assert_eq!(estimate(Vendor::Hetzner, everything()).monthly, Price::read("16.242"));
    let aws = estimate(Vendor::Aws, everything());
    assert_eq!(aws.monthly, Price::read("24.242"));
    assert_eq!(aws.parts.len(), 4);
    assert_eq!(made(Vendor::Aws, everything()).monthly_cost, 2_425);
    // The usual disk is paid for too.
    assert_eq!(estimate(Vendor::Aws, Options::default()).monthly, Price::read("16.242"));
    let mut silent = catalogue(Vendor::Aws);
    silent.sizes[0].offers[0].monthly = None;
    let options = Options { secret: &[7; 32], ..Options::default() };
    let refusal = with(Vendor::Aws, options, &labels, |wanted| template(Vendor::Aws, &wanted, &silent).unwrap_err());
    assert!(refusal.said.contains("does not say what small costs"));
}

#[test]
fn a_catalogue_can_be_written_down_and_read_again() {
    for vendor in Vendor::ALL {
        let catalogue = catalogue(vendor);
        let written = serde_json::to_string(&catalogue).unwrap();
        assert!(written.contains(r#""hourly":"0.0104""#) && written.contains(r#""architecture":"x86""#), "{written}");
        assert_eq!(serde_json::from_str::<Catalogue>(&written).unwrap(), catalogue);
        let other = written.replace("USD", "CHF");
        assert!(serde_json::from_str::<Catalogue>(&other).is_err());
    }
}

#[test]
fn what_cannot_be_is_refused_with_what_could_be() {
    let labels = BTreeMap::new();
    let refused = |vendor: Vendor, options: Options<'_>, change: &dyn Fn(&mut Blueprint<'_>)| {
        with(vendor, Options { secret: &[7; 32], ..options }, &labels, |mut wanted| {
            change(&mut wanted);
            template(vendor, &wanted, &catalogue(vendor)).unwrap_err()
        })
    };
    let plain = |change: &dyn Fn(&mut Blueprint<'_>)| refused(Vendor::Hetzner, Options::default(), change);
    for (refusal, because, said) in [
        (plain(&|it| it.region = "plaec-1"), Because::Region, "did you mean place-1, place-2?"),
        (plain(&|it| it.size = "smalls"), Because::Size, "did you mean small"),
        (plain(&|it| it.size = "medium"), Because::Capacity, "it has large"),
        (plain(&|it| it.region = "place-2"), Because::Size, "it is in place-1"),
        (plain(&|it| it.image = "debian-21"), Because::Image, "did you mean debian-12"),
        (plain(&|it| it.image = "other-1"), Because::Image, "does not run on small"),
        (plain(&|it| it.name = "web_1"), Because::Name, "is no host name"),
        (plain(&|it| it.name = "${self}"), Because::Name, "is no host name"),
    ] {
        assert_eq!(refusal.because, because, "{}", refusal.said);
        assert!(refusal.said.contains(said), "{}", refusal.said);
    }
    let network = |range: &str, subnet: &str| Options {
        network: Some(Network { range: range.parse().unwrap(), subnet: subnet.parse().unwrap() }),
        others: vec!["10.30.0.0/20".parse().unwrap()],
        ..Options::default()
    };
    for (vendor, range, subnet, said) in [
        (Vendor::Aws, "10.0.0.0/16", "10.1.0.0/24", "is no part of"),
        (Vendor::Aws, "10.30.0.0/16", "10.30.1.0/24", "overlaps 10.30.0.0/20"),
        (Vendor::Aws, "8.8.0.0/16", "8.8.8.0/24", "is not private"),
        (Vendor::Aws, "172.16.0.0/15", "172.17.1.0/24", "from /16 to /28"),
        (Vendor::Aws, "172.17.0.0/16", "172.17.1.0/24", "Docker"),
        (Vendor::Aws, "10.0.0.1/16", "10.0.1.0/24", "write 10.0.0.0/16"),
        (Vendor::Digitalocean, "10.10.0.0/20", "10.10.0.0/20", "keeps for itself"),
        (Vendor::Digitalocean, "10.50.0.0/20", "10.50.0.0/24", "have no parts"),
    ] {
        let refusal = refused(vendor, network(range, subnet), &|_| {});
        assert_eq!(refusal.because, Because::Network);
        assert!(refusal.said.contains(said), "{}", refusal.said);
    }
    let rule = |protocol, ports| Options {
        rules: vec![Rule { protocol, ports, sources: vec!["0.0.0.0/0".parse().unwrap()], description: String::new() }],
        ..Options::default()
    };
    for (protocol, ports) in [
        (Protocol::Icmp, Some((1, 1))),
        (Protocol::Tcp, None),
        (Protocol::Udp, Some((9, 8))),
        (Protocol::Tcp, Some((0, 1))),
    ] {
        assert_eq!(refused(Vendor::Gcp, rule(protocol, ports), &|_| {}).because, Because::Network);
    }
}

#[test]
fn terraform_reads_what_is_written() {
    let Some(program) =
        crate::terraform::process::find("terraform").or_else(|| crate::terraform::process::find("tofu"))
    else {
        println!("this test needs terraform or tofu in PATH, and is left out without");
        return;
    };
    let run = |directory: &std::path::Path, arguments: &[&str]| {
        #[expect(clippy::disallowed_methods, reason = "a test, of a program that ends by itself")]
        let mut command = Command::new(&program);
        let command =
            command.args(arguments).current_dir(directory).env("TF_CLI_CONFIG_FILE", directory.join("none.rc"));
        std::fs::write(directory.join("none.rc"), "disable_checkpoint = true\n").unwrap();
        let said = command.output().unwrap();
        assert!(
            said.status.success(),
            "{}{}",
            String::from_utf8_lossy(&said.stdout),
            String::from_utf8_lossy(&said.stderr)
        );
        String::from_utf8(said.stdout).unwrap()
    };
    for vendor in Vendor::ALL {
        let directory = tempfile::tempdir().unwrap();
        let template = made(vendor, everything());
        std::fs::write(directory.path().join("main.tf.json"), template.configuration.to_string()).unwrap();
        // It has no plugin, and without one it reads everything but what is the plugin's.
        let said = run(directory.path(), &["providers"]);
        assert!(said.contains(plugin(vendor).1), "{said}");
    }
    let directory = tempfile::tempdir().unwrap();
    let nasty = [
        "${path.root}",
        "$${path.root}",
        "$$${path.root}",
        "%{ if true }x%{ endif }",
        "%%{ if",
        "%%%{ for",
        "$",
        "%",
        "$$",
        "a\"b\\n\n\tc",
        "${\"$\"}{x}",
        "~}",
        "é${",
        "100%",
        "$%{$",
    ];
    let outputs: Map<String, Value> =
        nasty.iter().enumerate().map(|(at, text)| (format!("o{at:02}"), json!({ "value": literal(text) }))).collect();
    let configuration = json!({ "output": outputs });
    std::fs::write(directory.path().join("main.tf.json"), configuration.to_string()).unwrap();
    run(directory.path(), &["init", "-input=false"]);
    run(directory.path(), &["apply", "-auto-approve", "-input=false", "-no-color"]);
    let said: Value = serde_json::from_str(&run(directory.path(), &["output", "-json"])).unwrap();
    for (at, text) in nasty.iter().enumerate() {
        assert_eq!(said[format!("o{at:02}")]["value"], *text);
    }
}

proptest! {
    #[test]
    fn whatever_is_written_stays_a_text(text in r#"[a${}%"~\\ \n]{0,40}|.{0,60}"#) {
        let (plain, expressions) = evaluate(&literal(&text));
        prop_assert_eq!(plain, text);
        prop_assert!(expressions.is_empty());
    }
}

proptest! {
    // Ten templates each.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_text_of_a_customer_becomes_an_expression(text in r#"[a${}%"~.]{0,60}"#, name in "[a-z${}%.]{1,20}") {
        let labels = BTreeMap::from([(name, text.clone())]);
        for vendor in Vendor::ALL {
            let mut options = everything();
            options.rules[0].description.clone_from(&text);
            let key = format!("{KEY} {text}");
            let expressions = |template: &Template| {
                let mut found = Vec::new();
                texts(&template.configuration, &mut found);
                let mut found: Vec<String> = found.iter().flat_map(|text| evaluate(text).1).collect();
                found.sort();
                found
            };
            let ours = expressions(&made(vendor, everything()));
            let theirs = with(vendor, options, &labels, |wanted| {
                let wanted = Blueprint { authorized_key: &key, ..wanted };
                expressions(&template(vendor, &wanted, &catalogue(vendor)).unwrap())
            });
            prop_assert_eq!(ours, theirs, "{}", vendor);
        }
    }
}
