//! A server at Azure.

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use crate::clouds::Protocol;
use crate::clouds::plausible::USUAL_DISK;
use crate::clouds::template::{Parts, Pieces, literal, object, ports, user_data};

/// Who the cloud believes lets itself in; the machine lets in somebody else.
const ADMINISTRATOR: &str = "gantry";

pub(in crate::clouds) fn pieces(parts: &Parts<'_>) -> Pieces {
    let Parts { wanted, of, name } = parts;
    let tags = object(parts.labels(" _.:/=+@-", 200, false));
    let location = literal(wanted.region);
    let group = "${azurerm_resource_group.group.name}";
    let placed = |more: Value| {
        let mut written = json!({ "name": name, "location": location, "resource_group_name": group, "tags": tags });
        if let (Some(written), Value::Object(more)) = (written.as_object_mut(), more) {
            written.extend(more);
        }
        written
    };
    let mut rules = Map::new();
    for (at, rule) in parts.rules().into_iter().enumerate() {
        // The network has no addresses of IPv6, and rules of both kinds of addresses are not taken.
        let sources: Vec<String> =
            rule.sources.iter().filter(|it| matches!(it, IpNet::V4(_))).map(ToString::to_string).collect();
        if sources.is_empty() {
            continue;
        }
        let protocol = match rule.protocol {
            Protocol::Tcp => "Tcp",
            Protocol::Udp => "Udp",
            Protocol::Icmp => "Icmp",
        };
        let mut written = json!({
            "name": format!("in-{at}"), "resource_group_name": group,
            "network_security_group_name": "${azurerm_network_security_group.firewall.name}",
            "priority": 100 + at * 10, "direction": "Inbound", "access": "Allow", "protocol": protocol,
            "source_port_range": "*", "source_address_prefixes": sources, "destination_address_prefix": "*",
            "destination_port_range": rule.ports.map_or_else(|| "*".to_owned(), ports),
        });
        if !rule.description.is_empty() {
            written["description"] = literal(&rule.description.chars().take(140).collect::<String>()).into();
        }
        rules.insert(format!("in_{at}"), written);
    }
    let mut image = of.image.id.split(':');
    let mut part = || literal(image.next().unwrap_or_default());
    let (publisher, offer, sku) = (part(), part(), part());
    let mut resources = json!({
        "azurerm_resource_group": { "group": { "name": name, "location": location, "tags": tags } },
        "azurerm_virtual_network": { "network": placed(json!({ "address_space": [of.network.range.to_string()] })) },
        "azurerm_subnet": { "subnet": {
            "name": name, "resource_group_name": group,
            "virtual_network_name": "${azurerm_virtual_network.network.name}",
            "address_prefixes": [of.network.subnet.to_string()],
        } },
        // Those that do not stay are not sold any more.
        "azurerm_public_ip": { "address": placed(json!({ "allocation_method": "Static", "sku": "Standard" })) },
        "azurerm_network_security_group": { "firewall": placed(json!({})) },
        "azurerm_network_security_rule": rules,
        "azurerm_network_interface": { "interface": placed(json!({ "ip_configuration": [{
            "name": "public", "subnet_id": "${azurerm_subnet.subnet.id}", "private_ip_address_allocation": "Dynamic",
            "public_ip_address_id": "${azurerm_public_ip.address.id}",
        }] })) },
        "azurerm_network_interface_security_group_association": { "firewall": {
            "network_interface_id": "${azurerm_network_interface.interface.id}",
            "network_security_group_id": "${azurerm_network_security_group.firewall.id}",
        } },
        "azurerm_linux_virtual_machine": { "server": placed(json!({
            "name": literal(wanted.name),
            "size": literal(&of.size.id),
            "network_interface_ids": ["${azurerm_network_interface.interface.id}"],
            "admin_username": ADMINISTRATOR,
            "disable_password_authentication": true,
            "admin_ssh_key": [{ "username": ADMINISTRATOR, "public_key": literal(wanted.authorized_key.trim()) }],
            "custom_data": format!("${{base64encode({})}}", user_data().trim_start_matches("${").trim_end_matches('}')),
            "os_disk": [{
                "caching": "ReadWrite", "storage_account_type": "StandardSSD_LRS",
                "disk_size_gb": wanted.options.disk_gib.unwrap_or(USUAL_DISK),
            }],
            "source_image_reference": [{ "publisher": publisher, "offer": offer, "sku": sku, "version": "latest" }],
            "depends_on": [
                "azurerm_network_interface_security_group_association.firewall", "azurerm_network_security_rule.in_0",
            ],
            "lifecycle": { "ignore_changes": ["custom_data", "source_image_reference"] },
        })) },
    });
    // Without a rule there is nothing to wait for.
    if resources["azurerm_network_security_rule"]["in_0"].is_null() {
        resources["azurerm_linux_virtual_machine"]["server"]["depends_on"] =
            json!(["azurerm_network_interface_security_group_association.firewall"]);
    }
    if let Some(size) = wanted.options.volume_gib {
        resources["azurerm_managed_disk"] = json!({ "volume": placed(json!({
            "name": format!("{name}-data"), "storage_account_type": "StandardSSD_LRS", "create_option": "Empty",
            "disk_size_gb": size,
        })) });
        resources["azurerm_virtual_machine_data_disk_attachment"] = json!({ "volume": {
            "managed_disk_id": "${azurerm_managed_disk.volume.id}",
            "virtual_machine_id": "${azurerm_linux_virtual_machine.server.id}",
            "lun": 0, "caching": "ReadWrite",
        } });
    }
    let address = "${azurerm_public_ip.address.ip_address}".to_owned();
    Pieces { resources, data: Value::Null, address, volume: Some("/dev/disk/azure/scsi1/lun0") }
}
