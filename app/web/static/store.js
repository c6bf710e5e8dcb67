// Whether there is anything to ask about, and whether the service can answer: said above both tabs.
import { readiness } from "./api.js";
import { byId, fill, h } from "./dom.js";

/** Look at /readyz and show what a user should know; nothing when all is well. */
export async function checkStore() {
  const state = await readiness();
  const root = byId("store-notice");
  if (state === null) return;
  if (!state.ready) fill(root, notReady(state));
  else if (state.passages === 0) fill(root, empty());
  else fill(root);
  root.dataset.settled = state.ready && state.passages !== 0 ? "yes" : "no";
}

/** Check now, and again whenever the user comes back to the page, until all is well. */
export function watchStore() {
  checkStore();
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible" && byId("store-notice").dataset.settled !== "yes") checkStore();
  });
}

function notReady(state) {
  return h(
    "div",
    { class: "notice problem", role: "status" },
    h("h2", {}, "The service is not ready"),
    h("ul", {}, (state.problems ?? []).map((problem) => h("li", {}, problem))),
    h("p", { class: "meta" }, h("code", {}, "braid doctor"), " names the remedy for each."),
  );
}

function empty() {
  return h(
    "div",
    { class: "notice empty-store" },
    h("h2", {}, "No documents yet"),
    h("p", {}, "Point Braid at a folder of PDFs, slides, Word, HTML, Markdown or text files:"),
    h("pre", {}, h("code", {}, "braid ingest path/to/folder")),
    h("p", { class: "meta" }, "They can be asked about as soon as the command has finished. ", h("code", {}, "braid up path/to/folder"), " does the same when it starts; programs use ", h("code", {}, "POST /v1/documents"), "."),
    h("button", { class: "secondary", type: "button", on: { click: checkStore } }, "Check again"),
  );
}
