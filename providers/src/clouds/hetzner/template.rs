//! A server at Hetzner Cloud.

use serde_json::{Value, json};

use crate::clouds::Refusal;
use crate::clouds::template::{Parts, Pieces, literal, object, ports, user_data};

pub(in crate::clouds) fn pieces(parts: &Parts<'_>) -> Result<Pieces, Refusal> {
    let Parts { wanted, of, name } = parts;
    let labels = object(parts.labels("._-", 63, false));
    let location = literal(wanted.region);
    let rules = parts.rules().into_iter().map(|rule| {
        let sources: Vec<String> = rule.sources.iter().map(ToString::to_string).collect();
        let mut written = json!({ "direction": "in", "protocol": rule.protocol.as_str(), "source_ips": sources });
        if let Some(range) = rule.ports {
            written["port"] = ports(range).into();
        }
        if !rule.description.is_empty() {
            written["description"] = literal(&rule.description.chars().take(200).collect::<String>()).into();
        }
        written
    });
    let mut public = json!({ "ipv4_enabled": true, "ipv6_enabled": true });
    if wanted.options.static_address {
        public["ipv4"] = "${hcloud_primary_ip.address.id}".into();
    }
    let mut resources = json!({
        "hcloud_ssh_key": { "key": { "name": name, "public_key": parts.nobodys_key()?, "labels": labels } },
        "hcloud_network": { "network": { "name": name, "ip_range": of.network.range.to_string(), "labels": labels } },
        "hcloud_network_subnet": { "subnet": {
            "network_id": "${hcloud_network.network.id}",
            "type": "cloud",
            "network_zone": literal(&of.region.network_zone),
            "ip_range": of.network.subnet.to_string(),
        } },
        "hcloud_firewall": { "firewall": { "name": name, "labels": labels, "rule": rules.collect::<Vec<Value>>() } },
        "hcloud_server": { "server": {
            "name": literal(wanted.name),
            "server_type": literal(&of.size.id),
            "image": literal(&of.image.id),
            "location": location,
            "ssh_keys": ["${hcloud_ssh_key.key.id}"],
            "user_data": user_data(),
            "firewall_ids": ["${hcloud_firewall.firewall.id}"],
            // Without the empty list some versions of Terraform take it out of the network and put it back, each time.
            "network": [{ "subnet_id": "${hcloud_network_subnet.subnet.id}", "alias_ips": [] }],
            "public_net": [public],
            "labels": labels,
            "shutdown_before_deletion": true,
            "lifecycle": { "ignore_changes": ["user_data", "ssh_keys", "image"] },
        } },
    });
    if wanted.options.static_address {
        resources["hcloud_primary_ip"] = json!({ "address": {
            "name": name, "type": "ipv4", "assignee_type": "server", "location": location, "auto_delete": false,
            "labels": labels,
        } });
    }
    if let Some(size) = wanted.options.volume_gib {
        resources["hcloud_volume"] = json!({ "volume": { "name": name, "size": size, "location": location, "format": "ext4", "labels": labels } });
        resources["hcloud_volume_attachment"] = json!({ "volume": {
            "volume_id": "${hcloud_volume.volume.id}", "server_id": "${hcloud_server.server.id}",
        } });
    }
    let address = "${hcloud_server.server.ipv4_address}".to_owned();
    Ok(Pieces { resources, data: Value::Null, address, volume: Some("/dev/sdb") })
}
