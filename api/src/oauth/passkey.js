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
  let options;
  try {
    options = await asked();
    const publicKey = PublicKeyCredential.parseRequestOptionsFromJSON(options);
    const credential = await navigator.credentials.get({ publicKey });
    form.elements.credential.value = JSON.stringify(credential.toJSON());
    form.submit();
  } catch (error) {
    told.textContent = why(error, options);
  }
}

function why(error, options) {
  // They are for the name of the platform, whatever else it is reached by.
  if (error.name === "SecurityError") return `Passkeys are for ${options.rpId} only. Go on there, or sign in otherwise.`;
  if (error.name === "NotAllowedError") return "No passkey was used. Try again, or sign in otherwise.";
  return error.message;
}

if (window.PublicKeyCredential?.parseRequestOptionsFromJSON) {
  button.hidden = false;
  button.addEventListener("click", sign);
}
