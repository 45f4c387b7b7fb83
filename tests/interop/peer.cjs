// Verifies deliveries (`verify`), or signs some (`sign`), with the JavaScript libraries of others.
"use strict";
const assert = require("node:assert");
const crypto = require("node:crypto");
const { Webhook } = require("standardwebhooks");

const content = (delivery, body) => Buffer.from(`${delivery.id}.${delivery.timestamp}.${body}`);
const ED25519 = Buffer.from("302a300506032b6570032100", "hex");

function believes(delivery, key, body) {
  const headers = Object.fromEntries(["id", "timestamp", "signature"].map(name => [`webhook-${name}`, delivery[name]]));
  if (key.startsWith("whsec_")) {
    try {
      new Webhook(key).verify(body, headers);
      return true;
    } catch (error) {
      // The library reads the body as JSON afterwards, which is not what is tried here.
      return error instanceof SyntaxError;
    }
  }
  const der = Buffer.concat([ED25519, Buffer.from(key.slice("whpk_".length), "base64")]);
  const publicKey = crypto.createPublicKey({ key: der, format: "der", type: "spki" });
  return delivery.signature.split(" ").some(each => {
    const [version, signature] = each.split(",");
    return version === "v1a" && crypto.verify(null, content(delivery, body), publicKey, Buffer.from(signature, "base64"));
  });
}

function verify() {
  const lines = require("node:fs").readFileSync(0, "utf8").trim().split("\n");
  let count = 0;
  for (const delivery of lines.map(line => JSON.parse(line))) {
    for (const key of delivery.keys) {
      assert(believes(delivery, key, delivery.body), delivery.case);
      assert(!believes(delivery, key, delivery.body + " "), delivery.case + ", changed");
      count += 1;
    }
  }
  assert(count > 0, "nothing to verify");
  console.log(`JavaScript verifies what we signed: ${count} signatures`);
}

function sign() {
  const now = new Date();
  ['{"a":1}', "ünïcödé", ""].forEach((body, number) => {
    const delivery = { id: `msg_${number}`, timestamp: String(Math.floor(now.getTime() / 1000)), body };
    const secret = "whsec_" + Buffer.alloc(32, number + 1).toString("base64");
    const symmetric = new Webhook(secret).sign(delivery.id, now, body);
    const { publicKey, privateKey } = crypto.generateKeyPairSync("ed25519");
    const asymmetric = "v1a," + crypto.sign(null, content(delivery, body), privateKey).toString("base64");
    const raw = publicKey.export({ format: "der", type: "spki" }).subarray(ED25519.length);
    const keys = [secret, "whpk_" + raw.toString("base64")];
    console.log(JSON.stringify({ ...delivery, case: "JavaScript, both", signature: `${asymmetric} ${symmetric}`, keys }));
  });
}

({ verify, sign })[process.argv[2]]();
