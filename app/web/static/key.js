// The API key: asked for when the service wants one, kept for this tab only.
import { byId } from "./dom.js";

const KEY = "braid.api-key";
let inMemory = null; // where storage is switched off
let pending = null;

/** The key, or null. */
export function apiKey() {
  try {
    return sessionStorage.getItem(KEY) ?? inMemory;
  } catch {
    return inMemory;
  }
}

function remember(value) {
  inMemory = value;
  try {
    if (value === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, value);
  } catch {
    // see inMemory
  }
  byId("key-button").hidden = value === null;
}

/** Ask for a key, saying why. Resolves to whether one was given; requests that ask at once share one dialog. */
export function askForKey(detail) {
  pending ??= new Promise((resolve) => {
    const dialog = byId("key-dialog");
    byId("key-detail").textContent = detail;
    byId("key-error").textContent = "";
    byId("key-input").value = "";
    byId("key-forget").hidden = apiKey() === null;
    dialog.returnValue = "";
    dialog.showModal();
    byId("key-input").focus();
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "given"), { once: true });
  }).finally(() => {
    pending = null;
  });
  return pending;
}

/** Wire the dialog and the header's button. */
export function setUpKey() {
  const dialog = byId("key-dialog");
  byId("key-button").hidden = apiKey() === null;
  byId("key-button").addEventListener("click", () => askForKey("A key is in use. Enter another one, or forget it."));
  byId("key-cancel").addEventListener("click", () => dialog.close(""));
  byId("key-forget").addEventListener("click", () => {
    remember(null);
    dialog.close("");
  });
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const value = byId("key-input").value.trim();
    if (!/^[\x21-\x7e]+$/.test(value)) {
      byId("key-error").textContent = "A key is made of printable ASCII characters without spaces.";
      return;
    }
    remember(value);
    byId("key-input").value = "";
    dialog.close("given");
  });
}
