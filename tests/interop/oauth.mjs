// A client that openid-client makes goes through discovery, a code with PKCE, refresh, introspection, revocation and the
// flow of devices.
//
// usage: oauth.mjs BASE_URL CLIENT_ID CLIENT_SECRET EMAIL PASSWORD

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

// It is installed elsewhere, and imports do not look where NODE_PATH says.
const found = createRequire(resolve(process.env.NODE_PATH, "nothing.js")).resolve("openid-client");
const oauth = await import(pathToFileURL(found));

const [base, clientId, clientSecret, email, password] = process.argv.slice(2);
const callback = "http://127.0.0.1:9999/callback";
const scope = "openid email offline_access jobs:read";

const unescaped = (text) =>
  text
    .replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">")
    .replaceAll("&quot;", '"')
    .replaceAll("&#39;", "'")
    .replaceAll("&amp;", "&");

// The first form of a page: where it goes, and what it carries.
function form(page) {
  const attribute = (tag, name) => unescaped(tag.match(new RegExp(`${name}="([^"]*)"`))?.[1] ?? "");
  const fields = new URLSearchParams();
  for (const [tag] of page.matchAll(/<input [^>]*>/g)) fields.set(attribute(tag, "name"), attribute(tag, "value"));
  const [select] = page.match(/<select [^>]*>/) ?? [];
  const [option] = page.match(/<option [^>]*>/) ?? [];
  if (select) fields.set(attribute(select, "name"), attribute(option, "value"));
  return { action: attribute(page.match(/<form [^>]*>/)[0], "action"), fields };
}

// A browser: signs in where it is asked to.
async function signedIn(url) {
  const { action, fields } = form(await (await fetch(url, { redirect: "manual" })).text());
  assert.equal(action, "/oauth/sign-in");
  fields.set("email", email);
  fields.set("password", password);
  const answer = await fetch(base + action, { method: "POST", body: fields, redirect: "manual" });
  assert.equal(answer.status, 303);
  const headers = { cookie: answer.headers.get("set-cookie").split(";")[0] };
  return { headers, page: await fetch(base + answer.headers.get("location"), { headers, redirect: "manual" }) };
}

// It allows what it is asked.
async function allowed({ headers, page }) {
  if (page.status !== 200) return page;
  const { action, fields } = form(await page.text());
  fields.set("decision", "allow");
  return fetch(base + action, { method: "POST", body: fields, headers, redirect: "manual" });
}

for (const authentication of [oauth.ClientSecretBasic(clientSecret), oauth.ClientSecretPost(clientSecret)]) {
  const config = await oauth.discovery(new URL(base), clientId, undefined, authentication, {
    execute: [oauth.allowInsecureRequests, oauth.enableNonRepudiationChecks],
  });
  assert(config.serverMetadata().supportsPKCE());
  const verifier = oauth.randomPKCECodeVerifier();
  const [state, nonce] = [oauth.randomState(), oauth.randomNonce()];
  const url = oauth.buildAuthorizationUrl(config, {
    redirect_uri: callback,
    scope,
    state,
    nonce,
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
    code_challenge_method: "S256",
  });
  const back = await allowed(await signedIn(url));
  assert.equal(back.status, 303);
  const tokens = await oauth.authorizationCodeGrant(config, new URL(back.headers.get("location")), {
    pkceCodeVerifier: verifier,
    expectedState: state,
    expectedNonce: nonce,
    idTokenExpected: true,
    maxAge: 600,
  });
  const { sub } = tokens.claims();
  assert.equal((await oauth.fetchUserInfo(config, tokens.access_token, sub)).email, email);
  const jobs = async (token) =>
    (await fetch(`${base}/jobs`, { headers: { authorization: `Bearer ${token}` } })).status;
  assert.equal(await jobs(tokens.access_token), 200);

  const next = await oauth.refreshTokenGrant(config, tokens.refresh_token);
  assert.notEqual(next.access_token, tokens.access_token);
  assert.equal((await oauth.tokenIntrospection(config, next.access_token)).sub, sub);
  // The one before was exchanged: whoever comes with it has stolen it, and everything ends.
  await assert.rejects(oauth.refreshTokenGrant(config, tokens.refresh_token), { error: "invalid_grant" });
  assert.equal((await oauth.tokenIntrospection(config, next.access_token)).active, false);
  assert.equal(await jobs(next.access_token), 401);

  const device = await oauth.initiateDeviceAuthorization(config, { scope });
  const begun = await signedIn(device.verification_uri_complete);
  const typed = form(await begun.page.text());
  const question = await fetch(base + typed.action, { method: "POST", body: typed.fields, headers: begun.headers });
  assert.equal((await allowed({ headers: begun.headers, page: question })).status, 200);
  const ofDevice = await oauth.pollDeviceAuthorizationGrant(config, device);
  assert.equal(await jobs(ofDevice.access_token), 200);
  await oauth.tokenRevocation(config, ofDevice.refresh_token);
  assert.equal((await oauth.tokenIntrospection(config, ofDevice.access_token)).active, false);
}
console.log("openid-client: discovery, code with PKCE, ID token, userinfo, refresh, its reuse, introspection, devices, revocation");
