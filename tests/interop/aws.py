"""A server and everything around it, made in PyPI's moto with boto3, as AWS has them; then a command looks for it and removes
it; then it is all gone.

usage: aws.py COMMAND...   the command finds where moto is in GANTRY_MOTO_URL
"""

import os
import subprocess
import sys
import threading

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

TAG = {"Key": "gantry-server", "Value": "srv_1"}


class Quiet(WSGIRequestHandler):
    def log(self, *_):
        pass


def moto():
    """moto, which knows no prices, and fails where it is asked for some: who may not ask for them is told so."""
    aws = DomainDispatcherApplication(create_backend_app)

    def answer(environment, start):
        if environment.get("HTTP_X_AMZ_TARGET", "").startswith("AWSPriceListService."):
            start("400 Bad Request", [("Content-Type", "application/x-amz-json-1.1")])
            return [b'{"__type":"AccessDeniedException","Message":"no prices here"}']
        return aws(environment, start)

    return make_server("127.0.0.1", 0, answer, threaded=True, request_handler=Quiet)


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
    server = moto()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    key = {"aws_access_key_id": "AKIAIOSFODNN7EXAMPLE", "aws_secret_access_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}
    ec2 = boto3.client("ec2", endpoint_url=url, region_name="us-east-1", **key)
    make(ec2)
    subprocess.run(sys.argv[1:], check=True, env={**os.environ, "GANTRY_MOTO_URL": url})
    ours = [{"Name": "tag:gantry-server", "Values": ["srv_1"]}]
    # Of keys moto deletes only those that are named, and says of others that it did.
    assert not ec2.describe_addresses()["Addresses"]
    assert not ec2.describe_volumes(Filters=ours)["Volumes"]
    assert not ec2.describe_security_groups(Filters=ours)["SecurityGroups"]
    assert not ec2.describe_vpcs(Filters=ours)["Vpcs"]
    states = [i["State"]["Name"] for r in ec2.describe_instances()["Reservations"] for i in r["Instances"]]
    assert states == ["terminated"], states
    assert any(vpc["CidrBlock"] == "10.9.0.0/16" for vpc in ec2.describe_vpcs()["Vpcs"])
    print("moto (Python): a server and what belongs to it are found and removed")


if __name__ == "__main__":
    main()
