//! A server at AWS.

use serde_json::{Map, Value, json};

use ipnet::IpNet;

use super::SYSTEMS;
use crate::clouds::account::Architecture;
use crate::clouds::plausible::USUAL_DISK;
use crate::clouds::template::{Parts, Pieces, clean, literal, object, user_data};
use crate::clouds::{Because, Protocol, Refusal};

pub(in crate::clouds) fn pieces(parts: &Parts<'_>) -> Result<Pieces, Refusal> {
    let Parts { wanted, of, name } = parts;
    let Some((_, _, maker, pattern)) = SYSTEMS.iter().find(|(id, ..)| *id == of.image.id) else {
        let said = format!("AWS has no image {:?}", of.image.id);
        return Err(Refusal { because: Because::Image, said });
    };
    let (word, architecture) = match of.size.architecture {
        Architecture::X86 => ("amd64", "x86_64"),
        Architecture::Arm => ("arm64", "arm64"),
    };
    let mut labels = parts.labels(" _.:/=+@-", 200, false);
    labels.insert("Name".to_owned(), literal(wanted.name));
    let tags = object(labels);
    let mut inwards = Map::new();
    for (at, rule) in parts.rules().into_iter().enumerate() {
        for (number, source) in rule.sources.iter().enumerate() {
            let (first, last) = rule.ports.map_or((-1, -1), |(first, last)| (i32::from(first), i32::from(last)));
            let (family, protocol) = match (source, rule.protocol) {
                (IpNet::V4(_), protocol) => ("cidr_ipv4", protocol.as_str()),
                (IpNet::V6(_), Protocol::Icmp) => ("cidr_ipv6", "icmpv6"),
                (IpNet::V6(_), protocol) => ("cidr_ipv6", protocol.as_str()),
            };
            let mut written = json!({
                "security_group_id": "${aws_security_group.firewall.id}",
                "ip_protocol": protocol, "from_port": first, "to_port": last, "tags": tags,
            });
            written[family] = source.to_string().into();
            // Of what a description is made there.
            let description = clean(&rule.description, " ._-:/()#,@[]+=&;{}!*", 200);
            if !description.is_empty() {
                written["description"] = description.into();
            }
            inwards.insert(format!("in_{at}_{number}"), written);
        }
    }
    let mut subnet = json!({
        "vpc_id": "${aws_vpc.network.id}", "cidr_block": of.network.subnet.to_string(), "map_public_ip_on_launch": true,
        "tags": tags, "lifecycle": { "ignore_changes": ["availability_zone"] },
    });
    if let Some(zone) = of.offer.zones.first() {
        subnet["availability_zone"] = literal(zone).into();
    }
    let mut resources = json!({
        "aws_vpc": { "network": {
            "cidr_block": of.network.range.to_string(), "enable_dns_hostnames": true, "enable_dns_support": true, "tags": tags,
        } },
        "aws_internet_gateway": { "network": { "vpc_id": "${aws_vpc.network.id}", "tags": tags } },
        "aws_subnet": { "subnet": subnet },
        "aws_route_table": { "network": { "vpc_id": "${aws_vpc.network.id}", "tags": tags } },
        "aws_route": { "out": {
            "route_table_id": "${aws_route_table.network.id}",
            "destination_cidr_block": "0.0.0.0/0",
            "gateway_id": "${aws_internet_gateway.network.id}",
        } },
        "aws_route_table_association": { "subnet": {
            "route_table_id": "${aws_route_table.network.id}", "subnet_id": "${aws_subnet.subnet.id}",
        } },
        "aws_security_group": { "firewall": {
            "name": name, "description": "What is let in", "vpc_id": "${aws_vpc.network.id}", "tags": tags,
        } },
        "aws_vpc_security_group_ingress_rule": inwards,
        "aws_vpc_security_group_egress_rule": { "out": {
            "security_group_id": "${aws_security_group.firewall.id}", "ip_protocol": "-1", "cidr_ipv4": "0.0.0.0/0",
            "tags": tags,
        } },
        "aws_key_pair": { "key": {
            "key_name": name, "public_key": literal(wanted.authorized_key.trim()), "tags": tags,
        } },
        "aws_instance": { "server": {
            "ami": "${data.aws_ami.image.id}",
            "instance_type": literal(&of.size.id),
            "subnet_id": "${aws_subnet.subnet.id}",
            "vpc_security_group_ids": ["${aws_security_group.firewall.id}"],
            "key_name": "${aws_key_pair.key.key_name}",
            "user_data": user_data(),
            // Containers do not reach what the machine was told when it began.
            "metadata_options": [{ "http_tokens": "required", "http_put_response_hop_limit": 1 }],
            "root_block_device": [{
                "volume_type": "gp3", "volume_size": wanted.options.disk_gib.unwrap_or(USUAL_DISK), "encrypted": true, "tags": tags,
            }],
            "tags": tags,
            "depends_on": ["aws_route.out", "aws_route_table_association.subnet"],
            "lifecycle": { "ignore_changes": ["user_data", "ami"] },
        } },
    });
    let mut address = "${aws_instance.server.public_ip}";
    if wanted.options.static_address {
        resources["aws_eip"] = json!({ "address": { "domain": "vpc", "tags": tags } });
        resources["aws_eip_association"] = json!({ "address": {
            "allocation_id": "${aws_eip.address.id}", "instance_id": "${aws_instance.server.id}",
        } });
        address = "${aws_eip_association.address.public_ip}";
    }
    if let Some(size) = wanted.options.volume_gib {
        resources["aws_ebs_volume"] = json!({ "volume": {
            "availability_zone": "${aws_instance.server.availability_zone}", "size": size, "type": "gp3", "encrypted": true,
            "tags": tags,
        } });
        resources["aws_volume_attachment"] = json!({ "volume": {
            "device_name": "/dev/sdf", "instance_id": "${aws_instance.server.id}", "volume_id": "${aws_ebs_volume.volume.id}",
        } });
    }
    let data: Value = json!({ "aws_ami": { "image": {
        "most_recent": true,
        "owners": [maker],
        "filter": [
            { "name": "name", "values": [pattern.replace("{}", word)] },
            { "name": "architecture", "values": [architecture] },
        ],
    } } });
    Ok(Pieces { resources, data, address: address.to_owned(), volume: Some("/dev/nvme1n1") })
}
