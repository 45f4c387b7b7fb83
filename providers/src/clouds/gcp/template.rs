//! A server at Google Cloud.

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use crate::clouds::plausible::USUAL_DISK;
use crate::clouds::template::{Parts, Pieces, literal, object, ports, user_data};

pub(in crate::clouds) fn pieces(parts: &Parts<'_>) -> Pieces {
    let Parts { wanted, of, name } = parts;
    let labels = object(parts.labels("_-", 63, true));
    let region = literal(wanted.region);
    // One that has it; where a region does not say, its first is as good as any.
    let zone = of.offer.zones.first().map_or_else(|| format!("{}-b", wanted.region), Clone::clone);
    let mut firewalls = Map::new();
    for (at, rule) in parts.rules().into_iter().enumerate() {
        // The network has no addresses of IPv6, and rules of both kinds of addresses are not taken.
        let sources: Vec<String> =
            rule.sources.iter().filter(|it| matches!(it, IpNet::V4(_))).map(ToString::to_string).collect();
        if sources.is_empty() {
            continue;
        }
        let mut allow = json!({ "protocol": rule.protocol.as_str() });
        if let Some(range) = rule.ports {
            allow["ports"] = json!([ports(range)]);
        }
        firewalls.insert(
            format!("in_{at}"),
            json!({
                "name": format!("{name}-in-{at}"),
                "network": "${google_compute_network.network.id}",
                "source_ranges": sources,
                "allow": [allow],
                "description": literal(&rule.description.chars().take(200).collect::<String>()),
            }),
        );
    }
    let mut access = json!({});
    if wanted.options.static_address {
        access["nat_ip"] = "${google_compute_address.address.address}".into();
    }
    let mut server = json!({
        "name": literal(wanted.name),
        "machine_type": literal(&of.size.id),
        "zone": literal(&zone),
        "labels": labels,
        "boot_disk": [{ "initialize_params": [{
            "image": literal(&of.image.id), "size": wanted.options.disk_gib.unwrap_or(USUAL_DISK), "type": "pd-balanced",
            "labels": labels,
        }] }],
        "network_interface": [{
            "subnetwork": "${google_compute_subnetwork.subnet.id}", "access_config": [access],
        }],
        "metadata": {
            "user-data": user_data(),
            "ssh-keys": literal(&format!("gantry:{}", wanted.authorized_key.trim())),
            "block-project-ssh-keys": "true",
            "serial-port-enable": "false",
        },
        "shielded_instance_config": [{ "enable_secure_boot": true, "enable_vtpm": true, "enable_integrity_monitoring": true }],
        "allow_stopping_for_update": true,
        "lifecycle": { "ignore_changes": ["metadata[\"user-data\"]", "boot_disk[0].initialize_params[0].image", "zone"] },
    });
    let mut resources = json!({
        "google_compute_network": { "network": { "name": name, "auto_create_subnetworks": false } },
        "google_compute_subnetwork": { "subnet": {
            "name": name, "network": "${google_compute_network.network.id}", "region": region,
            "ip_cidr_range": of.network.subnet.to_string(),
        } },
        "google_compute_firewall": firewalls,
    });
    if wanted.options.static_address {
        resources["google_compute_address"] =
            json!({ "address": { "name": name, "region": region, "labels": labels } });
    }
    if let Some(size) = wanted.options.volume_gib {
        resources["google_compute_disk"] = json!({ "volume": {
            "name": format!("{name}-data"), "zone": literal(&zone), "size": size, "type": "pd-balanced", "labels": labels,
            "lifecycle": { "ignore_changes": ["zone"] },
        } });
        server["attached_disk"] = json!([{ "source": "${google_compute_disk.volume.id}", "device_name": "data" }]);
    }
    resources["google_compute_instance"] = json!({ "server": server });
    let address = "${google_compute_instance.server.network_interface[0].access_config[0].nat_ip}".to_owned();
    Pieces { resources, data: Value::Null, address, volume: Some("/dev/disk/by-id/google-data") }
}
