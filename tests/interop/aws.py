"""A server and everything around it, made in PyPI's moto with boto3, as AWS has them; then a command looks for it and removes
it; then it is all gone.

usage: aws.py MOTO_SERVER COMMAND...   the command finds where moto is in GANTRY_MOTO_URL
"""

import os
import socket
import subprocess
import sys
import time
import urllib.request

import boto3

TAG = {"Key": "gantry-server", "Value": "srv_1"}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def tagged(kind):
    return {"TagSpecifications": [{"ResourceType": kind, "Tags": [TAG]}]}


def make(ec2):
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16", **tagged("vpc"))["Vpc"]["VpcId"]
    gateway = ec2.create_internet_gateway(**tagged("internet-gateway"))["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24", **tagged("subnet"))["Subnet"]["SubnetId"]
    table = ec2.create_route_table(VpcId=vpc, **tagged("route-table"))["RouteTable"]["RouteTableId"]
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
    group = ec2.create_security_group(
        GroupName="gantry-srv-1", Description="What is let in", VpcId=vpc, **tagged("security-group")
    )["GroupId"]
    ec2.create_key_pair(KeyName="gantry-srv-1", **tagged("key-pair"))
    image = ec2.describe_images(Filters=[{"Name": "architecture", "Values": ["x86_64"]}])["Images"][0]["ImageId"]
    ec2.run_instances(
        ImageId=image, InstanceType="t3.micro", MinCount=1, MaxCount=1, SubnetId=subnet, SecurityGroupIds=[group],
        **tagged("instance"),
    )
    ec2.allocate_address(Domain="vpc", **tagged("elastic-ip"))
    ec2.create_volume(AvailabilityZone="us-east-1a", Size=1, **tagged("volume"))
    # Somebody else's, which stays.
    ec2.create_vpc(CidrBlock="10.9.0.0/16", TagSpecifications=[
        {"ResourceType": "vpc", "Tags": [{"Key": "gantry-server", "Value": "srv_12"}]},
    ])


def main():
    server, *command = sys.argv[1:]
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    moto = subprocess.Popen([server, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"{url}/moto-api/", timeout=1).close()
                break
            except OSError:
                time.sleep(0.2)
        key = {"aws_access_key_id": "AKIAIOSFODNN7EXAMPLE", "aws_secret_access_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}
        ec2 = boto3.client("ec2", endpoint_url=url, region_name="us-east-1", **key)
        make(ec2)
        subprocess.run(command, check=True, env={**os.environ, "GANTRY_MOTO_URL": url})
        left = ec2.describe_tags(Filters=[{"Name": "value", "Values": ["srv_1"]}])["Tags"]
        # moto leaves the tags of instances that have ended, as AWS does for a while.
        assert all(tag["ResourceType"] in ("instance", "key-pair") for tag in left), left
        assert not ec2.describe_key_pairs()["KeyPairs"]
        states = [i["State"]["Name"] for r in ec2.describe_instances()["Reservations"] for i in r["Instances"]]
        assert states == ["terminated"], states
        assert any(vpc["CidrBlock"] == "10.9.0.0/16" for vpc in ec2.describe_vpcs()["Vpcs"])
    finally:
        moto.terminate()
        moto.wait()
    print("moto (Python): a server and what belongs to it are found and removed")


if __name__ == "__main__":
    main()
