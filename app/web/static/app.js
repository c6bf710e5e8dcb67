// Puts the page together: tabs, address, keyboard.
import { AskView } from "./ask.js";
import { byId, isPlainClick } from "./dom.js";
import { setUpKey } from "./key.js";
import { DocumentPanel } from "./panel.js";
import { withTag } from "./query.js";
import { Router, parse, tabHash } from "./router.js";
import { SearchView } from "./search.js";
import { watchStore } from "./store.js";

const router = new Router(show);
const panel = new DocumentPanel(() => router.closeDocument());
const actions = {
  go: (hash) => router.go(hash),
  open: (passage, quote) => router.openDocument(passage.document_id, passage.id, quote),
  tag: (name, question) => router.go(tabHash("search", withTag(new URLSearchParams({ q: question }), name))),
};
const views = { ask: new AskView(actions), search: new SearchView(actions) };
const tabs = Object.keys(views).map((name) => byId(`tab-${name}`));
let active = "ask";

function show(route, state) {
  if (route.view === "document") {
    const under = parse(state.under ?? `#${active}`);
    activate(under.view === "document" ? { view: "ask", params: new URLSearchParams() } : under);
    panel.open(route.documentId, route.passageId, state.quote ?? null);
  } else {
    activate(route);
    panel.hide();
  }
}

function activate({ view, params }) {
  active = view;
  for (const tab of tabs) {
    const selected = tab.id === `tab-${view}`;
    tab.setAttribute("aria-selected", String(selected));
    tab.tabIndex = selected ? 0 : -1;
  }
  for (const name of Object.keys(views)) byId(`view-${name}`).hidden = name !== view;
  views[view].show(params);
  for (const tab of tabs) tab.href = tabHash(tab.id.slice("tab-".length), currentParams(tab.id.slice("tab-".length)));
  const title = views[view].title;
  document.title = title ? `${title} – Braid` : "Braid";
}

/** What a tab shows, so that coming back to it finds it as it was left. */
function currentParams(name) {
  const shown = views[name].shown;
  if (name === "search") return new URLSearchParams(shown ?? "");
  return new URLSearchParams(shown ? { q: shown } : {});
}

for (const tab of tabs) {
  tab.addEventListener("click", (event) => {
    if (!isPlainClick(event)) return;
    event.preventDefault();
    router.go(new URL(tab.href).hash);
  });
}

document.querySelector("[role=tablist]").addEventListener("keydown", (event) => {
  const at = tabs.indexOf(event.target);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
  if (at < 0) return;
  if (event.key === " ") event.target.click();
  else if (to !== undefined) {
    const tab = tabs[(to + tabs.length) % tabs.length];
    tab.focus();
    tab.click();
  } else return;
  event.preventDefault();
});

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the hash is the page's address, not an anchor
  byId("main").focus();
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || byId("key-dialog").open) return;
  if (event.key === "Escape" && panel.isOpen) {
    event.preventDefault();
    router.closeDocument();
  } else if (event.key === "/" && !event.target.closest("input, textarea, select, [contenteditable]") && !byId("main").inert) {
    event.preventDefault();
    views[active].box.focus();
    views[active].box.select();
  }
});

setUpKey();
router.start();
watchStore();
