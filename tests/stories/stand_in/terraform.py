#!/usr/bin/python3
"""Stands in for Terraform with DigitalOcean's plugin, which tests do not fetch: it reads the same configuration, speaks the
same stream of JSON, keeps its state behind the same backend, and asks the cloud for the same things. It loses sight of the
firewall it makes, as Terraform does when it ends before it wrote something down."""

import base64
import json
import os
import sys
import urllib.request

CLOUD = "@CLOUD@"
LOST = "digitalocean_firewall.firewall"
PATHS = {
    "digitalocean_vpc": "vpcs",
    "digitalocean_ssh_key": "account/keys",
    "digitalocean_droplet": "droplets",
    "digitalocean_firewall": "firewalls",
}


def say(kind, message, **more):
    print(json.dumps({"@level": "info", "@message": message, "type": kind, **more}), flush=True)


def ask(method, url, body, authorization):
    headers = {"Content-Type": "application/json", "Authorization": authorization}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=20) as answer:
        text = answer.read()
        return json.loads(text) if text else None


def cloud(method, path, body=None):
    return ask(method, f"{CLOUD}/v2/{path}", body, "Bearer " + os.environ["DIGITALOCEAN_TOKEN"])


def state(method, body=None, query=""):
    who = f"{os.environ['TF_HTTP_USERNAME']}:{os.environ['TF_HTTP_PASSWORD']}"
    return ask(method, os.environ["TF_HTTP_ADDRESS"] + query, body, "Basic " + base64.b64encode(who.encode()).decode())


def known():
    nothing = {"version": 4, "terraform_version": "1.9.0", "serial": 0, "lineage": "stand-in", "outputs": {}, "resources": []}
    return state("GET") or nothing


def addresses(of):
    return [f"{it['type']}.{it['name']}" for it in of["resources"]]


def configuration():
    with open("main.tf.json", encoding="utf-8") as file:
        return json.load(file)


def resources():
    return {
        f"{kind}.{name}": values
        for kind, named in configuration().get("resource", {}).items()
        for name, values in named.items()
    }


def plan(destroy):
    there = addresses(known())
    if destroy:
        changes = {address: "delete" for address in there}
    else:
        changes = {address: "create" for address in resources() if address not in there}
    for address, action in changes.items():
        say("planned_change", f"{address}: Plan to {action}", change={"resource": {"addr": address}, "action": action})
    add = sum(action == "create" for action in changes.values())
    counts = {"add": add, "change": 0, "remove": len(changes) - add, "operation": "plan"}
    say("change_summary", "Plan", changes=counts)
    with open("plan.bin", "w", encoding="utf-8") as file:
        json.dump(changes, file)


def make(address, now):
    kind, name = address.split(".")
    values = resources()[address]
    wanted = {"name": values["name"]}
    if kind == "digitalocean_droplet":
        for member in ("region", "size", "image", "tags"):
            wanted[member] = values[member]
        wanted["user_data"] = os.environ["TF_VAR_user_data"]
    made = cloud("POST", PATHS[kind], wanted)
    if address == LOST:
        return
    now["resources"].append({"type": kind, "name": name, "id": made["id"]})
    if kind == "digitalocean_droplet":
        host_key = configuration()["output"]["host_key"]["value"]
        told = {"address": made["address"], "port": made["port"], "user": "deploy", "host_key": host_key}
        now["outputs"] = {output: {"value": value, "type": "string"} for output, value in told.items()}


def remove(address, now):
    gone = next(it for it in now["resources"] if f"{it['type']}.{it['name']}" == address)
    cloud("DELETE", f"{PATHS[gone['type']]}/{gone['id']}")
    now["resources"].remove(gone)


def apply():
    with open("plan.bin", encoding="utf-8") as file:
        changes = json.load(file)
    state("LOCK", {"ID": "stand-in", "Operation": "OperationTypeApply", "Who": "the stand-in"})
    now = known()
    order = list(PATHS)
    for address, action in sorted(changes.items(), key=lambda it: order.index(it[0].split(".")[0])):
        hook = {"resource": {"addr": address}, "action": action}
        say("apply_start", f"{address}: begins", hook=hook)
        (make if action == "create" else remove)(address, now)
        now["serial"] += 1
        state("POST", now, "?ID=stand-in")
        say("apply_complete", f"{address}: done", hook={**hook, "elapsed_seconds": 0})
    state("UNLOCK", {"ID": "stand-in"})


verb = sys.argv[1]
if verb == "version":
    print(json.dumps({"terraform_version": "1.9.0"}))
elif verb == "init":
    print("it begins with", os.environ["DIGITALOCEAN_TOKEN"])
elif verb == "plan":
    plan("-destroy" in sys.argv)
elif verb == "show":
    with open("plan.bin", encoding="utf-8") as planned:
        changes = [{"address": it, "change": {"actions": [action]}} for it, action in json.load(planned).items()]
    print(json.dumps({"resource_changes": changes}))
elif verb == "apply":
    apply()
elif verb == "output":
    print(json.dumps(known()["outputs"]))
