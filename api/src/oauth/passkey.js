// Offers to sign in with a passkey, where the browser has them. What it signs is sent with the form.
const form = document.forms[0];
const button = document.getElementById("passkey");
const told = document.getElementById("told");

async function asked() {
  if (button.dataset.options) return JSON.parse(button.dataset.options);
  const answer = await fetch("/sessions/passkey-challenges", { method: "POST" });
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.detail);
  return said.public_key;
}

async function sign() {
  told.textContent = "";
  try {
    const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(await asked());
    const credential = await navigator.credentials.get({ publicKey });
    form.elements.credential.value = JSON.stringify(credential.toJSON());
    form.submit();
  } catch (error) {
    told.textContent = error.name === "NotAllowedError" ? "No passkey was used. Try again, or sign in otherwise." : error.message;
  }
}

if (window.PublicKeyCredential?.parseRequestOptionsFromJSON) {
  button.hidden = false;
  button.addEventListener("click", sign);
}
