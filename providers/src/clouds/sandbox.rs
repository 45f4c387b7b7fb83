//! The sandbox: a cloud without an account. What is made there is real all the same: Terraform plans, makes and removes
//! resources that are built into it, and a server is a machine in the small, an OpenSSH server of its own on a port of
//! loopback.
//!
//! Names make it fail: `fail-quota…` before anything is made, `fail-plan…` when it is planned, `fail-apply…` half-way,
//! `fail-ssh…`, `fail-login…` and `fail-host-key…` when it is looked at; `slow…` takes half a minute. `drift…` is made, and
//! then changed by somebody else.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::account::{self, Architecture, Catalogue, Extras, Image, Mark, Marked, Offer, Region, Thing};
use super::plausible::{meant, nearest};
use super::price::{HOURS, Price};
use super::{Because, Blueprint, File, Refusal, Rule, Template};
use crate::terraform::{Terraform, process};

/// Where servers can be made.
pub const REGIONS: &[&str] = &["sandbox-1", "sandbox-2"];

/// What they can begin with.
pub const IMAGES: &[&str] = &["debian-12", "ubuntu-24.04"];

/// How large they can be, and what that costs.
pub const SIZES: &[Size] = &[
    Size { name: "small", cores: 1, memory_mib: 1024, disk_gib: 20, monthly_cents: 500 },
    Size { name: "medium", cores: 2, memory_mib: 4096, disk_gib: 40, monthly_cents: 2_000 },
    Size { name: "large", cores: 8, memory_mib: 16_384, disk_gib: 160, monthly_cents: 9_600 },
];

/// A size that servers can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// What it is called.
    pub name: &'static str,
    /// Processors.
    pub cores: u32,
    /// Memory.
    pub memory_mib: u32,
    /// Disk.
    pub disk_gib: u32,
    /// What it costs in a month.
    pub monthly_cents: i64,
}

/// What there is to be had.
#[must_use]
pub fn catalogue() -> Catalogue {
    let named = |id: &str| Region { id: id.to_owned(), name: id.to_owned(), available: true, ..Region::default() };
    let offer = |region: &str, size: &Size| Offer {
        region: region.to_owned(),
        available: true,
        hourly: Some(Price::of_nanos(size.monthly_cents * 10_000_000 / i64::from(HOURS))),
        monthly: Some(Price::of_nanos(size.monthly_cents * 10_000_000)),
        ..Offer::default()
    };
    let size = |size: &Size| account::Size {
        id: size.name.to_owned(),
        cores: size.cores,
        memory_mib: size.memory_mib.into(),
        disk_gib: size.disk_gib,
        architecture: Architecture::X86,
        family: String::new(),
        deprecated: false,
        offers: REGIONS.iter().map(|region| offer(region, size)).collect(),
    };
    let image = |id: &&str| Image { id: (*id).to_owned(), name: (*id).to_owned(), architecture: None };
    Catalogue {
        currency: "USD",
        regions: REGIONS.iter().map(|id| named(id)).collect(),
        sizes: SIZES.iter().map(size).collect(),
        images: IMAGES.iter().map(image).collect(),
        // An address costs nothing there, and there is nothing else.
        extras: Extras { address: Some(Price::ZERO), ..Extras::default() },
    }
}

/// The script that starts and stops machines.
const MACHINE: &str = include_str!("machine.sh");

/// Ports to try: somebody else may take one in the meantime.
const PORTS: usize = 5;

/// What Terraform is given to make a server.
///
/// # Errors
/// When there is no such region, size or image, or the account may have no more.
pub fn template(terraform: &Terraform, wanted: &Blueprint<'_>) -> Result<Template, Refusal> {
    let off = |said: &str| Refusal { because: Because::Off, said: said.to_owned() };
    if !terraform.has_sandbox() {
        return Err(off("this installation has no sandbox"));
    }
    let sshd = process::find("sshd").ok_or_else(|| {
        off("the sandbox needs an OpenSSH server (sshd, of Debian's openssh-server) where workers run")
    })?;
    if !REGIONS.contains(&wanted.region) {
        return Err(unknown(Because::Region, "region", wanted.region, REGIONS));
    }
    if !IMAGES.contains(&wanted.image) {
        return Err(unknown(Because::Image, "image", wanted.image, IMAGES));
    }
    let Some(size) = SIZES.iter().find(|size| size.name == wanted.size) else {
        let names: Vec<&str> = SIZES.iter().map(|size| size.name).collect();
        return Err(unknown(Because::Size, "size", wanted.size, &names));
    };
    if wanted.name.starts_with("fail-quota") {
        let said = "1 more server is needed, and 10 of 10 are used".to_owned();
        return Err(Refusal { because: Because::Quota, said });
    }
    let directory = machine(&terraform.directory(), wanted.label);
    Ok(Template {
        configuration: configuration(wanted, size, &directory),
        files: vec![
            File { name: "machine.sh", contents: MACHINE.to_owned() },
            File { name: "authorized_key", contents: wanted.who_gets_in() },
            File { name: "owner", contents: owner(Mark::of(&wanted.options)) },
            File { name: "sshd", contents: sshd.display().to_string() },
            File { name: "ports", contents: free_ports() },
        ],
        environment: Vec::new(),
        monthly_cost: size.monthly_cents,
        currency: "USD",
        patience: Duration::from_secs(10),
        needs_docker: false,
        first_key: false,
        module: None,
        confined: false,
    })
}

fn unknown(because: Because, what: &str, wanted: &str, there_are: &[&str]) -> Refusal {
    let near = nearest(wanted, there_are.iter().copied());
    Refusal { because, said: format!("the sandbox has no {what} {wanted:?}; {}", meant(&near)) }
}

/// What a machine says of who made it, and for whom.
fn owner(mark: Mark<'_>) -> String {
    format!("{} {}\n", mark.installation, mark.organization)
}

/// Machines that are looked at, at most.
const MOST_MACHINES: usize = 10_000;

/// Machines that were made on this host for an organization by an installation.
///
/// # Errors
/// When it cannot be read what there is.
pub fn marked(terraform: &Terraform, mark: Mark<'_>) -> std::io::Result<Vec<Marked>> {
    let entries = match std::fs::read_dir(terraform.directory().join("machines")) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let owner = owner(mark);
    let ours = entries.flatten().take(MOST_MACHINES).filter_map(|entry| {
        let server = entry.file_name().into_string().ok()?;
        if std::fs::read_to_string(entry.path().join("owner")).ok()? != owner {
            return None;
        }
        let thing = Thing { kind: "machine".to_owned(), id: server.clone(), ..Thing::default() };
        Some(Marked { thing, server, by_label: true })
    });
    Ok(ours.collect())
}

/// Where a machine lies.
fn machine(root: &Path, label: &str) -> PathBuf {
    root.join("machines").join(label)
}

fn configuration(wanted: &Blueprint<'_>, size: &Size, directory: &Path) -> Value {
    let directory = directory.display().to_string();
    // An output is not known before the machine is made, and says afterwards what is there, not what once was.
    let output = |file: &str, otherwise: &str| {
        let path = format!("${{terraform_data.machine.output.directory}}/{file}");
        json!({ "value": format!("${{fileexists(\"{path}\") ? trimspace(file(\"{path}\")) : \"{otherwise}\"}}") })
    };
    let local = |verb: &str| format!("sh ./machine.sh {verb} '${{self.input.directory}}' '${{self.input.name}}'");
    let mut machine = json!({
        "input": { "directory": directory, "name": wanted.name, "image": wanted.image, "size": size.name,
                   "cores": size.cores, "memory_mib": size.memory_mib, "disk_gib": size.disk_gib,
                   "network": "${terraform_data.network.id}", "firewall": "${terraform_data.firewall.id}" },
        // What the machine says it was made as. Where it says something else, or is gone, another takes its place; and so it
        // does where its disk is larger than it is to be, because disks do not shrink.
        "triggers_replace": format!(
            "${{fileexists(\"{directory}/disk_gib\") && try(tonumber(trimspace(file(\"{directory}/disk_gib\"))), 0) > {disk} ? \
             \"shrunk to {disk} GiB\" : \
             fileexists(\"{directory}/made_as\") ? trimspace(file(\"{directory}/made_as\")) : \"{run}\"}}",
            disk = size.disk_gib,
            run = wanted.run
        ),
        "provisioner": [
            { "local-exec": {
                "command": format!("{} '${{self.triggers_replace}}' '${{self.input.disk_gib}}'", local("start")),
            } },
            { "local-exec": { "when": "destroy", "command": local("stop") } },
        ],
    });
    if wanted.name.starts_with("fail-plan") {
        machine["lifecycle"]["precondition"] = json!([{
            "condition": "${length(terraform_data.network.input.name) < 0}",
            "error_message": "The sandbox was told to fail when it plans.",
        }]);
    }
    let mut resources = json!({
        "network": { "input": { "name": wanted.name, "region": wanted.region, "range": "10.0.0.0/16",
                                "server": wanted.label, "labels": wanted.labels } },
        "firewall": { "input": {
            "server": wanted.label,
            "open": [22, 80, 443],
            "ssh_sources": wanted.options.ssh_sources.as_ref().map(|all| texts(all)),
            "rules": wanted.options.rules.iter().map(rule).collect::<Vec<Value>>(),
            "static_address": wanted.options.static_address,
        } },
        "machine": machine,
    });
    if let Some(gib) = wanted.options.volume_gib {
        resources["storage"] = json!({ "input": { "server": wanted.label, "gib": gib } });
    }
    if wanted.name.starts_with("fail-apply") {
        resources["volume"] = json!({
            "input": { "machine": "${terraform_data.machine.id}" },
            "provisioner": [{ "local-exec": {
                "command": "echo 'The sandbox was told to fail half-way.' >&2; exit 1",
            } }],
        });
    }
    json!({
        "terraform": { "required_version": ">= 1.5" },
        "resource": { "terraform_data": resources },
        "output": {
            "address": { "value": "127.0.0.1", "depends_on": ["terraform_data.machine"] },
            "port": output("port", "0"),
            "user": output("user", ""),
            "host_key": output("host_key.pub", ""),
        },
    })
}

fn texts(networks: &[ipnet::IpNet]) -> Vec<String> {
    networks.iter().map(ToString::to_string).collect()
}

fn rule(rule: &Rule) -> Value {
    json!({ "protocol": rule.protocol.as_str(), "ports": rule.ports.map(<[u16; 2]>::from), "sources": texts(&rule.sources) })
}

/// Ports that nobody listens on at the moment.
fn free_ports() -> String {
    let listeners: Vec<TcpListener> =
        (0..PORTS).filter_map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()).collect();
    let ports = listeners.iter().filter_map(|listener| listener.local_addr().ok());
    ports.map(|address| address.port().to_string()).collect::<Vec<_>>().join(" ")
}

/// Ends whatever runs with the machine's settings, also where whoever started it did not live to note its number.
fn end(directory: &Path) {
    let settings = directory.join("sshd_config").display().to_string();
    let Ok(processes) = std::fs::read_dir("/proc") else { return };
    for process in processes.flatten() {
        let number = process.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(pid) = number.and_then(Pid::from_raw) else { continue };
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(&settings) {
            let _gone = kill_process(pid, Signal::TERM);
        }
    }
}

/// Removes what is left of a server, whether or not Terraform knows of it. Answers what that was.
///
/// # Errors
/// When it cannot be removed.
pub fn clear_away(terraform: &Terraform, label: &str) -> std::io::Result<Vec<String>> {
    let directory = machine(&terraform.directory(), label);
    end(&directory);
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let was_there = directory.join("host_key").exists();
    std::fs::remove_dir_all(&directory)?;
    Ok(was_there.then(|| format!("machine {label}")).into_iter().collect())
}
