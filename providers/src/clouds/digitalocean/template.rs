//! A server at DigitalOcean.

use serde_json::{Value, json};

use super::tag;
use crate::clouds::template::{Parts, Pieces, literal, ports, user_data};
use crate::clouds::{Protocol, Refusal};

pub(in crate::clouds) fn pieces(parts: &Parts<'_>) -> Result<Pieces, Refusal> {
    let Parts { wanted, of, name } = parts;
    let labels = parts.labels("_-", 150, false);
    let mut tags: Vec<String> = labels.iter().map(|(name, value)| format!("{name}:{value}")).collect();
    let ours = tag(wanted.label);
    tags.retain(|it| *it != ours);
    tags.insert(0, ours);
    let region = literal(wanted.region);
    let rules = parts.rules().into_iter().map(|rule| {
        let sources: Vec<String> = rule.sources.iter().map(ToString::to_string).collect();
        let mut written = json!({ "protocol": rule.protocol.as_str(), "source_addresses": sources });
        if let Some(range) = rule.ports {
            written["port_range"] = ports(range).into();
        }
        written
    });
    let out = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp].map(|protocol| {
        let mut written = json!({ "protocol": protocol.as_str(), "destination_addresses": ["0.0.0.0/0", "::/0"] });
        if protocol != Protocol::Icmp {
            written["port_range"] = "1-65535".into();
        }
        written
    });
    let mut network = json!({ "name": name, "region": region });
    // Networks of an account must not overlap: unless one was chosen, it gives one.
    if wanted.options.network.is_some() {
        network["ip_range"] = of.network.range.to_string().into();
    }
    let mut resources = json!({
        "digitalocean_ssh_key": { "key": { "name": name, "public_key": parts.nobodys_key()? } },
        "digitalocean_vpc": { "network": network },
        "digitalocean_droplet": { "server": {
            "name": literal(wanted.name),
            "region": region,
            "size": literal(&of.size.id),
            "image": literal(&of.image.id),
            "vpc_uuid": "${digitalocean_vpc.network.id}",
            "ssh_keys": ["${digitalocean_ssh_key.key.id}"],
            "user_data": user_data(),
            "monitoring": true,
            "ipv6": true,
            "tags": tags,
            "lifecycle": { "ignore_changes": ["user_data", "ssh_keys", "image"] },
        } },
        "digitalocean_firewall": { "firewall": {
            "name": name,
            "droplet_ids": ["${digitalocean_droplet.server.id}"],
            "inbound_rule": rules.collect::<Vec<Value>>(),
            "outbound_rule": out,
        } },
    });
    let mut address = "${digitalocean_droplet.server.ipv4_address}";
    if wanted.options.static_address {
        resources["digitalocean_reserved_ip"] = json!({ "address": { "region": region } });
        resources["digitalocean_reserved_ip_assignment"] = json!({ "address": {
            "ip_address": "${digitalocean_reserved_ip.address.ip_address}",
            "droplet_id": "${digitalocean_droplet.server.id}",
        } });
        address = "${digitalocean_reserved_ip_assignment.address.ip_address}";
    }
    if let Some(size) = wanted.options.volume_gib {
        resources["digitalocean_volume"] = json!({ "volume": {
            "name": "data-".to_owned() + name.trim_start_matches("gantry-"), "region": region, "size": size,
            "initial_filesystem_type": "ext4", "tags": tags,
        } });
        resources["digitalocean_volume_attachment"] = json!({ "volume": {
            "droplet_id": "${digitalocean_droplet.server.id}", "volume_id": "${digitalocean_volume.volume.id}",
        } });
    }
    Ok(Pieces { resources, data: Value::Null, address: address.to_owned(), volume: Some("/dev/sda") })
}
